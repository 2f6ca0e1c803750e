from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from tests.support import SMALL, choices, compose, small_run
from tests.tape import Rerun, Tape
from vae_train.data.stream import Stream
from vae_train.objective.base import Objective
from vae_train.rng import FixedNoise, NoiseBuffers, Rng
from vae_train.runs.build import build_learner, build_model, execution_errors, loaded
from vae_train.runs.check import knobs
from vae_train.runs.schema import build, locate
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.execution import (
    MANY,
    STEPS_PER_LAUNCH,
    Compiled,
    CompiledGraph,
    Eager,
    Graph,
    Repeated,
    resolve,
    steps_per_launch,
)
from vae_train.training.loggers import Silent
from vae_train.training.meter import Meter
from vae_train.training.step import Losses
from vae_train.training.trainer import Progress, restore, snapshot

LR = f"lr={2**-9}"
"""A captured step has its learning rate in float32; this one is the same there."""

SETTINGS = {
    "plain": (),
    "clip": ("learner.clip_norm=0.5",),
    "ema": ("learner.ema=0.9",),
    "pieces": ("learner.grad_accumulation=3", "objective.num_samples=2"),
    "binarised once": ("data.binarize=threshold",),
    "adamw": ("optimizer=adamw",),
    "sgd": ("optimizer=sgd",),
    "bfloat16": ("precision=bfloat16",),
    "augmented": (
        *("augmentation.flip=true", "augmentation.crop=2", "augmentation.rotation=20", "augmentation.translation=0.1"),
        *("augmentation.brightness=0.3", "augmentation.contrast=0.3", "data.binarize=dynamic"),
    ),
    "corrupted": ("corruption.noise=0.1", "corruption.mask=0.3", "corruption.patch=2", "learner.grad_accumulation=2"),
    "preprocessed": (
        *("data.binarize=none", "model/likelihood=gaussian", "corruption.mask=0.2"),
        *("preprocessing.dequantize=true", "preprocessing.logit=0.05", "preprocessing.mean=-1", "preprocessing.std=2"),
    ),
}


def tensors(learner):
    """Everything that a step changes."""
    found = [*learner.model.state_dict().values(), *learner.objective.state_dict().values()]
    if learner.average is not None:
        found += learner.average.module.state_dict().values()
    return found + [v for state in learner.optimizer.state.values() for v in state.values() if torch.is_tensor(v)]


def pair(*overrides):
    """A learner that takes its steps one by one, and one that records and replays them."""
    learners = []
    for _ in range(2):
        data, learner, _ = small_run(LR, *overrides)
        learners.append((learner, Stream(data.training(), 100, seed=learner.seed)))
    (_, (captured, _)) = learners
    tape = Tape(lambda: tensors(captured))
    captured._execution = Graph(captured, tape)
    return learners, tape


def advanced(learner, stream, until, start=0, limit=10**9):
    rows, step = [], start
    while step < until:
        rows.append(learner.advance(stream, step, min(limit, until - step)))
        step += len(rows[-1])
    assert step == until
    return torch.cat(rows)


@pytest.mark.parametrize("overrides", SETTINGS.values(), ids=SETTINGS)
def test_captured_steps_are_the_same_steps_bit_by_bit(overrides):
    ((eager, one), (captured, other)), tape = pair(*overrides)
    expected, found = advanced(eager, one, 37), advanced(captured, other, 37)
    assert captured.names == eager.names
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(tensors(eager), tensors(captured), strict=True))
    assert captured.gradient_norm() == eager.gradient_norm()
    assert (tape.recorded, tape.replayed) == (2, 3 + 4)  # 3 warm, 3 x 10 in three launches, 4 single ones


