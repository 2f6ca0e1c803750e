"""Closed-form Kullback-Leibler divergences, one function per pair of distributions, in nats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vae_train.distributions import Distribution, Normal

_CLOSED: dict[tuple[type, type], Callable[..., Tensor]] = {}


def register(q: type, p: type) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Declares the decorated function as KL(q || p) of exactly these two classes."""

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _CLOSED[q, p] = function
        return function

    return decorate


def kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) = E_q[log q - log p] with shape `(*batch)`, or None where there is no closed form."""
    function = _CLOSED.get((type(q), type(p)))
    return None if function is None else function(q, p)


def normal_terms(mean: Tensor, log_scale: Tensor, p_mean: Tensor, p_log_scale: Tensor) -> Tensor:
    """KL of every component of independent normals, N(mean, scale²) from N(p_mean, p_scale²), elementwise in nats."""
    log_ratio = log_scale - p_log_scale
    distance = (mean - p_mean) * torch.exp(-p_log_scale)
    return 0.5 * torch.addcmul(torch.expm1(2 * log_ratio), distance, distance) - log_ratio


@register(Normal, Normal)
def _normal_normal(q: Normal, p: Normal) -> Tensor:
    terms = normal_terms(q.loc, q.log_scale, p.loc, p.log_scale)
    return terms.flatten(-len(q.event_shape)).sum(-1) if q.event_shape else terms
