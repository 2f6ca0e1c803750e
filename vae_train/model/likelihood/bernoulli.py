"""p(x | z) = prod_i p_i^x_i (1 - p_i)^(1 - x_i),  x_i in {0, 1}."""

from typing import Any

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.bernoulli import Bernoulli as BernoulliDistribution
from vae_train.model.family import Likelihood
from vae_train.util.errors import Incompatible


class Bernoulli(Likelihood):
    """Independent binary pixels; the parameters are log-odds.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
        grey_targets: whether grey pixels are accepted, as in many tutorials. The cross-entropy is then not a
            log-likelihood (Loaiza-Ganem & Cunningham, 2019, The continuous Bernoulli, arXiv:1907.06845), and all
            reports say so.
    """

    is_bounded = True

    def __init__(self, event_shape: Shape, levels: int | None, grey_targets: bool) -> None:
        super().__init__(event_shape, levels, grey_targets=grey_targets)
        self.binary = levels == 2
        self.warning = None if self.binary else "grey targets: not a likelihood"

    @classmethod
    @override
    def check_compatible(cls, levels: int | None, **settings: Any) -> Incompatible | None:
        if levels == 2 or settings.get("grey_targets"):
            return None
        values = "continuous values" if levels is None else f"{levels} levels"
        return Incompatible(
            f"needs binary pixels, but the data has {values}",
            {"likelihood": "gaussian", "data.binarize": "threshold", "likelihood.grey_targets": "true"},
        )

    @override
    def forward(self, parameters: Tensor) -> BernoulliDistribution:
        return BernoulliDistribution(parameters, len(self.event_shape), self.binary)