@pytest.mark.parametrize("workers", [0, 2])
def test_captured_steps_find_images_that_are_not_on_the_device(workers, tmp_path):
    digits = small_run("data.binarize=none", "model/likelihood=gaussian")[0].split("train")
    np.savez(tmp_path / "x.npz", x_train=digits.stored.pixels.numpy(), y_train=digits.stored.labels[:, 0].numpy())
    there = ("data=arrays", f"data.path={tmp_path}/x.npz", "data.binarize=dynamic", "model/likelihood=bernoulli")
    ((eager, one), (captured, other)), tape = pair(*there, "loader.storage=host", f"loader.workers={workers}")
    assert not other.images.resident
    expected = advanced(small_run(LR, *there)[1], Stream(small_run(LR, *there)[0].training(), 100, seed=0), 37)
    assert torch.equal(advanced(eager, one, 37), expected)
    assert torch.equal(advanced(captured, other, 37), expected)
    assert (tape.recorded, tape.replayed) == (2, 3 + 4)
    assert other.waited > 0
    for stream in (one, other):
        stream.close()


@pytest.mark.parametrize("schedule", choices("lr_schedule"))
def test_learning_rates_move_in_captured_steps(schedule):
    overrides = (f"lr_schedule={schedule}", "lr_schedule.warmup=0.5", "epochs=3", "optimizer=sgd")
    if schedule == "plateau":
        overrides += ("lr_schedule.patience=1", "lr_schedule.factor=0.5")
    if schedule == "step":
        overrides += ("lr_schedule.every=1", "lr_schedule.gamma=0.5")
    ((eager, one), (captured, other)), _ = pair(*overrides)
    for start, until in ((0, 20), (20, 45)):
        expected, found = advanced(eager, one, until, start), advanced(captured, other, until, start)
        # A rate that float32 does not hold exactly is rounded.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for learner in (eager, captured):
            learner.lr_schedule.observe(1.0)
            learner.lr_schedule.observe(1.0)
    assert eager.rates(44) == captured.rates(44)
    if schedule != "constant":
        assert eager.rates(44) != eager.rates(12) or schedule == "plateau"
        assert eager.optimizer.param_groups[0]["lr"] != 2**-9


