"""Decomposes the rate into mutual information, total correlation and dimension-wise KL."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.distributions.normal import Normal
from vae_train.evaluation.encodings import Encodings, encodings, single_latent
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.subject import Subject

NUM_POINTS = 2_000
"""Number of samples of z at which the aggregate posterior is evaluated."""

MAX_CHUNK_ELEMENTS = 2**22
"""Log-densities per pass."""

CEILING_SHARE = 0.95
"""Fraction of log N above which the mutual information counts as saturated."""


def normal_latents(subject: Subject) -> str | None:
    """Requires a normal posterior and a normal prior."""
    e = encodings(subject)
    return "the posterior or the prior is not normal" if e.q is None or e.p is None else None


class RateDecomposition(Metric):
    """E_x KL(q(z | x) || p(z)) = mutual information + total correlation + dimension-wise KL.

    The aggregate posterior q(z) is the mixture over the N encoded images, so the mutual information is at most log N.
    Near this ceiling it is too small and the total correlation too large by the same amount; the report then says so.

    Source: Hoffman & Johnson, "ELBO surgery" (2016); Chen et al., "Isolating Sources of Disentanglement in VAEs"
    (arXiv:1802.04942), equation 2.
    """

    outputs = (
        MetricInfo("mutual_information", "mutual information of image and z", "nats"),
        MetricInfo("total_correlation", "total correlation of z", "nats"),
        MetricInfo("dimension_wise_kl", "dimension-wise KL", "nats"),
    )
    requires = (single_latent, normal_latents)
    order = 21

    @override
    def __call__(self, subject: Subject) -> Results:
        e = encodings(subject)
        terms, count = decompose(e), len(e.mean)
        notes = ceiling_notes(terms["mutual_information"].value, count)
        return {i.name: replace(terms[i.name], n=count, about=notes.get(i.name, {})) for i in self.outputs}


def ceiling_notes(mutual_information: float, count: int) -> dict[str, dict[str, str]]:
    """Notes that estimates from `count` posteriors are only bounds if the mutual information is at its ceiling."""
    place = f"at its ceiling, log {count:,} = {math.log(count):.2f}"
    notes = {
        "mutual_information": {"conditions": f"{place}: a lower bound"},
        "total_correlation": {"conditions": f"an upper bound: mutual information is {place}"},
    }
    return notes if mutual_information >= CEILING_SHARE * math.log(count) else {}


@torch.no_grad()
def decompose(e: Encodings) -> dict[str, Estimate]:
    """Estimates the rate and its three terms at `NUM_POINTS` samples, against the posteriors of all images.

    Args:
        e: encodings with a normal posterior and a normal prior.

    Returns:
        "rate", "mutual_information" I_q(x; z), "total_correlation" KL(q(z) || prod_d q(z_d)) and "dimension_wise_kl"
        sum_d KL(q(z_d) || p(z_d)), in nats, averaged over the samples.
    """
    assert e.q is not None
    assert e.p is not None
    q, p = (Normal(normal.loc.double(), normal.log_scale.double()) for normal in (e.q, e.p))
    count, size = q.loc.shape
    points = evenly_spaced(count, NUM_POINTS).to(q.loc.device)
    columns = list[Tensor]()
    for rows in points.split(max(1, MAX_CHUNK_ELEMENTS // (count * size))):
        z = e.z[rows].double()
        elements = q.log_prob_elementwise(z[:, None])  # (R, N, D)
        log_aggregate = elements.sum(-1).logsumexp(1) - math.log(count)  # (R,)
        log_marginals = (elements.logsumexp(1) - math.log(count)).sum(-1)
        log_q = Normal(q.loc[rows], q.log_scale[rows]).log_prob(z)
        log_p = p.log_prob(z)
        terms = (log_q - log_p, log_q - log_aggregate, log_aggregate - log_marginals, log_marginals - log_p)
        columns.append(torch.stack(terms))  # (4, R)
    names = ("rate", "mutual_information", "total_correlation", "dimension_wise_kl")
    return {name: Estimate.mean_of(values) for name, values in zip(names, torch.cat(columns, 1), strict=True)}
