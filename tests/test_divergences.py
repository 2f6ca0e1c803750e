from __future__ import annotations

import math

import pytest
import torch

from tests.examples import EXAMPLES
from vae_train.distributions.bernoulli import Bernoulli
from vae_train.distributions.kl import CLOSED, kl, kl_elementwise
from vae_train.distributions.normal import Normal
from vae_train.model.trace import Latent, Trace
from vae_train.rng import Rng

PAIRS = pytest.mark.parametrize(("q", "p"), sorted({*CLOSED, (Normal, Normal)}, key=str))


class Foreign(Normal):
    """A normal distribution that no closed form knows."""


def pair(q, p, batch=(5,), event=None):
    both = [e for e in EXAMPLES[q].events if e in EXAMPLES[p].events]
    event = both[-1] if event is None else event
    return EXAMPLES[q].make(batch, event, torch.float64, 1), EXAMPLES[p].make((), event, torch.float64, 2)


@PAIRS
def test_a_closed_form_equals_its_monte_carlo_estimate(q, p):
    first, second = pair(q, p)
    z = first.sample(Rng(0, "x"), 20_000)
    ratio = first.log_prob(z) - second.log_prob(z)
    error = ratio.std(0) / math.sqrt(len(z))
    assert ((ratio.mean(0) - kl(first, second)).abs() <= 5 * error + 1e-12).all()


@PAIRS
def test_a_closed_form_is_summed_over_the_event_only(q, p):
    for event in (e for e in EXAMPLES[q].events if e in EXAMPLES[p].events):
        first, second = pair(q, p, (5, 2) if (2, 5) in EXAMPLES[q].batches else (5,), event)
        assert kl(first, second).shape == first.batch_shape
        terms = kl_elementwise(first, second)
        if terms is not None:
            assert terms.shape == (*first.batch_shape, *event)


@PAIRS
def test_a_closed_form_is_0_between_equals_and_positive_otherwise(q, p):
    first, second = pair(q, p)
    assert (kl(first, second) > 0).all()
    if q is p:
        assert torch.allclose(kl(first, first), torch.zeros(5, dtype=torch.float64), atol=1e-14)


def test_normal_equals_torch():
    q, p = pair(Normal, Normal, event=(2, 3))
    theirs = [torch.distributions.Normal(d.loc, d.log_scale.exp()) for d in (q, p)]
    expected = torch.distributions.kl_divergence(*theirs).sum((-2, -1))
    assert torch.allclose(kl(q, p), expected, rtol=0, atol=1e-12)


def test_an_unknown_pair_has_no_closed_form():
    q = Normal(torch.zeros(3), torch.zeros(3))
    assert kl(q, Bernoulli(torch.zeros(3))) is None
    assert kl(Foreign(torch.zeros(3), torch.zeros(3)), q) is None


def test_the_rate_is_closed_where_it_can_be_and_sampled_elsewhere():
    q, p = pair(Normal, Normal, event=(3,))
    z = q.sample(Rng(0, "x"), 4)
    assert torch.equal(Latent(z, q, p).rate(), kl(q, p))
    foreign = Latent(z, Foreign(q.loc, q.log_scale), p)
    sampled = (q.log_prob(z) - p.log_prob(z)).mean(0)
    assert torch.equal(foreign.rate(), sampled)
    px = Normal(torch.zeros(4, 5, 1, 1, 1), torch.zeros(()), 3)
    trace = Trace(torch.zeros(5, 1, 1, 1), None, (Latent(z, q, p), foreign), px)
    assert torch.allclose(trace.rate(), kl(q, p) + sampled)
