"""Closed-form Kullback-Leibler divergences, one function per pair of distributions, in nats."""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.distributions.codes import Codes, QuantizedPoint
from vae_train.distributions.mixture import Product
from vae_train.distributions.multivariate import LowRankNormal, MultivariateNormal
from vae_train.distributions.normal import Normal
from vae_train.distributions.sphere import UniformSphere, VonMisesFisher, log_area

KL = Callable[..., Tensor | None]
"""(q, p) -> KL in nats, or None if this pair has no closed form."""


def kl(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) = E_q[log q - log p] with shape `(*batch)`, or None if there is no closed form.

    >>> q = Normal(torch.ones(5, 3), torch.zeros(3))
    >>> kl(q, Normal(torch.zeros(3), torch.zeros(3)))
    tensor([1.5000, 1.5000, 1.5000, 1.5000, 1.5000])
    """
    rates = kl_elementwise(q, p)
    if rates is not None:
        return rates.flatten(-len(q.event_shape)).sum(-1) if q.event_shape else rates
    function = CLOSED.get((type(q), type(p)))
    return None if function is None else function(q, p)


def kl_elementwise(q: Distribution, p: Distribution) -> Tensor | None:
    """KL(q || p) of every element with shape `(*batch, *event)`, where the elements of both are independent.

    None where there is no closed form.
    """
    if type(q) is not Normal or type(p) is not Normal:
        return None
    log_ratio = q.log_scale - p.log_scale
    distance = (q.loc - p.loc) * torch.exp(-p.log_scale)
    return 0.5 * torch.addcmul(torch.expm1(2 * log_ratio), distance, distance) - log_ratio


def _dependent_normal(q: MultivariateNormal | LowRankNormal, p: Normal) -> Tensor:
    # ½ (tr(Σ_q Σ_p⁻¹) + |mean_q - mean_p|² Σ_p⁻¹ - D + log det Σ_p - log det Σ_q); the trace needs variances only.
    distance = (q.loc - p.loc) * torch.exp(-p.log_scale)
    ratio = q.variance * torch.exp(-2 * p.log_scale)
    terms = 0.5 * (ratio + distance * distance - 1) + p.log_scale
    return terms.flatten(-len(q.event_shape)).sum(-1) - q.log_det


def _categorical_categorical(q: OneHotCategorical, p: OneHotCategorical) -> Tensor:
    if q.categories != p.categories:
        raise ValueError(
            f"the posterior has blocks of {q.categories} categories, but the prior has blocks of {p.categories}"
        )
    return (q.mean * (q.log_probs - p.log_probs)).sum(-1)


def _sphere_uniform(q: VonMisesFisher, p: UniformSphere) -> Tensor:
    return -q.concentration * q.shortfall - q.log_excess + log_area(q.event_shape[-1])


def _codes(q: QuantizedPoint, p: Codes) -> Tensor:
    return -p.base.log_prob(q.codes)


def _product(q: Product, p: Product) -> Tensor | None:
    """None if one of the parts has no closed form, or if they have different sizes."""
    rates = [kl(*pair) for pair in zip(q.parts, p.parts, strict=True)] if q.sizes == p.sizes else []
    known = [rate for rate in rates if rate is not None]
    return torch.stack(known).sum(0) if known and len(known) == len(rates) else None


CLOSED: dict[tuple[type, type], KL] = {
    (MultivariateNormal, Normal): _dependent_normal,
    (LowRankNormal, Normal): _dependent_normal,
    (OneHotCategorical, OneHotCategorical): _categorical_categorical,
    (VonMisesFisher, UniformSphere): _sphere_uniform,
    (QuantizedPoint, Codes): _codes,
    (Product, Product): _product,
}
"""Classes of q and p -> function that returns the KL with shape `(*batch)`, for KLs that are not sums over elements."""
