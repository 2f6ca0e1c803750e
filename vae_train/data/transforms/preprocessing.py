"""Invertible maps of a model's pixels with their Jacobians, so that bits per dimension stay comparable."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.batch import Batch
from vae_train.rng import Rng
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import PositiveFloat, Range

OpenHalf = Annotated[float, Range(0, 0.5, open_low=True, open_high=True)]


@dataclass(frozen=True)
class Preprocessing:
    """Uniform dequantisation, the logit transform, and an affine map of every channel, in this order.

        v = (k + u) / levels, u ~ U(0, 1)       log P(k) >= E_u[log p(v)] - D log levels
        l = logit(alpha + (1 - 2 alpha) v)
        x = (l - mean) / std

    The first line is equation 3 of "A note on the evaluation of generative models" (arXiv:1511.01844), the second is
    from "Masked Autoregressive Flow for Density Estimation" (arXiv:1705.07057). Without an `rng`, u = 1/2.
    `Batch.log_det` converts log-densities of x to those of v.

    Args:
        dequantize: add uniform noise within the levels. Otherwise (and without a logit) pixels keep their levels,
            which the likelihood scores.
        logit: alpha of the logit transform; None for no such transform. Pixels with levels need `dequantize` as well.
        mean: subtracted from all channels, or one number per channel; None for 0.
        std: divides all channels, or one number per channel; None for 1.
    """

    dequantize: bool
    logit: OpenHalf | None
    mean: float | list[float] | None
    std: PositiveFloat | list[PositiveFloat] | None

    @property
    def active(self) -> bool:
        """Whether it has an effect; its output then has no levels."""
        return self.dequantize or self.logit is not None or self._affine

    @property
    def channel_scales(self) -> tuple[list[float], list[float]]:
        """`mean` and `std` of each channel, or single ones for all."""
        return _per_channel(self.mean, 0.0), _per_channel(self.std, 1.0)

    @property
    def _affine(self) -> bool:
        means, stds = self.channel_scales
        return any(means) or any(std != 1 for std in stds)

    def check_compatible(self, levels: int | None, channels: int) -> Incompatible | None:
        """Why images with these levels and channels cannot be preprocessed with these settings; None if they can."""
        for name, values in zip(("mean", "std"), self.channel_scales, strict=True):
            if len(values) not in (1, channels):
                return Incompatible(f"has {len(values)} values for {name}, but the images have {channels} channels")
        if levels is None and self.dequantize:
            reason = "cannot dequantise continuous values, which have no levels"
            return Incompatible(reason, {"preprocessing.dequantize": "false"})
        if levels is not None and self.active and not self.dequantize:
            reason = f"would fit a density to pixels with {levels} levels, which is unbounded"
            return Incompatible(reason, {"preprocessing.dequantize": "true"})
        return None

    def __call__(self, batch: Batch, levels: int | None, rng: Rng | None) -> Batch:
        """Maps `x` and adds `log_det` and, for pixels with levels, `log_bins`.

        Args:
            batch: images in [0, 1].
            levels: number of values of a pixel; None for continuous ones.
            rng: the dequantisation noise; None for u = 1/2.
        """
        x, terms = batch.x, None
        if self.dequantize and levels is not None:
            u = 0.5 if rng is None else rng.uniform((1, *x.shape))[0]
            x = (x * (levels - 1) + u) / levels
        if self.logit is not None:
            scale = 1 - 2 * self.logit
            inner = self.logit + scale * x
            x = torch.logit(inner)
            # d logit(s) / ds = 1 / (s (1 - s)), and -log s - log(1 - s) = softplus(l) + softplus(-l)
            terms = F.softplus(x) + F.softplus(-x) + math.log(scale)
        if self._affine:
            mean, std = self._scales(x)
            x = (x - mean) / std
            terms = (torch.zeros_like(x) if terms is None else terms) - std.log()
        bins = math.log(levels) if self.dequantize and levels is not None else None
        if terms is not None:
            terms = (terms if batch.mask is None else torch.where(batch.mask, terms, 0.0)).flatten(1).sum(1)
        return batch._replace(x=x, log_det=terms, log_bins=bins)

    def inverse(self, x: Tensor) -> Tensor:
        """Maps images `(N, C, H, W)` back to [0, 1]; dequantisation is not undone."""
        mean, std = self._scales(x)
        x = x * std + mean
        if self.logit is not None:
            x = (torch.sigmoid(x) - self.logit) / (1 - 2 * self.logit)
        return x

    def _scales(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations, `(1, C or 1, 1, 1)`, filled on the device to avoid a copy from the host."""
        mean, std = (
            torch.cat([torch.full((1, 1, 1, 1), value, dtype=x.dtype, device=x.device) for value in values], 1)
            for values in self.channel_scales
        )
        return mean, std


def _per_channel(value: float | list[float] | None, default: float) -> list[float]:
    # Part of compiled steps, for which NumPy's arrays would be tensors without `tolist`.
    if isinstance(value, list | tuple):
        return [float(v) for v in value]
    return [default if value is None else float(value)]
