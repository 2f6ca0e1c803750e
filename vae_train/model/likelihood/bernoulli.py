"""p(x | z) = prod_i p_i^x_i (1 - p_i)^(1 - x_i),  x_i in {0, 1}."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.bernoulli import Bernoulli as BernoulliDistribution
from vae_train.model.family import Likelihood, Shape


class Bernoulli(Likelihood):
    """Independent binary pixels; the parameters are log-odds.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
        grey_targets: accept grey pixels all the same, as tutorials do. The cross-entropy is then no likelihood
            (Loaiza-Ganem & Cunningham, 2019), and everything that prints it says so.
    """

    def __init__(self, event_shape: Shape, levels: int | None, grey_targets: bool) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels, grey_targets=grey_targets)
        if refused:
            raise ValueError(refused)
        self.parameter_shape = self.event_shape
        self.binary = levels == 2
        self.warning = None if self.binary else "grey targets: not a likelihood"

    @classmethod
    @override
    def refusal(cls, levels: int | None, **knobs: object) -> str | None:
        if levels == 2 or knobs.get("grey_targets"):
            return None
        has = "continuous values" if levels is None else f"{levels} levels"
        return (
            f"scores pixels as 0 or 1, and the data has {has}. Use model/likelihood=gaussian, or "
            "data.binarize=threshold, or model.likelihood.grey_targets=true if you mean it"
        )

    @override
    def forward(self, parameters: Tensor) -> BernoulliDistribution:
        return BernoulliDistribution(parameters, len(self.event_shape), self.binary)
