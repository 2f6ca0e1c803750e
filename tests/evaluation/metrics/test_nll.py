from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from tests.model.test_exact import SHAPE as EXACT_SHAPE
from tests.model.test_exact import linear_gaussian
from tests.support import NOISE, SMALL, InMemory, build_model, compose, loaded
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.metrics.nll import (
    CURVE_NUM_SAMPLES,
    IMAGES_PER_PASS,
    estimate_log_likelihood,
    largest_affordable,
    samples_per_pass,
    seconds_per_sample,
    streaming_log_mean_exp,
)
from vae_train.evaluation.subject import Subset
from vae_train.rng import SampleRng, generator

NUM = 100


def setting(*words):
    """A model with larger weights than it starts with, so that its posterior is not the prior, and 100 test images."""
    cfg = compose(*SMALL, *words)
    data = loaded(cfg)
    model = build_model(cfg, data.facts.data_shape, data.facts.levels)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
    return model, Subset(data.split("test"), NUM)


BERNOULLI, GAUSSIAN = (), ("data.binarize=none", "model/likelihood=gaussian")


@pytest.mark.parametrize("num_samples", [1, 7, 200])
def test_the_exact_posterior_gives_the_evidence_with_any_number_of_samples(num_samples):
    model, truth = linear_gaussian(orthogonal=True)
    torch.manual_seed(0)
    x = truth.sample((50,))
    found = estimate_log_likelihood(model, InMemory(x.view(50, *EXACT_SHAPE)), num_samples, noise=NOISE)
    assert torch.allclose(found.log_p[-1], truth.log_prob(x), atol=1e-9)


def test_more_draws_come_nearer_to_the_evidence_from_below():
    model, truth = linear_gaussian(orthogonal=False)
    torch.manual_seed(0)
    x = truth.sample((400,))
    found = estimate_log_likelihood(model, InMemory(x.view(400, *EXACT_SHAPE)), 5000, noise=NOISE)
    assert found.num_samples == (1, 10, 100, 500, 1000, 5000)
    gaps = (truth.log_prob(x) - found.log_p).mean(1)
    assert gaps[0] > gaps[1] > gaps[2] > gaps[-1] > -0.005
    assert gaps[-1] < 0.005


@torch.no_grad()
@pytest.mark.parametrize(("words", "tolerance"), [(BERNOULLI, {"abs": 1e-4}), (GAUSSIAN, {"rel": 1e-6})])
def test_it_equals_a_slow_loop_in_float64(words, tolerance):
    model, images = setting(*words)
    few = InMemory(images.fetch(torch.arange(5)).x)
    found = estimate_log_likelihood(model, few, 130, chunk=64, noise=NOISE)
    blocks = [NOISE.importance(0, first, torch.device("cpu")).normal((64, 5, 3)) for first in (0, 64, 128)]
    noise = torch.cat(blocks)[:130].double()
    exact = model.double()
    for number in range(5):
        x = few.x[number : number + 1].double()
        weights = []
        for rng in range(130):
            q = exact.encode(x)
            z = q.loc + q.log_scale.exp() * noise[rng, number]
            log_p = -0.5 * (z**2 + math.log(2 * math.pi)).sum()
            log_q = (-0.5 * (noise[rng, number] ** 2 + math.log(2 * math.pi)) - q.log_scale).sum()
            weights.append(exact.decode(z).log_prob(x).squeeze() + log_p - log_q)
        expected = math.log(sum(math.exp(w - max(weights)) for w in weights) / 130) + max(weights)
        assert float(found.log_p[-1, number]) == pytest.approx(float(expected), **tolerance)


@pytest.mark.parametrize("chunk", [1, 5, 64, 100, 130])
def test_the_chunk_size_changes_rounding_only(chunk):
    model, images = setting()
    whole, cut = (estimate_log_likelihood(model, images, 130, chunk=size, noise=NOISE).log_p for size in (130, chunk))
    assert torch.allclose(cut, whole, atol=2e-4)


