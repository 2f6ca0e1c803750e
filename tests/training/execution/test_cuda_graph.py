from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from tests.support import choices, feed_of, small_run
from tests.tape import Rerun, Tape
from tests.training.examples import LR, OBJECTIVES, SETTINGS, built, taken, tensors
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.execution.cuda_graph import STEPS_PER_LAUNCH, WARMUP_STEPS, CudaGraph, steps_per_launch
from vae_train.training.state import Patience, TrainingState
from vae_train.training.trainer import Trainer


def captured(*overrides, step=lambda learner: learner.step):
    """A learner whose steps are recorded and replayed on a CPU, its runner and the tape."""
    data, learner, _ = small_run(LR, *overrides)
    tape = Tape(lambda: tensors(learner))
    feed = feed_of(data, learner)
    runner = CudaGraph(step(learner), feed, learner.gradient_norm, "graph", tape, STEPS_PER_LAUNCH)
    return learner, runner, tape


def pair(*overrides):
    """A learner and runner that take their steps eagerly, and the same with captured steps and their tape."""
    return built(LR, "execution=eager", *overrides), captured(*overrides)


@pytest.mark.parametrize("overrides", SETTINGS.values(), ids=SETTINGS)
def test_captured_steps_are_the_same_steps_bit_by_bit(overrides):
    (eager, eager_runner), (learner, runner, tape) = pair(*overrides)
    expected, found = taken(eager_runner, 37), taken(runner, 37)
    assert runner(37, 1).names == eager_runner(37, 1).names
    assert torch.equal(found, expected)
    assert all(torch.equal(a, b) for a, b in zip(tensors(eager), tensors(learner), strict=True))
    assert runner.gradient_norm() == eager_runner.gradient_norm()
    assert (tape.recorded, tape.replayed) == (2, 3 + 4 + 1)  # 3 warm, 3 x 10 in three launches, 5 single ones


@pytest.mark.parametrize("workers", [0, 2])
def test_captured_steps_find_images_that_are_not_on_the_device(workers, tmp_path):
    digits = small_run("data.binarize=none", "model/likelihood=gaussian")[0].split("train")
    np.savez(tmp_path / "x.npz", x_train=digits.stored.pixels.numpy(), y_train=digits.stored.labels[:, 0].numpy())
    there = ("data=arrays", f"data.path={tmp_path}/x.npz", "data.binarize=dynamic", "model/likelihood=bernoulli")
    host = ("loader.storage=host", f"loader.workers={workers}")
    (_, eager), (_, runner, tape) = pair(*there, *host)
    assert not runner.feed.stream.images.resident
    expected = taken(built(LR, *there)[1], 37)
    assert torch.equal(taken(eager, 37), expected)
    assert torch.equal(taken(runner, 37), expected)
    assert (tape.recorded, tape.replayed) == (2, 3 + 4)
    assert runner.feed.stream.waited > 0
    for each in (eager, runner):
        each.feed.stream.close()


@pytest.mark.parametrize("schedule", choices("lr_schedule"))
def test_learning_rates_move_in_captured_steps(schedule):
    overrides = (f"lr_schedule={schedule}", "lr_schedule.warmup=0.5", "epochs=3", "optimizer=sgd")
    if schedule == "plateau":
        overrides += ("lr_schedule.patience=1", "lr_schedule.factor=0.5")
    if schedule == "step":
        overrides += ("lr_schedule.every=1", "lr_schedule.gamma=0.5")
    (eager, eager_runner), (learner, runner, _) = pair(*overrides)
    for start, until in ((0, 20), (20, 45)):
        expected, found = taken(eager_runner, until, start), taken(runner, until, start)
        # A rate that float32 does not hold exactly is rounded.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        for each in (eager, learner):
            each.lr_schedule.observe(1.0)
            each.lr_schedule.observe(1.0)
    assert eager.rates(44) == learner.rates(44)
    if schedule != "constant":
        assert eager.rates(44) != eager.rates(12) or schedule == "plateau"
        assert eager.optimizer.optimizer.param_groups[0]["lr"] != 2**-9


