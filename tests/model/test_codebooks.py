"""Learned codebooks: their loss, their updates, and their start."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from tests.support import SMALL, InMemory, binary_batch, build_learner, build_model, compose, inputs, update
from vae_train.model.codes.codebooks import Codebooks, kmeans, nearest
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

SHAPE = (1, 8, 8)
LEARNED = pytest.mark.parametrize("posterior", ["vq", "rvq"])
FEW = ("model.posterior.num_codes=6",)


def learner_of(posterior, *overrides):
    cfg = compose(*SMALL, f"model/posterior={posterior}", *FEW, "execution=eager", *overrides)
    model = build_model(cfg, SHAPE, 2)
    model.initialize(InMemory(binary_batch(60, seed=1).x))
    return build_learner(cfg, model)


def codebook_of(learner):
    return learner.model.posterior.codebooks


def trained(learner, steps, first=0):
    return [update(learner, binary_batch(12, seed=step), step) for step in range(first, first + steps)]


@LEARNED
@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_the_commitment_is_an_additional_loss_and_no_part_of_the_bound(posterior, learning):
    learner = learner_of(posterior, f"model.posterior.learning={learning}", "model.posterior.commitment=2")
    trace = learner.model(binary_batch(5), Rng(0, "x"))
    v = learner.model.encoder(binary_batch(5).x)
    loss, rest = torch.zeros(5), v
    for vectors in codebook_of(learner).vectors:
        chosen = vectors[nearest(rest, vectors)]
        loss = loss + (2 + (learning == "gradient")) * (rest - chosen).square().sum(1)
        rest = rest - chosen
    assert torch.allclose(trace.auxiliary(), loss, rtol=1e-4)
    num_codebooks = len(codebook_of(learner).vectors)
    assert torch.allclose(trace.rate(), torch.full((5,), num_codebooks * math.log(6)))
    assert torch.equal(trace.elbo(), -(trace.distortion() + trace.rate()))
    for scalars in (update(learner, binary_batch(5), 0), learner.evaluate(binary_batch(5), 0, 1)):
        assert scalars["elbo"] == -(scalars["distortion"] + scalars["rate"])
        expected = scalars["distortion"] + scalars["rate"] + scalars["auxiliary"]
        assert scalars["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_gradient_moves_vectors_to_their_inputs_and_inputs_to_their_vectors():
    learner = learner_of("vq", "model.posterior.learning=gradient", "model.posterior.commitment=0.5")
    model = learner.model
    v = model.encoder(binary_batch(5).x).detach().requires_grad_()
    q = model.posterior(v)
    vectors = codebook_of(learner).vectors
    gradient, of_vectors = torch.autograd.grad(model.posterior.auxiliary(q).sum(), [v, vectors])
    chosen = vectors[0][q.codes]
    assert torch.allclose(gradient, (v - chosen).detach(), atol=1e-6)  # 2 · 0.5
    expected = torch.zeros_like(vectors[0]).index_add(0, q.codes, 2 * (chosen - v).detach())
    assert torch.allclose(of_vectors[0], expected, atol=1e-5)


def test_moving_averages_are_those_of_the_paper():
    books = Codebooks(1, 3, 2, "ema", decay=0.75, revive=0.0).double()
    books.vectors.copy_(torch.tensor([[[0.0, 0.0], [4.0, 0.0], [0.0, 9.0]]]))
    books.counts.copy_(torch.tensor([[1.0, 2.0, 1.0]]))
    books.sums.copy_(books.counts[..., None] * books.vectors)
    x = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[4.0, 1.0], [0.0, 1.0]]]).double()  # 2 images of 2 vectors
    found = books(x)
    assert found.codes[..., 0].tolist() == [[0, 0], [1, 0]]
    books.update(books.statistics(found.residuals, found.codes, torch.zeros_like(x)))
    counts = torch.tensor([0.75 + 0.25 * 1.5, 0.75 * 2 + 0.25 * 0.5, 0.75]).double()
    first = torch.tensor([0.25 * 1.0, 0.25 * 1.0]).double() / counts[0]
    second = torch.tensor([0.75 * 8 + 0.25 * 2, 0.25 * 0.5]).double() / counts[1]
    assert torch.allclose(books.counts[0], counts)
    assert torch.allclose(books.vectors[0], torch.stack([first, second, torch.tensor([0.0, 9.0]).double()]))


def test_dead_codes_take_half_of_frequent_ones():
    books = Codebooks(1, 4, 2, "ema", decay=0.5, revive=0.2).double()
    books.vectors.copy_(torch.tensor([[[0.0, 0.0], [10.0, 0.0], [90.0, 90.0], [99.0, 99.0]]]))
    source = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, 2, generator=source, dtype=torch.float64)
    x[:2] += torch.tensor([10.0, 0.0])
    noise = torch.randn(8, 3, 2, generator=source, dtype=torch.float64)
    found = books(x)
    books.update(books.statistics(found.residuals, found.codes, noise))
    (vectors,) = books.vectors
    assert (vectors.norm(dim=1) < 15).all()
    distance = (vectors[2] - vectors[0]).norm(), (vectors[3] - vectors[1]).norm()  # the most frequent one first
    assert all(0.3 < d < 3 for d in distance)
    assert torch.allclose(books.counts[0, [0, 1]], books.counts[0, [2, 3]])
    assert torch.allclose(books.counts.sum(), torch.tensor(3 * 0.5).double())
    assert torch.allclose(books.sums, books.counts[..., None] * books.vectors)
    assert len(books(x).codes.unique()) == 4


def test_codes_are_not_revived_where_that_is_off():
    books = Codebooks(1, 2, 1, "ema", decay=0.5, revive=0.0)
    books.vectors.copy_(torch.tensor([[[0.0], [99.0]]]))
    x = torch.randn(8, 1, 1)
    for _ in range(20):
        found = books(x)
        books.update(books.statistics(found.residuals, found.codes, torch.randn(8, 1, 1)))
    assert books.vectors[0, 1] == 99


@LEARNED
@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_microbatches_update_the_codebook_as_the_whole_batch(posterior, learning):
    whole, parts = (
        learner_of(posterior, f"model.posterior.learning={learning}", f"learner.grad_accumulation={n}", "lr=1e-4")
        for n in (1, 3)
    )
    for learner in (whole, parts):
        trained(learner, 4)
    for (name, value), other in zip(whole.model.named_buffers(), parts.model.buffers(), strict=True):
        assert torch.allclose(value, other, rtol=1e-3, atol=1e-4), name
    assert torch.allclose(codebook_of(whole).vectors, codebook_of(parts).vectors, rtol=1e-3, atol=1e-4)


@LEARNED
def test_a_resumed_training_has_the_same_codebook(posterior):
    straight, resumed = learner_of(posterior), learner_of(posterior)
    trained(straight, 3)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    for learner in (straight, resumed):
        trained(learner, 3, first=3)
    states = [learner.model.state_dict() for learner in (straight, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@LEARNED
def test_an_evaluation_does_not_change_the_codebook(posterior):
    learner = learner_of(posterior)
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    learner.evaluate(binary_batch(9), 0, 1)
    assert all(torch.equal(before[name], value) for name, value in learner.model.state_dict().items())


@LEARNED
def test_a_codebook_starts_at_the_centres_of_encoded_images(posterior):
    data = InMemory(binary_batch(60, seed=1).x)
    cfg = compose(*SMALL, f"model/posterior={posterior}", *FEW)
    errors = []
    for start in ("data", "random"):
        cfg.model.posterior.start = start
        model = build_model(cfg, SHAPE, 2)
        model.initialize(data)
        errors.append(model.posterior.auxiliary(model.encode(data.x)).mean().item())
    assert errors[0] < 0.5 * errors[1]


def test_k_means_finds_separate_groups():
    source = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    x = (middles[:, None] + 0.1 * torch.randn(3, 50, 2, generator=source)).flatten(0, 1)
    centers, codes = kmeans(x, 3)
    assert sorted(codes.bincount(minlength=3).tolist()) in ([50, 50, 50], [0, 50, 100])
    assert torch.equal(nearest(x, centers), codes)


def test_a_codebook_with_more_codes_than_vectors_is_refused():
    model = build_model(compose(*SMALL, "model/posterior=vq"), SHAPE, 2)
    with pytest.raises(UsageError, match=r"num_codes=512: exceeds the 60 vectors"):
        model.initialize(InMemory(binary_batch(60).x))


def test_a_codebook_of_a_conditional_model_starts_from_images_with_their_labels():
    cfg = compose(*SMALL, "model/posterior=vq", *FEW, "model.condition=label", "execution=eager")
    model = build_model(cfg, SHAPE, 2)
    x, y = binary_batch(60).x, torch.arange(60)[:, None] % 10
    model.initialize(InMemory(x, y))
    learner = build_learner(cfg, model)
    assert update(learner, binary_batch(60)._replace(y=y), 0)["loss"].isfinite()
    assert model.sample(3, Rng(0, "x")).mean.shape == (3, *SHAPE)


@pytest.mark.parametrize("posterior", ["vq", "rvq", "fsq"])
def test_codes_are_counted_over_an_epoch(posterior):
    few = ["model.posterior.levels=2"] if posterior == "fsq" else list(FEW)
    cfg = compose(*SMALL, f"model/posterior={posterior}", *few, "execution=eager", "lr=0")
    model = build_model(cfg, SHAPE, 2)
    model.initialize(InMemory(binary_batch(60, seed=1).x))
    if posterior != "fsq":
        model.posterior.codebooks.decay = 1.0  # stays as it is
        model.posterior.codebooks.revive = 0.0
    learner = build_learner(cfg, model)
    trained(learner, 3)
    metrics = model.epoch_metrics()
    with torch.no_grad():
        codes = model.encode(torch.cat([binary_batch(12, seed=step).x for step in range(3)])).codes
    columns = codes.view(36, -1).T
    assert metrics["codes_used"] == sum(len(column.unique()) for column in columns)
    shares = [column.bincount().double() / 36 for column in columns]
    entropy = sum(-torch.xlogy(share, share).sum() for share in shares) / len(columns)
    assert metrics["code_perplexity"] == pytest.approx(entropy.exp().item(), rel=1e-5)
    assert model.epoch_metrics() == {"codes_used": 0.0, "code_perplexity": 1.0}


@LEARNED
def test_stacked_codebooks_quantise_as_each_does(posterior):
    cfg = compose(*SMALL, f"model/posterior={posterior}", *FEW, "model.posterior.start=random")
    models = [build_model(cfg, SHAPE, 2) for cfg.seed in (0, 1)]
    posteriors = [model.posterior for model in models]
    _, buffers = torch.func.stack_module_state(posteriors)
    v = torch.stack([model.encoder(binary_batch(7).x) for model in models])

    def quantised(state, vectors):
        q = torch.func.functional_call(posteriors[0], state, (vectors,))
        return q.loc, posteriors[0].auxiliary(q)

    z, loss = torch.func.vmap(quantised)(buffers, v)
    for number, model in enumerate(models):
        q = model.posterior(v[number])
        assert torch.allclose(z[number], q.loc, atol=1e-6)
        assert loss[number].shape == (7,)


def test_a_step_depends_on_nothing_but_its_inputs():
    first, second = learner_of("vq"), learner_of("vq")
    assert trained(first, 2)[-1]["loss"] == trained(second, 2)[-1]["loss"]
    reports = [learner.backward(inputs(learner, binary_batch(8), 5)) for learner in (first, second)]
    noise = [report.statistics.model["posterior.noise"] for report in reports]
    assert torch.equal(*noise)
    assert noise[0].any()
