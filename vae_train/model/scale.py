"""The scale of location-scale likelihoods: fixed, learned (shared, per column or per pixel), or optimal.

scale² = floor² + e^(2 raw) is a lower bound that never blocks the gradient.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.location_scale import optimal_log_scale

PlainScale = Literal["fixed", "shared", "pixel"]
"""Modes for discretised densities."""
LearnedScale = Literal["auto", PlainScale, "column"]
"""Modes for densities without a closed-form optimal scale; "auto" is "column" for vectors and signals, else "shared".
"""
ScaleMode = Literal[LearnedScale, "optimal"]

MIN_SCALE = 1e-3
"""Lower bound of the scale of continuous pixels, unless they share one. Without it, a pixel that never changes
would drive the scale to 0 and the density to infinity."""
MAX_WINDOW_STEPS = 100
"""Window of the running average of the optimal scale, in steps."""


def density_floor(levels: int | None, scale_mode: ScaleMode) -> float:
    """Lower bound of a density's scale: half the spacing of levels, since a narrower density would fit their grid."""
    if scale_mode == "fixed":
        return 0.0
    if levels is None:
        return 0.0 if scale_mode in ("shared", "auto") else MIN_SCALE
    return 1 / (2 * levels)


def discretized_floor(levels: int) -> float:
    """Lower bound of the scale of a discretised density, at which nearly all mass is on one level."""
    return 1 / (8 * levels)


class Scale(nn.Module):
    """Maps the decoder's output to location and log-scale.

    Args:
        event_shape: (C, H, W) of an image.
        scale: the scale, or its initial value.
        scale_mode: "fixed"; "shared", one parameter of the model; "column", one for each column of vectors or each
            channel of signals and images; "pixel", a second half of the decoder's output is the scale of every element;
            "optimal", in training the maximum-likelihood scale over the whole batch (or microbatch), in evaluation its
            running average (Rybkin et al., 2021, Simple and Effective VAE Training with Calibrated Decoders,
            arXiv:2006.13202, eq. 8).
        floor: lower bound of the scale.
        column_shape: shape of one scale per column, (1, 1, D) for vectors; by default one per channel, (C, 1, 1).
    """

    def __init__(
        self, event_shape: Shape, scale: float, scale_mode: ScaleMode, floor: float, column_shape: Shape = ()
    ) -> None:
        super().__init__()
        self.event_ndim, self.scale_mode, self.floor = len(event_shape), scale_mode, floor
        first, *rest = event_shape
        self.parameter_shape: Shape = (2 * first, *rest) if scale_mode == "pixel" else tuple(event_shape)
        by_column, optimal = scale_mode == "column", scale_mode == "optimal"
        shape = (column_shape or (first, *(1 for _ in rest))) if by_column else ()
        raw = torch.full(shape, 0.5 * math.log(scale**2 - floor**2))
        learned = by_column or scale_mode == "shared"
        self.raw = nn.Parameter(raw) if learned else nn.Buffer(raw, persistent=optimal)
        if optimal:
            self.updates = nn.Buffer(torch.zeros(()))

    def log_scale(self, change: Tensor | None = None) -> Tensor:
        """The log-scale, with the shape of `raw`, or of `change`, which is added to it."""
        raw = self.raw if change is None else self.raw + change
        return 0.5 * torch.logaddexp(2 * raw, torch.full_like(raw, 2 * math.log(self.floor))) if self.floor else raw

    def forward(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """The location with shape `(*N, C, H, W)`, and the logarithm of the scale, which broadcasts against it.

        Args:
            parameters: the decoder's output with shape `(*N, *parameter_shape)`.
        """
        if self.scale_mode != "pixel":
            return parameters, self.log_scale()
        location, change = promote(parameters).chunk(2, -self.event_ndim)
        return location, self.log_scale(change)

    @torch.no_grad()
    def update_state(self, mean_distance: Tensor, power: int) -> None:
        """Updates the running average in place with the optimal scale of a batch; the first one replaces it.

        Args:
            mean_distance: see `Fitted.mean_distance`.
            power: see `Scalable.power`.
        """
        log_scale = optimal_log_scale(mean_distance, power, self.floor)
        raw = 0.5 * torch.log((torch.exp(2 * log_scale) - self.floor**2).clamp_min(1e-12)).to(self.raw.dtype)
        self.raw.add_((raw - self.raw) / (self.updates + 1))
        self.updates.add_(1).clamp_max_(MAX_WINDOW_STEPS - 1)
