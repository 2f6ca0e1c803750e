"""Distributions of codes by networks that see the codes before: small ones, whose arrays can all be listed."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from vae_train.model.codes.autoregressive import log_frequencies
from vae_train.model.prior.fitted.autoregressive import AutoregressiveCodes
from vae_train.model.prior.fitted.base import CodePrior
from vae_train.model.prior.fitted.pixelcnn import PixelCNN
from vae_train.rng import Rng

TRAINING = {"epochs": 1, "steps": None, "patience": 1, "batch_size": 8, "lr": 1e-3, "warmup": 0.0}
NETWORKS = {
    "autoregressive": (AutoregressiveCodes, {"width": 8, "layers": 2, "heads": 2}),
    "pixelcnn": (PixelCNN, {"width": 8, "layers": 3, "kernel": 3}),
}
SHAPES = [(), (4,), (2, 2), (2, 1, 2)]
K = 3

kinds = pytest.mark.parametrize("kind", NETWORKS)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def prior_of(kind: str, shape: tuple[int, ...], num_codes: int = K, **settings: int) -> CodePrior:
    """A prior whose codes depend strongly on each other."""
    torch.manual_seed(0)
    constructor, sizes = NETWORKS[kind]
    prior = constructor(shape, (1, 8, 8), num_codes, **sizes | settings, **TRAINING)
    with torch.no_grad():
        for name, p in prior.named_parameters():
            if "norm" not in name:
                p.normal_(std=0.7)
        prior.log_frequencies.normal_()
    return prior.double()


def every_array(shape: tuple[int, ...]) -> torch.Tensor:
    rows = list(itertools.product(range(K), repeat=math.prod(shape)))
    return torch.tensor(rows).view(-1, *shape)


def masses(prior: CodePrior, temperature: float = 1.0, top_k: int | None = None) -> torch.Tensor:
    """The probability of every array as a product over its positions, by hand."""
    arrays = every_array(prior.event_shape).view(-1, prior.size)
    logits = prior.network(arrays) + prior.log_frequencies
    if top_k is not None:
        is_small = logits < logits.sort(-1).values[..., -top_k, None]
        logits = logits.masked_fill(is_small, -math.inf)
    factors = (logits / temperature).softmax(-1).gather(-1, arrays[..., None]).squeeze(-1)
    return factors.prod(-1)


def frequencies(samples: torch.Tensor) -> torch.Tensor:
    """The fraction of samples that equal every array."""
    flat = samples.view(len(samples), -1)
    places = K ** torch.arange(flat.shape[1] - 1, -1, -1)
    return torch.bincount((flat * places).sum(-1), minlength=K ** flat.shape[1]) / len(samples)


def agree(found: torch.Tensor, expected: torch.Tensor, count: int) -> bool:
    error = 5 * (expected * (1 - expected) / count).sqrt() + 5 / count
    return bool(((found - expected).abs() <= error).all())


@kinds
@shapes
@torch.no_grad()
def test_masses_sum_to_1_and_are_those_of_samples(kind: str, shape: tuple[int, ...]) -> None:
    prior = prior_of(kind, shape)
    mass = prior(None).log_prob(every_array(shape)).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.allclose(mass, masses(prior), rtol=1e-10)
    assert mass.max() > 1.2 * mass.mean()  # not uniform
    assert agree(frequencies(prior(None).sample(Rng(0, "x"), 3200)), mass, 3200)


@kinds
@pytest.mark.parametrize(("temperature", "top_k"), [(0.5, None), (1.0, 2), (0.7, 2), (1.0, 7), (2.0, 1)])
@torch.no_grad()
def test_temperature_and_top_k_change_every_factor(kind: str, temperature: float, top_k: int | None) -> None:
    prior = prior_of(kind, (2, 2))
    before = prior(None).log_prob(every_array((2, 2)))
    prior.top_k = top_k
    expected = masses(prior, temperature, None if top_k is None else min(top_k, K))
    found = frequencies(prior(None).sample(Rng(1, "x"), 3200, temperature))
    assert agree(found, expected, 3200)
    assert (found[expected == 0] == 0).all()
    assert torch.equal(prior(None).log_prob(every_array((2, 2))), before)  # only samples are affected


@kinds
@torch.no_grad()
def test_temperature_0_takes_the_most_likely_code_at_every_position(kind: str) -> None:
    prior = prior_of(kind, (2, 2))
    samples = prior(None).sample(Rng(0, "x"), 3, temperature=0.0)
    logits = prior.network(samples.view(3, 4)) + prior.log_frequencies
    assert torch.equal(logits.argmax(-1), samples.view(3, 4))


@kinds
def test_a_sample_does_not_depend_on_how_many_there_are(kind: str) -> None:
    p = prior_of(kind, (2, 3)).float()(None)
    many = p.sample(Rng(0, "x"), 130)
    assert many.shape == (130, 2, 3)
    assert many.dtype == torch.int64
    for num in (1, 64, 65):
        assert torch.equal(p.sample(Rng(0, "x"), num), many[:num])
    assert len(many[:64].unique(dim=0)) > 1
    assert not torch.equal(many[:64], many[64:128])


@kinds
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 2, 3)], ids=str)
def test_every_logit_depends_on_all_codes_before_it_and_on_no_other(kind: str, shape: tuple[int, ...]) -> None:
    """By gradients to the vectors of the codes: causality, and no blind spot."""
    network = prior_of(kind, shape, layers=8).network
    seen = list[torch.Tensor]()
    network.codes.register_forward_hook(lambda module, arguments, output: seen.append(output))
    size = math.prod(shape)
    logits = network(torch.arange(size)[None] % K)
    weights = torch.randn(K, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for position in range(size):
        (gradient,) = torch.autograd.grad(
            (logits[0, position] * weights).sum(), seen, retain_graph=True, allow_unused=True
        )
        depends = torch.zeros(size) if gradient is None else gradient[0].abs().sum(-1)
        assert (depends > 0).tolist() == [before < position for before in range(size)], position


@kinds
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 2, 3)], ids=str)
@torch.no_grad()
def test_logits_one_by_one_are_those_of_all_at_once(kind: str, shape: tuple[int, ...]) -> None:
    network, size = prior_of(kind, shape).network, math.prod(shape)
    codes = torch.randint(K, (6, size), generator=torch.Generator().manual_seed(0))
    cache: dict = {}
    single = [network.next_logits(codes[:, :position], cache) for position in range(size)]
    assert torch.allclose(torch.stack(single, 1), network(codes), rtol=1e-9, atol=1e-9)


@kinds
def test_each_quantiser_and_each_variable_has_its_own_vectors(kind: str) -> None:
    for shape, slots in (((), 1), ((4,), 4), ((2, 2), 1), ((2, 2, 3), 3)):
        assert prior_of(kind, shape).network.codes.num_embeddings == slots * K


@kinds
def test_log_prob_in_chunks_is_that_of_single_arrays(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = prior_of(kind, (2, 2))(None)
    codes = torch.randint(K, (2, 5, 2, 2), generator=torch.Generator().manual_seed(0))
    whole = p.log_prob(codes)
    assert whole.shape == (2, 5)
    monkeypatch.setattr("vae_train.model.codes.autoregressive.MAX_CHUNK_ELEMENTS", 1)
    assert torch.allclose(p.log_prob(codes), whole, rtol=1e-12)
    single = p.log_prob(codes.int().long()[1, 3])
    assert single.item() == pytest.approx(whole[1, 3].item(), rel=1e-12)


def test_the_frequency_table_counts_with_half_a_code_more() -> None:
    codes = torch.tensor([[0, 2], [0, 1], [1, 1]])
    table = log_frequencies(codes, 3).exp()
    assert torch.allclose(table, torch.tensor([[2.5, 1.5, 0.5], [0.5, 2.5, 1.5]]).double() / 4.5)
    assert log_frequencies(torch.tensor([1, 1]), 2)[0].exp().tolist() == pytest.approx([1 / 6, 5 / 6])


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("autoregressive", {"heads": 3}, "width must be a multiple of heads=3, not 8"),
        ("pixelcnn", {"kernel": 4}, "kernel must be odd"),
        ("pixelcnn", {"kernel": 1}, "at least 3"),
    ],
)
def test_impossible_sizes_are_refused(kind: str, settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prior_of(kind, (2, 2), **settings)
