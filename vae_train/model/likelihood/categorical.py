"""P(x | z) = prod_i softmax(logits_i(z))_k,  x_i = k / (levels - 1)."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.categorical import Levels
from vae_train.model.family import Likelihood
from vae_train.util.errors import Incompatible


class Categorical(Likelihood):
    """Independent pixels with a probability for every level (van den Oord et al., 2016, section 3.1).

    This makes no assumption about the levels, not even their order, but makes the decoder's last layer `levels` times
    as large.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
    """

    levels: int

    def __init__(self, event_shape: Shape, levels: int | None) -> None:
        super().__init__(event_shape, levels)
        first, *rest = event_shape
        self.parameter_shape = (first * self.levels, *rest)

    @classmethod
    @override
    def check_compatible(cls, levels: int | None, **settings: Any) -> Incompatible | None:
        if levels is not None:
            return None
        return Incompatible("needs pixels with levels, but the data is continuous", {"likelihood": "gaussian"})

    @override
    def forward(self, parameters: Tensor) -> Levels:
        first, *rest = self.event_shape
        leading = parameters.shape[: parameters.dim() - len(self.event_shape)]
        logits = parameters.reshape(*leading, first, self.levels, *rest)
        return Levels(logits.movedim(-len(self.event_shape), -1), len(self.event_shape))
