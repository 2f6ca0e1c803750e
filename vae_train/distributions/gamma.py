"""Samples of gamma distributions from normal and uniform noise (Marsaglia & Tsang, 2000, section 2)."""

import torch
from torch import Tensor

from vae_train.distributions.base import promote
from vae_train.rng import Rng

PROPOSALS = 6
"""Proposals per sample. All are rejected less than once in 10⁷ samples; the mode is returned then."""


@torch.no_grad()
def log_gamma(rng: Rng, shape: tuple[int, ...], concentration: Tensor) -> Tensor:
    """Logarithms of samples from Gamma(concentration, 1), without a gradient.

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
