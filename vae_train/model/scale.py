"""The scale of location-scale pixels: fixed, one learned number, one for every pixel, or the best one.

scale² = floor² + e^(2 raw): a bound that has a gradient on both sides.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from vae_train.distributions.base import Distribution, promote
from vae_train.distributions.fitted import Fitted

Shape = tuple[int, ...]
ScaleMode = Literal["fixed", "shared", "pixel", "optimal"]

LEAST = 1e-3
"""What the scale of continuous pixels stays above where nothing shares it, or where it is the best one: a pixel that is
always the same would send it to 0, and its density to infinity."""
WINDOW = 100
"""Steps that the running average of the best scale looks back on."""


def floor(levels: int | None, scale_mode: ScaleMode) -> float:
    """What a scale of densities stays above: half the distance of levels, since a narrower one scores their grid."""
    if scale_mode == "fixed":
        return 0.0
    if levels is None:
        return 0.0 if scale_mode == "shared" else LEAST
    return 1 / (2 * levels)


def refusal(levels: int | None, scale: float, scale_mode: ScaleMode) -> str | None:
    """Why a density with this scale cannot score data with `levels` levels; None where it can."""
    least = floor(levels, scale_mode)
    if scale > least:
        return None
    if levels == 2:
        return (
            "is a density, and the data is binary: its scale would only learn the distance of 0 and 1. Use "
            "model/likelihood=bernoulli, or data.binarize=none"
        )
    where = "" if levels is None else " 1 / (2 levels) ="
    return f"starts with scale={scale:g}, and one with scale_mode={scale_mode} stays above{where} {least:g}"


class Scale(nn.Module):
    """Decoder's output -> location and logarithm of the scale.

    Args:
        event_shape: (C, H, W) of an image.
        scale: the scale, or where it starts.
        scale_mode: "fixed"; "shared", one parameter of the model; "pixel", a second half of the decoder's output gives
            the scale of every element; "optimal", in training that of maximum likelihood (Rybkin et al., 2021, eq. 8),
            over the whole batch (or microbatch), and in evaluation its running average.
        floor: what the scale stays above.
    """

    def __init__(self, event_shape: Shape, scale: float, scale_mode: ScaleMode, floor: float) -> None:
        super().__init__()
        self.event_ndim, self.scale_mode, self.floor = len(event_shape), scale_mode, floor
        first, *rest = event_shape
        self.parameter_shape: Shape = (2 * first, *rest) if scale_mode == "pixel" else tuple(event_shape)
        self.raw: Tensor
        raw = torch.tensor(0.5 * math.log(scale**2 - floor**2))
        if scale_mode == "shared":
            self.raw = nn.Parameter(raw)
        else:
            self.register_buffer("raw", raw, persistent=scale_mode == "optimal")
        if scale_mode == "optimal":
            self.seen: Tensor
            self.register_buffer("seen", torch.zeros(()))

    def log_scale(self, change: Tensor | None = None) -> Tensor:
        """Logarithm of the scale: a scalar, or with the shape of `change`, which is added to raw."""
        raw = self.raw if change is None else self.raw + change
        return 0.5 * torch.logaddexp(2 * raw, torch.full_like(raw, 2 * math.log(self.floor))) if self.floor else raw

    def forward(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Location with shape `(*N, C, H, W)` and logarithm of the scale, () or alike, of `(*N, *parameter_shape)`."""
        if self.scale_mode != "pixel":
            return parameters, self.log_scale()
        location, change = promote(parameters).chunk(2, -self.event_ndim)
        return location, self.log_scale(change)

    def fitted(self, found: Distribution) -> Distribution:
        """`found` with its best scale where that is asked for, and while gradients are recorded.

        Args:
            found: a distribution that `Fitted` takes.
        """
        if self.scale_mode != "optimal" or not torch.is_grad_enabled():
            return found
        return Fitted(found, self.floor, self.follow)

    @torch.no_grad()
    def follow(self, log_scale: Tensor) -> None:
        """Moves the running average, in place, towards the scale of a batch; the first one is taken over."""
        raw = 0.5 * torch.log((torch.exp(2 * log_scale) - self.floor**2).clamp_min(1e-12)).to(self.raw.dtype)
        self.raw.add_((raw - self.raw) / (self.seen + 1))
        self.seen.add_(1).clamp_max_(WINDOW - 1)
