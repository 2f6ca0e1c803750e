"""Beta distributions on (0, 1), and samples of gamma distributions for them."""

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng

PROPOSALS = 6
"""Proposals per sample. In fewer than 1 of 10⁷ samples all are rejected, and the mode is returned."""

MIN_DISTANCE = 1e-4
"""Least distance of values from 0 and 1, where densities may be 0 or infinite; closer values are clamped."""


@torch.no_grad()
def log_gamma(rng: Rng, shape: tuple[int, ...], concentration: Tensor) -> Tensor:
    """Logarithms of samples from Gamma(concentration, 1), without a gradient (Marsaglia & Tsang, 2000, section 2).

    x = d v with v = (1 + ε / √(9 d))³ and d = concentration + ⅔ is a sample of Gamma(concentration + 1) if it is
    accepted, and x u^(1 / concentration) is a sample of Gamma(concentration). Logarithms do not underflow.

    Args:
        rng: the source of the noise.
        shape: shape of the samples, by convention (num, *batch, *event).
        concentration: positive, broadcasts against `shape`.
    """
    concentration = promote(concentration)
    normal = rng.normal((*shape, PROPOSALS), concentration.dtype)
    uniform = rng.uniform((*shape, PROPOSALS + 1), concentration.dtype)
    d = (concentration + 2 / 3)[..., None] if concentration.dim() else concentration + 2 / 3
    root = 1 + normal * (9 * d).rsqrt()
    log_v = 3 * torch.log(root.clamp_min(torch.finfo(root.dtype).tiny))
    bound = 0.5 * normal**2 + d * (1 - torch.exp(log_v) + log_v)
    accepted = (root > 0) & (torch.log(uniform[..., :-1]) < bound)
    first = accepted & (accepted.cumsum(-1) == 1)
    chosen = torch.where(first, log_v, 0.0).sum(-1)
    return torch.log(concentration + 2 / 3) + chosen + torch.log(1 - uniform[..., -1]) / concentration


class Beta(Distribution):
    """Independent beta distributions, (a - 1) log x + (b - 1) log(1 - x) - log B(a, b).

    Samples g / (g + g') of two gamma variables have no gradient. Values are clamped into [1e-4, 1 - 1e-4].

    Args:
        a: concentration at 1 with shape `(*batch, *event)`, positive.
        b: concentration at 0, with the same shape.
        event_ndim: number of trailing event dimensions.
    """

    is_factorized = True

    def __init__(self, a: Tensor, b: Tensor, event_ndim: int = 1) -> None:
        self.a, self.b = promote(a), promote(b)
        super().__init__(self.a.shape, event_ndim)

    @property
    @override
    def mean(self) -> Tensor:
        return self.a / (self.a + self.b)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        x = promote(x).clamp(MIN_DISTANCE, 1 - MIN_DISTANCE)
        log_norm = torch.lgamma(self.a) + torch.lgamma(self.b) - torch.lgamma(self.a + self.b)
        return (self.a - 1) * torch.log(x) + (self.b - 1) * torch.log1p(-x) - log_norm

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        shape = (num, *self.batch_shape, *self.event_shape)
        x = torch.sigmoid(log_gamma(rng, shape, self.a) - log_gamma(rng, shape, self.b))
        return x if temperature == 1.0 else self.mean.detach() + temperature * (x - self.mean.detach())