@pytest.mark.parametrize("schedule", choices("objective/beta_schedule"))
def test_beta_moves_in_captured_steps(schedule):
    early = ["objective.beta_schedule.until=1.5"] if schedule == "two_phase" else []
    ((eager, one), (captured, other)), _ = pair(f"objective/beta_schedule={schedule}", "beta=4", *early)
    expected, found = advanced(eager, one, 40), advanced(captured, other, 40)
    beta = eager.names.index("beta")
    torch.testing.assert_close(found[:, beta], expected[:, beta], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if schedule != "constant":
        assert found[0, beta] < found[-1, beta] <= 4


BUSY = {
    "factor_vae": ("objective.hidden=[8]", f"objective.critic_lr={2**-10}"),
    "wae_gan": ("objective.hidden=[8]", f"objective.critic_lr={2**-10}"),
    "vae_gan": (f"objective.critic_lr={2**-10}", "objective.channels=4", "objective.start=0.5", "objective.r1=1"),
    "rae": ("objective.regularizer=gradient_penalty",),
    "miwae": ("objective.num_samples=4", "objective.groups=2"),
    "piwae": ("objective.num_samples=4", "objective.groups=2", "objective.gradient=dreg"),
}
"""What makes objectives quicker, or do more."""


@pytest.mark.parametrize("name", choices("objective"))
def test_steps_of_every_objective_can_be_captured(name):
    ((eager, one), (captured, other)), tape = pair(f"objective={name}", *BUSY.get(name, ()))
    expected, found = advanced(eager, one, 15), advanced(captured, other, 15)
    assert captured.names == eager.names
    assert (tape.recorded, tape.replayed) == (2, 3)
    # A schedule of a captured step is computed in float32.
    tolerance = 1e-5 if name == "capacity" else 0.0
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(tensors(captured), tensors(eager), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("limit", [1, 4, 10, 13])
def test_how_many_steps_are_taken_at_once_changes_nothing(limit):
    ((eager, one), (captured, other)), _ = pair()
    assert torch.equal(advanced(captured, other, 50, limit=limit), advanced(eager, one, 50))


def test_captured_steps_go_on_from_a_state_and_leave_one_that_eager_steps_go_on_from(tmp_path):
    ((eager, one), (captured, other)), _ = pair("learner.ema=0.9")
    expected = advanced(eager, one, 60)
    advanced(captured, other, 25)
    state = snapshot(captured, Progress(step=25), Meter())
    assert state["optimizer"]["param_groups"][0]["lr"] == 2**-9
    Checkpoints(tmp_path).save(["last"], state)
    for which in (0, 1):
        learner, stream = pair("learner.ema=0.9")[0][which]
        restore(Checkpoints(tmp_path).load("last"), learner, Progress(), Meter())
        assert torch.equal(advanced(learner, stream, 60, start=25), expected[25:])


def test_a_training_of_captured_steps_is_the_same_training(tmp_path):
    figures = []
    for number, captured in enumerate((False, True)):
        data, learner, trainer = small_run(LR, "epochs=3", "learner.ema=0.9")
        if captured:
            learner._execution = Graph(learner, Tape(lambda learner=learner: tensors(learner)))
        figures.append(trainer.fit(learner, data, Checkpoints(tmp_path / str(number)), Silent(tmp_path, 0)))
        assert learner.execution == ("graph" if captured else "eager")
    assert figures[0] == figures[1]


class Peeking(Objective):
    """An objective that looks at a value, which a captured step cannot."""

    def __init__(self, inner):
        super().__init__(1)
        self.inner = inner

    def forward(self, trace, step):
        terms = self.inner(trace, step)
        return terms if terms["loss"].item() > 0 else {}


def test_what_cannot_be_captured_is_said_in_one_line_and_run_all_the_same(caplog):
    ((eager, one), (captured, other)), _ = pair()
    captured.objective = Peeking(captured.objective)
    with caplog.at_level(logging.WARNING, "vae_train"):
        found = advanced(captured, other, 30)
    assert torch.equal(found, advanced(eager, one, 30))
    assert captured.execution == "eager"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("execution=graph is not possible here, going on with eager: aten._local_scalar_dense")


@pytest.mark.parametrize("execution", ["graph", "compile"])
def test_what_cannot_be_traced_is_said_in_one_line_and_run_all_the_same(execution, caplog):
    rows = []
    for way in (execution, "eager"):
        data, learner, _ = small_run(f"execution={way}")
        learner.objective = Peeking(learner.objective)
        with caplog.at_level(logging.WARNING, "vae_train"):
            rows.append(advanced(learner, Stream(data.training(), 100, seed=0), 10))
        assert learner.execution == "eager"
    assert torch.equal(*rows)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "is not possible here, going on with eager: aten._local_scalar_dense" in line


def test_an_error_of_the_steps_themselves_is_not_hidden():
    ((_, _), (captured, other)), _ = pair()

    def broken(trace, step):
        raise ZeroDivisionError

    captured.objective.forward = broken
    with pytest.raises(ZeroDivisionError):
        captured.advance(other, 0, 10)


def test_the_tape_itself_sees_frozen_numbers():
    count, number = torch.zeros(()), [1.0]
    tape = Tape(lambda: [count])
    replay = tape.record(lambda: count.add_(number[0]))
    assert count == 0
    number[0] = 100.0
    replay()
    replay()
    assert count == 2


@pytest.mark.parametrize("forbidden", [lambda t: t.item(), lambda t: torch.randn(2), lambda t: bool(t > 0)])
def test_the_tape_forbids_what_a_capture_forbids(forbidden):
    value = torch.zeros(())
    with pytest.raises(RuntimeError, match="captured step"):
        Tape(list).record(lambda: forbidden(value))


def test_auto_is_a_rule_of_the_device_and_the_number_of_steps():
    assert resolve("auto", torch.device("cpu"), MANY - 1) == "eager"
    assert resolve("auto", torch.device("cpu"), MANY) == "graph"
    assert resolve("auto", torch.device("cuda"), 1) == "graph"
    assert resolve("auto", torch.device("mps"), 10 * MANY) == "eager"
    assert resolve("compile", torch.device("cuda"), 1) == "compile"
    assert resolve("eager", torch.device("cpu"), MANY) == "eager"
    for words, kind in {"auto": Eager, "graph": Repeated, "compile": Compiled}.items():
        assert isinstance(small_run(f"execution={words}")[1]._execution, kind)
    cfg = compose(*SMALL, "epochs=400", "batch_size=100")  # 12.57 steps each
    data, trainer = loaded(cfg), build(cfg.trainer)
    model = build_model(cfg, data.facts, torch.device("cpu"))
    assert build_learner(cfg, model, trainer, data.facts).execution == "graph"
    trainer.epochs = 390
    assert build_learner(cfg, model, trainer, data.facts).execution == "eager"


def test_what_only_some_devices_can_is_a_mistake_elsewhere(monkeypatch):
    cfg = compose("execution=graph", "device=cpu")
    assert execution_errors(cfg) == []
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    cfg.device = "mps"
    (mistake,) = execution_errors(cfg)
    assert mistake.where == "execution=graph"
    assert mistake.message == "needs CUDA or a CPU, and this is mps; use execution=auto"


REPEATED = {
    **SETTINGS,
    "momentum that counts in Python": ("optimizer=rmsprop", "lr_schedule=cosine"),
    "several players": ("objective=vae_gan", *BUSY["vae_gan"]),
    "two rates": ("objective=factor_vae", *BUSY["factor_vae"], "learner.clip_norm=0.5"),
    "buffers": ("objective=geco", "lr=0.003"),
}


@pytest.mark.parametrize("overrides", REPEATED.values(), ids=REPEATED)
def test_repeated_steps_are_the_same_steps_bit_by_bit(overrides):
    learners, rows = side_by_side("graph", *overrides, steps=12)
    assert torch.equal(rows[0], rows[1])
    assert all(torch.equal(a, b) for a, b in zip(*map(tensors, learners), strict=True))
    assert learners[0].gradient_norm() == learners[1].gradient_norm()
    assert learners[0].names == learners[1].names
    assert not any(isinstance(t, FakeTensor) for t in tree_leaves([tensors(learners[0]), learners[0].last]))
    assert all(isinstance(group["lr"], float) for group in learners[0].optimizer.param_groups)


def takes_bits(likelihood):
    node = compose(f"model/likelihood={likelihood}").model.likelihood
    return locate(node._target_).refusal(2, **knobs(node)) is None


EXAMPLES = {
    "objective": {"rae": ("model/posterior=deterministic",)},
    "model/posterior": {
        "categorical": ("model/prior=categorical", "latent_dim=10"),
        "joint": ("model/prior=joint", "latent_dim=15"),
        "deterministic": ("objective=rae",),
        "von_mises_fisher": ("model/prior=uniform_sphere",),
    },
    "model/prior": {
        "categorical": ("model/posterior=categorical", "latent_dim=10"),
        "joint": ("model/posterior=joint", "latent_dim=15"),
        "uniform_sphere": ("model/posterior=von_mises_fisher",),
    },
    "model/likelihood": {name: ("data.binarize=none",) for name in choices("model/likelihood") if not takes_bits(name)},
}
"""What a component needs besides."""


@pytest.mark.parametrize("part", ["objective", "model/posterior", "model/prior", "model/likelihood"])
def test_repeated_steps_of_every_component_are_the_same_steps(part):
    for name in choices(part):
        words = {**EXAMPLES.get(part, {}), **({} if part != "objective" else BUSY)}.get(name, ())
        learners, rows = side_by_side("graph", f"{part}={name}", *words, steps=4)
        tolerance = 1e-5 if name == "capacity" else 0.0  # a schedule of a traced step is computed in float32
        torch.testing.assert_close(rows[0], rows[1], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(*map(tensors, learners), rtol=tolerance, atol=tolerance)


def test_several_steps_of_small_models_and_one_of_large_ones_are_launched_together():
    data, learner, _ = small_run()
    train = data.split("train")
    assert steps_per_launch(learner, Stream(train, 100, seed=0)) == STEPS_PER_LAUNCH
    assert steps_per_launch(learner, Stream(train, 500, seed=0)) == 2
    assert steps_per_launch(learner, Stream(train, 1257, seed=0)) == 1
    learner.parameters = [torch.zeros(2**21)]
    assert steps_per_launch(learner, Stream(train, 100, seed=0)) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param((), marks=pytest.mark.slow),
        ("learner.grad_accumulation=2", "learner.ema=0.9", "lr_schedule=cosine", "learner.clip_norm=0.5"),
        ("optimizer=rmsprop", "lr_schedule=cosine"),
        *(pytest.param(setting, marks=pytest.mark.slow) for setting in SETTINGS.values()),
    ],
    ids=" ".join,
)
def test_compiled_steps_are_the_same_steps_up_to_rounding(overrides):
    learners, rows = side_by_side("compile", *overrides, steps=12)
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tensors(learners[0]), tensors(learners[1]), rtol=1e-3, atol=1e-5)
    assert learners[0].gradient_norm() == pytest.approx(learners[1].gradient_norm(), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", choices("objective"))
def test_compiled_steps_of_every_objective_are_the_same_steps(name):
    posterior = ("model/posterior=deterministic",) if name == "rae" else ()
    _, rows = side_by_side("compile", f"objective={name}", *BUSY.get(name, ()), *posterior, steps=4)
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-3, atol=1e-4)


