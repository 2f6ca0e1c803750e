"""p(x | z) = N(x; mean(z), sigma² I), with one sigma for all pixels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import DequantizedNormal, Normal
from vae_train.model.family import Likelihood, Shape
from vae_train.ranges import PositiveFloat


class Gaussian(Likelihood):
    """Independent normal pixels with a shared standard deviation; the parameters are the means.

    With sigma fixed, -log p is the squared error / (2 sigma²) plus a constant (`mse` has sigma = 1); learned, sigma is
    one more parameter of the model (Rybkin et al., 2021). Data with levels is dequantised in closed form. All constants
    are in.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        sigma: standard deviation on the scale of [0, 1]; where it is learned, the value to start from.
        learned: whether sigma is trained. It then stays above 1 / (2 levels): a narrower density on data with levels
            scores the grid and not the pictures.
    """

    def __init__(self, event_shape: Shape, levels: int | None, sigma: PositiveFloat, learned: bool) -> None:
        super().__init__(event_shape, levels)
        refused = self.refusal(levels, sigma=sigma, learned=learned)
        if refused:
            raise ValueError(refused)
        self.parameter_shape = self.event_shape
        self.floor = 0.0 if levels is None or not learned else 1 / (2 * levels)
        self.learned = learned
        # sigma² = floor² + exp(2 raw), so that the bound has a gradient on both sides.
        raw = torch.tensor(0.5 * math.log(sigma**2 - self.floor**2))
        if learned:
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw, persistent=False)

    @classmethod
    def refusal(cls, levels: int | None, **knobs: Any) -> str | None:
        """See `Likelihood.refusal`."""
        if levels is None or not knobs["learned"] or knobs["sigma"] > 1 / (2 * levels):
            return None
        if levels == 2:
            return (
                "is a density, and the data is binary: sigma would only learn the distance of 0 and 1. Use "
                "model/likelihood=bernoulli, or data.binarize=none"
            )
        return (
            f"starts with sigma={knobs['sigma']:g}, and a learned one stays above 1 / (2 levels) = {1 / (2 * levels):g}"
        )

    def log_sigma(self) -> Tensor:
        """The logarithm of the standard deviation, a scalar."""
        return 0.5 * torch.log(self.floor**2 + torch.exp(2 * self.raw)) if self.floor else self.raw

    def forward(self, parameters: Tensor) -> Distribution:
        """See `Family.forward`."""
        event_ndim = len(self.event_shape)
        if self.levels is None:
            return Normal(parameters, self.log_sigma(), event_ndim)
        return DequantizedNormal(parameters, self.log_sigma(), self.levels, event_ndim)
