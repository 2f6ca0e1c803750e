"""Two gloo ranks share every batch: their gradients, losses and states are those of one process."""

from __future__ import annotations

import os
import signal
from functools import cache

import pytest
import torch

from tests.support import LAYERED, SMALL, build, build_model, catalogue_modules, choices, classes_in, compose, loaded
from tests.training.examples import OBJECTIVES, tensors
from tests.training.ranks import equal, team
from vae_train.data.stream import Stream
from vae_train.objective.base import Objective
from vae_train.training.distributed import Place, first_host, tasks_per_node
from vae_train.training.execution import CompiledGradients, Feed, runner
from vae_train.training.ranks import ALONE
from vae_train.training.signals import StopRequest
from vae_train.training.validation import validate
from vae_train.util.errors import UsageError

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
    "exact": ("distributed.exact=4", "learner.clip_norm=0.5", "learner.ema=0.9", *LINEAR),
    "exact vq": ("distributed.exact=4", "model/posterior=vq", "model/prior=uniform_codes", *CODES),
    "clipped": ("learner.clip_norm=0.5", "learner.skip_norm=2", "learner.ema=0.9", *LINEAR),
}
"""Models and settings whose gradients, statistics or start come from all images."""


def learner_of(ranks, cfg, dtype):
    """A learner on the digits, and the inputs of its steps."""
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


def gradients(ranks, cfg, step=20):
    """Gradients, scalars and statistics of a step, and the state after it, in float64."""
    learner, feed = learner_of(ranks, cfg, torch.float64)
    inputs = cast(feed.inputs(step), torch.float64)
    reports = learner.backward(inputs)
    found = [gradient for gradient in reports.gradients if gradient is not None]
    found += [value for part in (reports.scalars, *reports.statistics) for value in part.values()]
    learner.step(inputs)
    return [tensor.detach().clone() for tensor in [*found, *tensors(learner)]]


def losses(ranks, cfg, steps):
    """The scalars of some steps, and everything that they changed."""
    learner, feed = learner_of(ranks, cfg, torch.float32)
    rows = [torch.stack(list(learner.step(feed.inputs(step)).values())) for step in range(steps)]
    return [torch.stack(rows), *(tensor.detach().clone() for tensor in tensors(learner))]


@pytest.fixture(scope="module")
def pair():
    gradients(ALONE, composed("elbo"))  # what it imports and reads, the forked ranks have, too
    with team(2) as members:
        yield members


@cache
def composed(name):
    """The configuration of an objective or of an entry of `MODELS`; composing it takes longer than a step."""
    if name in MODELS:
        return compose("batch_size=25", *MODELS[name])
    small = LINEAR if name == "rae" else (*LINEAR[2:], *SMALL)
    return compose("batch_size=25", f"objective={name}", *OBJECTIVES.get(name, ()), *small)


