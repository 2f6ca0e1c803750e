"""Closed-form Kullback-Leibler divergences, one function per pair of distributions, in nats."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import Normal

_TERMS: dict[tuple[type, type], Callable[..., Tensor]] = {}
_CLOSED: dict[tuple[type, type], Callable[..., Tensor]] = {}


def register_terms(q: type, p: type) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Declares the decorated function as the KL of every element, for exactly these two classes: `(*batch, *event)`."""

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _TERMS[q, p] = function
        return function

    return decorate


def register(q: type, p: type) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Declares the decorated function as KL(q || p) of exactly these two classes, with shape `(*batch)`.

    For pairs whose KL is no sum over elements; the others have `register_terms`.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _CLOSED[q, p] = function
        return function

    return decorate


def kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) = E_q[log q - log p] with shape `(*batch)`, or None where there is no closed form."""
    terms = kl_terms(q, p)
    if terms is not None:
        return terms.flatten(-len(q.event_shape)).sum(-1) if q.event_shape else terms
    function = _CLOSED.get((type(q), type(p)))
    return None if function is None else function(q, p)


def kl_terms(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) of every element with shape `(*batch, *event)`, where the elements of both are independent.

    None where there is no closed form.
    """
    function = _TERMS.get((type(q), type(p)))
    return None if function is None else function(q, p)


def normal_terms(mean: Tensor, log_scale: Tensor, p_mean: Tensor, p_log_scale: Tensor) -> Tensor:
    """KL of every component of independent normals, N(mean, scale²) from N(p_mean, p_scale²), elementwise in nats."""
    log_ratio = log_scale - p_log_scale
    distance = (mean - p_mean) * torch.exp(-p_log_scale)
    return 0.5 * torch.addcmul(torch.expm1(2 * log_ratio), distance, distance) - log_ratio


@register_terms(Normal, Normal)
def _normal_normal(q: Normal, p: Normal) -> Tensor:
    return normal_terms(q.loc, q.log_scale, p.loc, p.log_scale)
