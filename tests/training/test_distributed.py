"""Two gloo ranks share every batch: their gradients, losses and states are those of one process."""

from __future__ import annotations

import pytest
import torch

from tests.support import LAYERED, SMALL, build, build_model, choices, compose, loaded
from tests.training.examples import OBJECTIVES, tensors
from tests.training.ranks import equal, team
from vae_train.data.stream import Stream
from vae_train.training.execution import Feed
from vae_train.training.ranks import ALONE

BATCH = 25
"""Two ranks have unequal parts of it."""

LINEAR = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=3")
CODES = ("model.posterior.num_codes=8", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=4")
MODELS = {
    **{name: (f"model={name}", *settings) for name, settings in LAYERED.items()},
    "vq": ("model/posterior=vq", "model/prior=uniform_codes", *CODES),
    "vq_gradient": ("model/posterior=vq", "model/prior=uniform_codes", "model.posterior.learning=gradient", *CODES),
    "rvq": ("model/posterior=rvq", "model/prior=uniform_codes", *CODES),
    "vamp": ("model/prior=vamp", "model.prior.components=5", *LINEAR),
    "wae_vamp": ("objective=wae_mmd", "model/prior=vamp", "model.prior.components=5", *LINEAR),
    "conv": ("model=conv", "model.encoder.channels=4", "model.decoder.channels=4", "latent_dim=3"),
    "first_stage_conv": (
        *("model=conv", "model.encoder.channels=4", "model.decoder.channels=4", "latent_dim=3"),
        *("objective=first_stage", *OBJECTIVES["first_stage"]),
    ),
    "free bits of layers": ("objective=free_bits", "objective.free_bits_per=layer", *LINEAR),
    "balanced ladder": ("objective=balanced", "model=ladder", *LAYERED["ladder"], "beta=2"),
    "microbatches": ("learner.grad_accumulation=3", *LINEAR),
    "corrupted": ("corruption.noise=0.1", "corruption.mask=0.3", "learner.grad_accumulation=2", *LINEAR),
    "conditional": ("+model.condition.prior=true", "objective=wae_mmd", *LINEAR),
    "clipped": ("learner.clip_norm=0.5", "learner.skip_norm=2", "learner.ema=0.9", *LINEAR),
}
"""Models and settings whose gradients, statistics or start come from all images."""


def learner_of(ranks, overrides, dtype):
    """A learner on the digits, and the inputs of its steps."""
    cfg = compose("batch_size=25", *overrides)
    data = loaded(cfg)
    model = build_model(cfg, data.facts.data_shape, data.facts.levels)
    model.initialize(data.training())
    model.to(dtype)
    objective = build(
        cfg.objective, steps_per_epoch=10.0, epochs=30, data_shape=data.facts.data_shape, num_train=len(data.training())
    )
    learner = build(
        cfg.learner,
        model=model,
        objective=objective.to(dtype),
        optimizer=build(cfg.optimizer),
        lr_schedule=build(cfg.lr_schedule, steps_per_epoch=10.0, epochs=30),
        seed=cfg.seed,
        ranks=ranks,
    )
    stream = Stream(data.training(), BATCH, seed=cfg.seed, rows=ranks.rows(BATCH))
    return learner, Feed(stream, learner.rates)


def cast(inputs, dtype):
    """Inputs with images of another type."""
    fields = {k: v.to(dtype) for k, v in inputs.batch._asdict().items() if torch.is_tensor(v) and v.is_floating_point()}
    return inputs._replace(batch=inputs.batch._replace(**fields))


def gradients(ranks, overrides, step=20):
    """Gradients, scalars and statistics of a step, and the state after it, in float64."""
    learner, feed = learner_of(ranks, overrides, torch.float64)
    inputs = cast(feed.inputs(step), torch.float64)
    reports = learner.backward(inputs)
    found = [gradient for gradient in reports.gradients if gradient is not None]
    found += [value for part in (reports.scalars, *reports.statistics) for value in part.values()]
    learner.step(inputs)
    return [tensor.detach().clone() for tensor in [*found, *tensors(learner)]]


def losses(ranks, overrides, steps):
    """The scalars of some steps, and everything that they changed."""
    learner, feed = learner_of(ranks, overrides, torch.float32)
    rows = [torch.stack(list(learner.step(feed.inputs(step)).values())) for step in range(steps)]
    return [torch.stack(rows), *(tensor.detach().clone() for tensor in tensors(learner))]


@pytest.fixture(scope="module")
def pair():
    with team(2) as members:
        yield members


def words(name):
    if name in MODELS:
        return MODELS[name]
    small = () if name == "rae" else SMALL
    return (f"objective={name}", *OBJECTIVES.get(name, ()), *LINEAR, *small)


@pytest.mark.parametrize("name", [*choices("objective"), *MODELS])
def test_gradients_of_two_ranks_are_those_of_one_process(name, pair):
    answers = pair(gradients, words(name))
    assert equal(answers)
    expected = gradients(ALONE, words(name))
    assert len(expected) == len(answers[0])
    for found, exact in zip(answers[0], expected, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elbo", "tcvae", "vae_gan", "vq", "ladder", "clipped"])
def test_losses_of_two_ranks_stay_those_of_one_process(name, pair):
    answers = pair(losses, words(name), 50)
    assert equal(answers)
    found, expected = answers[0][0], losses(ALONE, words(name), 50)[0]
    torch.testing.assert_close(found[:10], expected[:10], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_losses_of_ten_steps_are_those_of_one_process(pair):
    answers = pair(losses, words("elbo"), 10)
    assert equal(answers)
    torch.testing.assert_close(answers[0][0], losses(ALONE, words("elbo"), 10)[0], rtol=1e-5, atol=1e-5)
    assert not torch.equal(answers[0][0][0], answers[0][0][9])


EXACT = ("distributed.exact=4", "learner.clip_norm=0.5", "learner.ema=0.9", *LINEAR)


@pytest.mark.parametrize("overrides", [EXACT, (*MODELS["vq"], "distributed.exact=4")], ids=["mlp", "vq"])
def test_exact_shards_give_the_same_bits_on_one_two_and_four_ranks(overrides, pair):
    expected = losses(ALONE, overrides, 8)
    with team(4) as four:
        for answers in (pair(losses, overrides, 8), four(losses, overrides, 8)):
            assert equal([expected, *answers])
