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


@register(Normal, Normal)
def _normal_normal(q: Normal, p: Normal) -> Tensor:
    log_ratio = q.log_scale - p.log_scale
    distance = (q.loc - p.loc) * torch.exp(-p.log_scale)
    terms = 0.5 * torch.addcmul(torch.expm1(2 * log_ratio), distance, distance) - log_ratio
    return terms.flatten(-len(q.event_shape)).sum(-1) if q.event_shape else terms