@pytest.mark.parametrize("name", [*choices("objective"), *MODELS])
def test_gradients_of_two_ranks_are_those_of_one_process(name, pair):
    answers = pair(gradients, composed(name))
    assert equal(answers)
    expected = gradients(ALONE, composed(name))
    assert len(expected) == len(answers[0])
    for found, exact in zip(answers[0], expected, strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elbo", "tcvae", "vae_gan", "vq", "ladder", "clipped"])
def test_losses_of_two_ranks_stay_those_of_one_process(name, pair):
    answers = pair(losses, composed(name), 50)
    assert equal(answers)
    found, expected = answers[0][0], losses(ALONE, composed(name), 50)[0]
    torch.testing.assert_close(found[:10], expected[:10], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_losses_of_ten_steps_are_those_of_one_process(pair):
    answers = pair(losses, composed("elbo"), 10)
    assert equal(answers)
    torch.testing.assert_close(answers[0][0], losses(ALONE, composed("elbo"), 10)[0], rtol=1e-5, atol=1e-5)
    assert not torch.equal(answers[0][0][0], answers[0][0][9])


@pytest.fixture(scope="module")
def four():
    with team(4) as members:
        yield members


@pytest.mark.parametrize("name", ["exact", "exact vq"])
def test_exact_shards_give_the_same_bits_on_one_two_and_four_ranks(name, pair, four):
    expected = losses(ALONE, composed(name), 8)
    for answers in (pair(losses, composed(name), 8), four(losses, composed(name), 8)):
        assert equal([expected, *answers])


def compiled(ranks, cfg):
    """The losses of steps whose gradients are a pure function of all inputs."""
    learner, feed = learner_of(ranks, cfg, torch.float32)
    learner._gradients = CompiledGradients(learner.module, lambda step: step)
    steps = runner("compile", learner.step, feed, learner.gradient_norm)
    found = [steps(step, 1).values for step in range(6)]
    assert steps.mode == "compile"
    return [torch.cat(found), *(tensor.detach().clone() for tensor in tensors(learner))]


@pytest.mark.parametrize("name", ["elbo", "corrupted", "vq"])
def test_pure_steps_have_the_losses_of_one_process(name, pair):
    answers = pair(compiled, composed(name))
    assert equal(answers)
    torch.testing.assert_close(answers[0][0], losses(ALONE, composed(name), 6)[0], rtol=1e-4, atol=1e-4)


def validated(ranks, size):
    learner, _ = learner_of(ranks, composed("elbo"), torch.float32)
    return validate(learner, loaded(composed("elbo")).split("valid"), size, 0)


@pytest.mark.parametrize("size", [500, 100, 7])
def test_validations_have_the_same_bits(size, pair):
    expected = validated(ALONE, size)
    assert expected["elbo"] < 0
    assert pair(validated, size) == [expected, expected]


def stopping(ranks):
    """The signal that ranks know of after rank 1 received one, before and after they agreed."""
    with StopRequest(largest=ranks.largest) as stop:
        stop.agree()
        found = [stop.signal]
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        found.append(stop.signal)
        stop.agree()
        return [*found, stop.signal]


def test_ranks_agree_to_stop(pair):
    assert pair(stopping) == [[None, None, signal.SIGTERM]] * 2


def test_every_objective_that_depends_on_the_batch_gathers_it():
    found = [each for module in catalogue_modules("objective") for each in classes_in(module)]
    coupled = [each for each in found if issubclass(each, Objective) and not each.per_image]
    assert len(coupled) > 5
    assert all(each.gathers for each in coupled)


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a"}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "7", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "12345"}
SLURM |= {"SLURM_STEP_NODELIST": "gpu[07-09,12],login", "SLURM_STEP_TASKS_PER_NODE": "4,3"}


def test_a_launcher_says_which_rank_a_process_is():
    assert Place.find("torchrun", TORCHRUN | {"MASTER_PORT": "99"}) == Place(3, 8, 1, 2, "a", 99)
    assert Place.find("slurm", SLURM) == Place(5, 7, 1, 3, "gpu07", 20_345)
    assert Place.find("slurm", SLURM | {"MASTER_ADDR": "b", "MASTER_PORT": "7"})[-2:] == ("b", 7)
    assert Place.find("torchrun", {}) is None
    assert Place.find("torchrun", {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "9"}) is None
    with pytest.raises(UsageError, match="distributed=slurm: SLURM_PROCID is not set; start vae train with srun"):
        Place.find("slurm", TORCHRUN)
    with pytest.raises(UsageError, match="invalid environment variable"):
        Place.find("torchrun", TORCHRUN | {"MASTER_PORT": "x"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("n1", "n1"), ("n1,n2", "n1"), ("gpu[07-09,12]", "gpu07"), ("a[1-3]-ib,b", "a1-ib"), ("rack-2[5]", "rack-25")],
)
def test_the_first_host_of_a_list(nodes, host):
    assert first_host(nodes) == host


def test_processes_of_every_machine():
    assert tasks_per_node("4(x2),3") == [4, 4, 3]
    assert tasks_per_node("1") == [1]
