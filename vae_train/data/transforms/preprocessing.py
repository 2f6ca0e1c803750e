"""Invertible maps of the pixels that a model sees, with their Jacobians: bits per dimension stay those of the data."""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.batch import Batch
from vae_train.rng import Rng
from vae_train.util.ranges import PositiveFloat, Range


class Preprocessing:
    """Uniform dequantisation, the logit transform, and an affine map of every channel, in this order.

        v = (k + u) / levels, u ~ U(0, 1)       log P(k) >= E_u[log p(v)] - D log levels     (Theis et al., 2016, eq. 3)
        l = logit(alpha + (1 - 2 alpha) v)                                              (Papamakarios et al., 2017)
        x = (l - mean) / std

    Where nothing is random (no `draw`), u = ½. `Batch.log_det` takes log-densities of x back to those of v.

    Args:
        dequantize: add uniform noise within the levels. Without it (and without a logit) pixels stay on their levels,
            which the likelihood then scores itself.
        logit: alpha of the logit transform; None for none. It needs `dequantize` where pixels have levels.
        mean: what is subtracted from every channel, or from channel c; None for 0.
        std: what divides every channel; None for 1.
    """

    def __init__(
        self,
        dequantize: bool,
        logit: Annotated[float, Range(0, 0.5, open_low=True, open_high=True)] | None,
        mean: float | list[float] | None,
        std: PositiveFloat | list[PositiveFloat] | None,
    ) -> None:
        self.dequantize, self.logit = dequantize, logit
        self.mean, self.std = _channels(0.0 if mean is None else mean), _channels(1.0 if std is None else std)

    @property
    def active(self) -> bool:
        """Whether it changes anything."""
        return self.continuous

    @property
    def continuous(self) -> bool:
        """Whether what comes out has no levels."""
        return self.dequantize or self.logit is not None or self._affine

    @property
    def _affine(self) -> bool:
        return any(self.mean) or any(s != 1 for s in self.std)

    def refusal(self, levels: int | None, channels: int) -> str | None:
        """Why data with `levels` levels and `channels` channels cannot be preprocessed so; None where it can."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                return f"has {len(values)} values of {name}, and the images have {channels} channels"
        if levels is None and self.dequantize:
            return "dequantises values that have no levels: use preprocessing.dequantize=false"
        if levels is not None and self.continuous and not self.dequantize:
            return (
                f"makes a density of pixels with {levels} levels, which would score the grid and not the pictures: "
                "add preprocessing.dequantize=true"
            )
        return None

    def __call__(self, batch: Batch, levels: int | None, rng: Rng | None) -> Batch:
        """The batch with `x` mapped, `log_det` and, for pixels with levels, `log_bins`.

        Args:
            batch: `x` in [0, 1].
            levels: number of values that a pixel of `x` can take.
            draw: the source of the dequantisation.
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
            mean, std = self._like(self.mean, x), self._like(self.std, x)
            x = (x - mean) / std
            terms = (torch.zeros_like(x) if terms is None else terms) - std.log()
        bins = math.log(levels) if self.dequantize and levels is not None else None
        return batch._replace(x=x, log_det=_summed(terms, batch.mask), log_bins=bins)

    def inverse(self, x: Tensor) -> Tensor:
        """Images `(N, C, H, W)` back in [0, 1]; dequantisation is not undone."""
        x = x * self._like(self.std, x) + self._like(self.mean, x)
        if self.logit is not None:
            x = (torch.sigmoid(x) - self.logit) / (1 - 2 * self.logit)
        return x

    def _like(self, values: list[float], x: Tensor) -> Tensor:
        """(1, C or 1, 1, 1), filled on the device: a copy from the host would wait for it."""
        parts = [torch.full((1, 1, 1, 1), value, dtype=x.dtype, device=x.device) for value in values]
        return torch.cat(parts, 1)


def _channels(value: float | list[float]) -> list[float]:
    return [float(v) for v in value] if isinstance(value, list | tuple) else [float(value)]


def _summed(terms: Tensor | None, mask: Tensor | None) -> Tensor | None:
    if terms is None:
        return None
    return (terms if mask is None else torch.where(mask, terms, 0.0)).flatten(1).sum(1)