def test_an_image_is_scored_alike_in_any_company():
    model, images = setting()
    both = estimate_log_likelihood(model, images, 20, noise=NOISE).log_p
    alone = estimate_log_likelihood(model, Subset(images, NUM), 20, noise=NOISE).log_p
    assert torch.equal(both, alone)
    assert not torch.equal(both, estimate_log_likelihood(model, images, 20, noise=NOISE._replace(seed=1)).log_p)


def test_one_draw_is_the_bound_in_expectation():
    model, images = setting()
    one = estimate_log_likelihood(model, images, 1, noise=NOISE).log_p[-1]
    bound = image_bounds(model, images, noise=NOISE, num_samples=200)["elbo"].mean().item()
    assert one.mean() == pytest.approx(bound, abs=4 * one.std().item() / math.sqrt(NUM))
    assert estimate_log_likelihood(model, images, 500, noise=NOISE).log_p[-1].mean() > bound


def test_it_says_how_far_it_is_and_how_long_it_took():
    model, images = setting()
    told = []
    found = estimate_log_likelihood(model, images, 10, progress=told.append, noise=NOISE)
    assert told == [IMAGES_PER_PASS, NUM - IMAGES_PER_PASS]
    assert found.samples_per_second == pytest.approx(10 * NUM / found.seconds)


@pytest.mark.parametrize("cuts", [[1] * 12, [12], [5, 7], [4, 4, 4], [11, 1]])
@pytest.mark.parametrize("shift", [0.0, -5000.0, 5000.0])
def test_a_mean_of_exponentials_is_the_same_however_it_streams(cuts, shift):
    values = 30 * torch.randn(12, 6, generator=generator(0, "w"), dtype=torch.float64) + shift
    values[3, 2] = -math.inf
    found = streaming_log_mean_exp(values.split(cuts), [1, 4, 5, 12])
    expected = [values[:k].logsumexp(0) - math.log(k) for k in (1, 4, 5, 12)]
    assert torch.allclose(found, torch.stack(expected))


def test_the_chunk_size_follows_the_largest_activation():
    small, images = setting()
    large, _ = setting("model.decoder.hidden=[4096]")
    assert samples_per_pass(small, images) == 512
    assert samples_per_pass(large, images) == 16
    assert samples_per_pass(large, images, memory=1.0) == 1


def test_a_number_of_draws_is_chosen_by_the_time_it_takes():
    for minutes, expected in ((10.0, 5000), (9.99, 5000), (2.5, 1000), (1.0, 500), (0.4, 100), (0.001, 100)):
        assert largest_affordable(9.9 * 60 / 5_000_000, 1000, minutes) == (expected if minutes != 9.99 else 5000)
    model, images = setting()
    assert 0 < seconds_per_sample(model, images, 8) < 1


def test_the_curve_begins_with_one_draw_and_ends_with_what_papers_report():
    assert (CURVE_NUM_SAMPLES[0], CURVE_NUM_SAMPLES[-1]) == (1, 5000)


@pytest.mark.parametrize("cuts", [(0, 200), (0, 1, 200), (0, 64, 128, 200), (0, 63, 65, 200)])
def test_noise_of_many_draws_does_not_depend_on_how_they_are_cut(cuts):
    def whole(cuts):
        parts = [(SampleRng(3, "x", 10, a), b - a) for a, b in pairwise(cuts)]
        return [torch.cat([rng.normal((size, 70, 5)) for rng, size in parts]) for _ in range(2)]

    first, second = whole(cuts)
    assert torch.equal(first, whole((0, 200))[0])
    assert torch.equal(second, whole((0, 200))[1])
    assert not torch.isclose(first, second).all()
    assert not torch.isclose(first[:64], first[64:128]).any()


def test_noise_of_many_draws_does_not_depend_on_the_batch():
    whole = SampleRng(3, "x", 0, 0).normal((2, 200, 5))
    assert torch.equal(SampleRng(3, "x", 130, 0).normal((2, 70, 5)), whole[:, 130:])