def side_by_side(execution, *overrides, steps):
    """Two learners, the second of them eager, and the rows of their first steps."""
    if execution == "compile":
        torch.compiler.reset()
    learners, rows = [], []
    for way in (execution, "eager"):
        data, learner, _ = small_run(f"execution={way}", *overrides)
        rows.append(advanced(learner, Stream(data.training(), 100, seed=learner.seed), steps))
        assert learner.execution == way
        learners.append(learner)
    return learners, rows


@pytest.mark.parametrize(("execution", "rel"), [("graph", 0.0), ("compile", 1e-4)])
def test_a_training_is_the_same_training_and_can_be_gone_on_with(execution, rel, tmp_path):
    """Validation, pictures, the average, a checkpoint half-way, and a new stream of batches."""
    figures = []
    for number, way in enumerate(("eager", execution)):
        words = ("epochs=2", "learner.ema=0.9", "batch_size=500", f"execution={way}")
        data, learner, trainer = small_run(*words)
        checkpoints = Checkpoints(tmp_path / str(number))
        trainer.epochs = 1
        trainer.fit(learner, data, checkpoints, Silent(tmp_path, 0))
        assert not any(isinstance(t, FakeTensor) for t in tensors(learner))
        data, learner, trainer = small_run(*words)
        figures.append(trainer.fit(learner, data, checkpoints, Silent(tmp_path, 0), checkpoints.load("last")))
        assert learner.execution == way
    assert figures[1] == pytest.approx(figures[0], rel=rel, abs=0.0)


