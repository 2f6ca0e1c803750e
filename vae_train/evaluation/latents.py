"""What the latents of a model do: how many are used, and how far the aggregate posterior is from the prior."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.batch import Fetched, evenly_spaced
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.base import Distribution
from vae_train.distributions.kl import normal_kl_elementwise
from vae_train.distributions.normal import Normal
from vae_train.model.base import SingleLatent
from vae_train.rng import BlockRng

ACTIVE = 0.01
"""Variance over images of a unit's posterior mean above which it is active (Burda et al., 2016, appendix C)."""

POINTS = 2_000
"""Draws of z at which the aggregate posterior is evaluated."""

CHUNK = 2**22
"""Log-densities at a time."""

Moments = tuple[Tensor, Tensor]
"""Mean and logarithm of the standard deviation."""


class Codes(NamedTuple):
    """Posteriors of N images, with the latent flattened to D units."""

    mean: Tensor
    """(N, D) means of q(z | x)."""
    z: Tensor
    """(N, D) one draw of each."""
    q: Moments | None
    """(N, D) each, where the posterior is normal."""
    p: Moments | None
    """(D,) each, where the prior is normal and the same for all images."""
    y: Tensor | None
    """(N, F) int64 labels or factors."""


@torch.no_grad()
def codes(
    model: SingleLatent, images: Fetched, *, seed: int = 0, device: torch.device | str = "cpu", batch_size: int = 512
) -> Codes:
    """Encodes a split.

    Args:
        model: the model, on `device`.
        images: the split.
        seed: decides z, as in `vae_train.evaluation.evidence`.
        device: where the noise is made.
        batch_size: images at a time.
    """
    means, zs, ys = list[Tensor](), list[Tensor](), list[Tensor]()
    moments = list[Moments | None]()
    for start, batch in evaluation_batches(images, batch_size, device):
        q = model.encode(batch.x, batch.y)
        means.append(q.mean.flatten(1))
        zs.append(q.sample(BlockRng(seed, "evaluation", start, device=device), 1)[0].flatten(1))
        moments.append(_moments(q))
        if batch.y is not None:
            ys.append(batch.y)
    # A conditional model has a prior for every y.
    prior = None if model.condition is not None else getattr(model, "prior", None)
    p = None if prior is None else _moments(prior(model.encode))
    return Codes(torch.cat(means), torch.cat(zs), _joined(moments), p, torch.cat(ys) if ys else None)


def _joined(moments: list[Moments | None]) -> Moments | None:
    known = [pair for pair in moments if pair is not None]
    if len(known) < len(moments):
        return None
    return torch.cat([mean for mean, _ in known]), torch.cat([log_scale for _, log_scale in known])


def _moments(found: Distribution) -> Moments | None:
    """Mean and log standard deviation with the latent flattened; None where the distribution is not normal."""
    if type(found) is not Normal:
        return None
    whole, kept = found.batch_shape + found.event_shape, len(found.batch_shape)
    mean, log_scale = (t.expand(whole).flatten(kept) for t in (found.loc, found.log_scale))
    return mean, log_scale


class Usage(NamedTuple):
    """What each of D units does."""

    variance: Tensor
    """(D,) variance over images of the posterior mean."""
    kl: Tensor | None
    """(D,) nats, the mean over images of KL(q(z_d | x) || p(z_d)); None where q or p is not normal."""
    mean: Tensor
    """(D,) mean of the aggregate posterior."""
    std: Tensor
    """(D,) standard deviation of the aggregate posterior."""

    @property
    def active(self) -> int:
        """Number of active units."""
        return int((self.variance > ACTIVE).sum())


def usage(found: Codes) -> Usage:
    """Burda's active units, KL per unit, and the first moments of the aggregate posterior."""
    kl = None
    if found.q is not None and found.p is not None:
        kl = normal_kl_elementwise(*found.q, *found.p).double().mean(0)
    z = found.z.double()
    return Usage(found.mean.double().var(0, unbiased=False), kl, z.mean(0), z.std(0, unbiased=False))


class Part(NamedTuple):
    """The mean over the draws at which the aggregate posterior was evaluated, and its standard error, in nats."""

    value: float
    se: float


class Decomposition(NamedTuple):
    """E_x KL(q(z | x) || p(z)) in its parts, in nats (Hoffman & Johnson, 2016; Chen et al., 2018, eq. 2).

    The aggregate posterior q(z) is that of the N images at hand, so that the mutual information is at most log N.
    """

    rate: Part
    """All of it: the sum of the other three."""
    mutual_information: Part
    """I_q(x; z), of the image's number and z."""
    total_correlation: Part
    """KL(q(z) || prod_d q(z_d)): how far the units are from independent."""
    dimension_wise_kl: Part
    """sum_d KL(q(z_d) || p(z_d))."""


@torch.no_grad()
def decomposition(found: Codes) -> Decomposition | None:
    """Estimates the parts at `POINTS` draws, each against the posteriors of all images.

    Args:
        found: the posteriors.

    Returns:
        The means over the draws; None where q or p is not normal.
    """
    if found.q is None or found.p is None:
        return None
    (mean, log_scale), (p_mean, p_log_scale) = ([t.double() for t in pair] for pair in (found.q, found.p))
    count, units = mean.shape
    chosen = evenly_spaced(count, POINTS).to(mean.device)
    columns = list[Tensor]()
    for rows in chosen.split(max(1, CHUNK // (count * units))):
        z = found.z[rows].double()
        terms = _log_normal(z[:, None], mean, log_scale)  # (R, N, D)
        log_aggregate = terms.sum(-1).logsumexp(1) - math.log(count)  # (R,)
        log_marginals = (terms.logsumexp(1) - math.log(count)).sum(-1)
        log_q = _log_normal(z, mean[rows], log_scale[rows]).sum(-1)
        log_p = _log_normal(z, p_mean, p_log_scale).sum(-1)
        parts = (log_q - log_p, log_q - log_aggregate, log_aggregate - log_marginals, log_marginals - log_p)
        columns.append(torch.stack(parts))  # (4, R)
    found_parts = torch.cat(columns, 1)
    errors = found_parts.std(1) / math.sqrt(len(chosen))
    return Decomposition(*map(Part, found_parts.mean(1).tolist(), errors.tolist()))


def diagnosis(found: Usage, known: Codes, beta: float | None) -> str | None:
    """What is wrong with the latents, in words, and what to try; None where nothing is.

    Args:
        found: what each unit does.
        known: the codes, which know whether the prior is a normal distribution.
        beta: the weight that the model was trained with, where it has one.
    """
    units, active = len(found.variance), found.active
    lower = f"lower beta (it was {beta:g}), " if beta else ""
    advice = f"{lower}warm it up (objective/beta_schedule=linear) or train longer"
    if active == 0:
        return f"posterior collapse: none of {units} units is active, so that z says nothing of x: {advice}"
    if 4 * active <= units:
        return f"{active} of {units} units active: {advice}, or take fewer latents"
    far = int(((found.mean.abs() > 0.5) | (found.std > 2)).sum())
    if known.p is not None and 2 * far > units:
        return (
            f"the aggregate posterior is far from the prior in {far} of {units} units (its mean is beyond 0.5, or its "
            "standard deviation above 2): samples will not look like reconstructions; raise beta, or draw from a "
            "density that is fitted to it (vae fit-prior)"
        )
    return None


def _log_normal(z: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Elementwise log N(z; mean, scale²)."""
    return -0.5 * (((z - mean) * torch.exp(-log_scale)) ** 2 + math.log(2 * math.pi)) - log_scale
