"""Huber distributions: normal in the middle, exponential in the tails."""

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.location_scale import LocationScale, Shape, centred
from vae_train.rng import Rng


class Huber(LocationScale):
    """Independent elements with density exp(-h((x - loc) / scale)) / (scale Z) and Huber's function h (1964, eq. 2.1)

        h(t) = t² / 2 for |t| <= delta,    delta |t| - delta² / 2 beyond
        Z = √(2π) erf(delta / √2) + 2 exp(-delta² / 2) / delta

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the scale, broadcasts against `loc`.
        delta: where squares end and absolute values begin, in units of the scale.
        event_ndim: how many of the last dimensions are the event.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, delta: float, event_ndim: int = 1) -> None:
        super().__init__(loc, log_scale, event_ndim)
        self.delta = delta
        self.tails = 2 * math.exp(-(delta**2) / 2) / delta
        self.norm = math.sqrt(2 * math.pi) * math.erf(delta / math.sqrt(2)) + self.tails

    @property
    @override
    def unit_variance(self) -> float:
        d = self.delta
        core = self.norm - self.tails - 2 * d * math.exp(-(d**2) / 2)
        return (core + self.tails * (d**2 + 2 + 2 / d**2)) / self.norm

    @override
    def unit_terms(self, t: Tensor) -> Tensor:
        near = t.abs().clamp_max(self.delta)
        return -near * (t.abs() - 0.5 * near) - math.log(self.norm)

    @override
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        sign, tail = centred(rng, shape, dtype)
        share = self.tails / self.norm
        beyond = self.delta - torch.log(tail / share) / self.delta if share > 0 else torch.zeros_like(tail)
        width = math.sqrt(math.pi / 2) * 2 / self.norm
        inside = math.sqrt(2) * torch.erfinv(((1 - tail) / width).clamp_max(1 - torch.finfo(tail.dtype).eps))
        return sign * torch.where(tail < share, beyond, inside)