@pytest.mark.parametrize(("execution", "workers"), [("graph", 0), ("graph", 2), ("compile", 2)])
def test_traced_steps_find_images_that_are_not_on_the_device(execution, workers, tmp_path):
    digits = small_run("data.binarize=none", "model/likelihood=gaussian")[0].split("train")
    np.savez(tmp_path / "x.npz", x_train=digits.stored.pixels.numpy(), y_train=digits.stored.labels[:, 0].numpy())
    there = ("data=arrays", f"data.path={tmp_path}/x.npz", "data.binarize=dynamic", "model/likelihood=bernoulli")
    rows = []
    for words in ((f"execution={execution}", "loader.storage=host", f"loader.workers={workers}"), ()):
        data, learner, _ = small_run(*there, *words)
        stream = Stream(data.training(), 100, seed=0)
        assert stream.images.resident == (not words)
        rows.append(advanced(learner, stream, 20))
        stream.close()
    torch.testing.assert_close(rows[0], rows[1], rtol=1e-5, atol=1e-5)


def test_a_gradient_has_the_layout_of_its_parameter():
    data, learner, _ = small_run()
    batch = Stream(data.split("train"), 100, seed=0).batch(0)
    p = torch.nn.Parameter(torch.ones(3, 2).t())  # in another layout than usual
    learner.parameters = [p]
    learner.forward = lambda *_: (Losses((p.sum(0)[:1].expand(5) * torch.arange(5.0)).sum()), {})
    ((gradient,), _) = learner.differentiated(batch, 0, Rng(0, "train", 0), 1.0)
    assert gradient.stride() == p.stride()
    assert gradient.tolist() == [[10.0, 0.0, 0.0]] * 2