@pytest.mark.parametrize("schedule", choices("objective/beta_schedule"))
def test_beta_moves_in_captured_steps(schedule):
    early = ["objective.beta_schedule.until=1.5"] if schedule == "two_phase" else []
    (_, eager), (_, runner, _) = pair(f"objective/beta_schedule={schedule}", "beta=4", *early)
    expected, found = taken(eager, 40), taken(runner, 40)
    beta = eager(40, 1).names.index("beta")
    torch.testing.assert_close(found[:, beta], expected[:, beta], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if schedule != "constant":
        assert found[0, beta] < found[-1, beta] <= 4


@pytest.mark.parametrize("name", choices("objective"))
def test_steps_of_every_objective_can_be_captured(name):
    (eager, eager_runner), (learner, runner, tape) = pair(f"objective={name}", *OBJECTIVES.get(name, ()))
    expected, found = taken(eager_runner, 15), taken(runner, 15)
    assert (tape.recorded, tape.replayed) == (2, 3)
    # A schedule of a captured step is computed in float32.
    tolerance = 1e-5 if name in ("capacity", "balanced") else 0.0
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(tensors(learner), tensors(eager), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("limit", [1, 4, 10, 13])
def test_how_many_steps_are_taken_at_once_changes_nothing(limit):
    (_, eager), (_, runner, _) = pair()
    assert torch.equal(taken(runner, 50, limit=limit), taken(eager, 50))


def test_captured_steps_resume_from_a_state_and_leave_one_that_eager_steps_resume_from(tmp_path):
    (_, eager), (learner, runner, _) = pair("learner.ema=0.9")
    expected = taken(eager, 60)
    taken(runner, 25)
    state = TrainingState(learner, Patience(None)).state_dict()
    assert state["optimizer"]["param_groups"][0]["lr"] == 2**-9
    Checkpoints(tmp_path).save(["last"], state)
    for learner, runner, *_ in pair("learner.ema=0.9"):
        TrainingState(learner, Patience(None)).load_state_dict(Checkpoints(tmp_path).load("last"))
        assert torch.equal(taken(runner, 60, start=25), expected[25:])


class TapedTrainer(Trainer):
    """Captures steps on a CPU."""

    def runner(self, learner, stream):
        feed = super().runner(learner, stream).feed
        return CudaGraph(learner.step, feed, learner.gradient_norm, "graph", Tape(lambda: tensors(learner)), 10)


def test_a_training_of_captured_steps_is_the_same_training(tmp_path):
    metrics = []
    for kind in (Trainer, TapedTrainer):
        data, learner, settings = small_run(LR, "epochs=3", "learner.ema=0.9")
        trainer = kind(**vars(settings))
        final, execution = trainer.fit(learner, data, Checkpoints(tmp_path / kind.__name__), [])
        assert execution == ("graph" if kind is TapedTrainer else "eager")
        metrics.append(final)
    assert metrics[0] == metrics[1]


def test_what_cannot_be_captured_is_reported_in_one_line_and_runs_eagerly(caplog):
    def peeking(learner):
        def step(inputs):
            scalars = learner.step(inputs)
            return scalars if scalars["loss"].item() > 0 else {}

        return step

    (_, eager), (_, runner, _) = built(LR), captured(step=peeking)
    with caplog.at_level(logging.WARNING, "vae_train"):
        found = taken(runner, 30)
    assert torch.equal(found, taken(eager, 30))
    assert runner.mode == "eager"
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("execution=graph is not supported here; falling back to eager: aten._local_scalar_dense")


def test_an_error_of_the_steps_themselves_is_not_hidden():
    def broken(inputs):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        captured(step=lambda learner: broken)[1](0, 10)


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


def test_small_models_take_several_steps_per_launch_and_large_ones_one():
    assert steps_per_launch(10**4, 100, 1257) == STEPS_PER_LAUNCH
    assert steps_per_launch(10**4, 500, 1257) == 2
    assert steps_per_launch(10**4, 1257, 1257) == 1
    assert steps_per_launch(2**21, 100, 1257) == 1


@pytest.mark.parametrize("optimizer", [pytest.param("adam", marks=pytest.mark.slow), "sgd"])
def test_compiled_steps_can_be_captured(optimizer, caplog):
    words = (f"optimizer={optimizer}", "lr_schedule=cosine", "learner.ema=0.9")
    eager, expected = built(LR, *words)
    data, learner, _ = small_run(LR, "execution=compile", *words)
    feed, tape = feed_of(data, learner), Rerun()
    runner = CudaGraph(learner.step, feed, learner.gradient_norm, "compile", tape, STEPS_PER_LAUNCH)
    torch.testing.assert_close(taken(runner, 24), taken(expected, 24), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tensors(learner), tensors(eager), rtol=1e-3, atol=1e-4)
    assert runner.mode == "compile", caplog.messages
    assert (tape.recorded, tape.replayed) == (2, 2 + 1)  # 3 warm ones, two launches of 10, one single one
    assert WARMUP_STEPS == 3
