"""Student's t distributions."""

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.gamma import log_gamma
from vae_train.distributions.location_scale import LocationScale, Shape
from vae_train.rng import Rng


class StudentT(LocationScale):
    """Independent t distributions, log p(t) = -(df + 1)/2 · log(1 + t² / df) - log(√df B(½, df/2)).

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the scale, broadcasts against `loc`.
        df: degrees of freedom, above 1 for a mean and above 2 for a variance.
        event_ndim: how many of the last dimensions are the event.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, df: float, event_ndim: int = 1) -> None:
        super().__init__(loc, log_scale, event_ndim)
        self.df = df
        self.log_norm = 0.5 * math.log(df * math.pi) + math.lgamma(df / 2) - math.lgamma((df + 1) / 2)

    @property
    @override
    def unit_variance(self) -> float:
        return self.df / (self.df - 2) if self.df > 2 else math.inf

    @override
    def unit_terms(self, t: Tensor) -> Tensor:
        return -0.5 * (self.df + 1) * torch.log1p(t * t / self.df) - self.log_norm

    @override
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        normal = rng.normal(shape, dtype)
        half = torch.full((), self.df / 2, dtype=normal.dtype, device=normal.device)
        return normal * torch.exp(0.5 * (math.log(self.df / 2) - log_gamma(rng, shape, half)))