def test_two_parameters_with_one_gradient_are_clipped_once():
    data, learner, _ = small_run("learner.clip_norm=0.5")
    batch = Stream(data.split("train"), 100, seed=0).batch(0)
    learner.parameters = p, q = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    loss = ((p + q) * torch.arange(3.0)).sum()
    learner.forward = lambda *_: (Losses(loss), {})
    learner.take(batch, 0, Rng(0, "train", 0))
    assert p.grad is not q.grad
    torch.testing.assert_close(torch.cat([p.grad, q.grad]).norm(), torch.tensor(0.5))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_compiled_steps_can_be_captured(optimizer, caplog):
    torch.compiler.reset()
    words = (f"optimizer={optimizer}", "lr_schedule=cosine", "learner.ema=0.9")
    ((eager, one), (captured, other)), _ = pair(*words)
    captured._execution = CompiledGraph(captured, tape := Rerun())
    found = advanced(captured, other, 24)
    torch.testing.assert_close(found, advanced(eager, one, 24), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tensors(captured), tensors(eager), rtol=1e-3, atol=1e-4)
    assert captured.execution == "compile", caplog.messages
    assert (tape.recorded, tape.replayed) == (2, 2 + 1)  # 3 warm ones, two launches of 10, one single one


@pytest.mark.parametrize("captured", [False, True])
def test_a_compiler_that_fails_is_said_in_one_line_and_done_without(caplog, captured, monkeypatch):
    data, learner, _ = small_run(LR, "execution=compile")
    stream = Stream(data.split("train"), 100, seed=learner.seed)

    def fail(*_, **__):
        raise RuntimeError("No working C++ compiler\nfound in a long text")

    if captured:
        learner._execution = CompiledGraph(learner, Rerun())
        learner._execution._calls = learner.calls._replace(differentiated=fail)
    monkeypatch.setattr("torch._inductor.standalone_compile", fail)
    with caplog.at_level(logging.WARNING, "vae_train"):
        found = advanced(learner, stream, 5)
    said = [r.getMessage() for r in caplog.records if r.name == "vae_train"]  # PyTorch 2.8 says something, too
    assert said == ["execution=compile is not possible here, going on with eager: No working C++ compiler"]
    data, eager, _ = small_run(LR)
    assert torch.equal(found, advanced(eager, Stream(data.split("train"), 100, seed=eager.seed), 5))


def test_noise_in_place_is_the_noise_of_a_draw():
    noise = NoiseBuffers(3, "train", "cpu")
    noise.seek(0)
    first = noise.rng()
    a, b = first.normal((2, 5, 3)), first.uniform((1, 5), torch.float64)
    for position in (0, 7, 1, 7):
        noise.seek(position)
        rng, expected = noise.rng(), Rng(3, "train", position)
        x, y = rng.normal((2, 5, 3)), rng.uniform((1, 5), torch.float64)
        assert (x.data_ptr(), y.data_ptr()) == (a.data_ptr(), b.data_ptr())
        assert torch.equal(x, expected.normal((2, 5, 3)))
        assert torch.equal(y, expected.uniform((1, 5), torch.float64))
    other = noise.like()
    other.seek(9)
    assert torch.equal(other.rng().normal((2, 5, 3)), Rng(3, "train", 9).normal((2, 5, 3)))
    assert torch.equal(noise.rng().normal((2, 5, 3)), Rng(3, "train", 7).normal((2, 5, 3)))


def test_noise_of_other_shapes_than_before_is_an_error():
    with pytest.raises(RuntimeError, match=r"noise with shape \(3,\) was asked for, and \(2,\) the first time"):
        FixedNoise([torch.zeros(2)]).normal((3,))


def test_rows_hold_every_figure_of_every_step():
    data, learner, _ = small_run()
    stream = Stream(data.split("train"), 100, seed=learner.seed)
    (row,) = learner.advance(stream, 0, 5)
    figures = dict(zip(learner.names, row.tolist(), strict=True))
    assert figures["elbo"] == pytest.approx(-(figures["distortion"] + figures["rate"]))
    assert all(math.isfinite(v) for v in figures.values())
