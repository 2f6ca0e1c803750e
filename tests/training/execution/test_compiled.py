from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from tests.support import feed_of, small_run
from tests.training.examples import LR, OBJECTIVES, SETTINGS, built, compilable, taken, tensors
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.execution import runner
from vae_train.training.execution.compiled import CompiledGradients
from vae_train.training.learner import Learner


def with_compiler(compiler, *overrides):
    """A learner and runner whose pure step is given to `compiler`."""
    data, eager, _ = small_run(LR, *overrides)
    average = None if eager.average is None else 0.9
    learner = Learner(
        eager.model,
        eager.objective,
        lambda groups: torch.optim.Adam(groups, lr=2**-9),
        eager.lr_schedule,
        eager.seed,
        eager.clip_norm,
        average,
        eager.grad_accumulation,
        eager.precision,
        None if eager.guard is None else eager.guard.factor,
        None,
        lambda module: CompiledGradients(module, compiler),
    )
    return learner, runner("compile", learner.step, feed_of(data, learner), learner.gradient_norm)


def eager_of(*overrides):
    return built(LR, "execution=eager", "optimizer.fused=false", *overrides)


@pytest.mark.parametrize("overrides", SETTINGS.values(), ids=SETTINGS)
def test_the_pure_step_is_the_same_step(overrides):
    """Without a compiler, so that it is quick."""
    if "optimizer=sgd" in overrides or "optimizer=adamw" in overrides:
        return
    (eager, expected), (learner, steps) = eager_of(*overrides), with_compiler(lambda step: step, *overrides)
    torch.testing.assert_close(taken(steps, 12), taken(expected, 12), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tensors(learner), tensors(eager), rtol=1e-3, atol=1e-5)
    assert steps.mode == "compile"


@pytest.mark.parametrize("name", compilable())
def test_the_pure_step_of_every_objective_is_the_same_step(name):
    words = (f"objective={name}", *OBJECTIVES.get(name, ()))
    words = tuple(word for word in words if "critic_lr" not in word)
    (eager, expected), (learner, steps) = eager_of(*words), with_compiler(lambda step: step, *words)
    torch.testing.assert_close(taken(steps, 6), taken(expected, 6), rtol=1e-4, atol=1e-4)
    assert steps.mode == "compile"
    for a, b in zip(learner.parameters, eager.parameters, strict=True):
        assert (a.grad is None) == (b.grad is None)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(
            ("learner.grad_accumulation=3", "learner.ema=0.9", "lr_schedule=cosine", "learner.clip_norm=0.5"),
            marks=pytest.mark.slow,
        ),
        *(pytest.param(setting, marks=pytest.mark.slow) for setting in SETTINGS.values()),
        *(
            pytest.param((f"objective={name}", *OBJECTIVES.get(name, ())), marks=pytest.mark.slow)
            for name in compilable()
        ),
    ],
    ids=" ".join,
)
def test_compiled_steps_are_the_same_steps_up_to_rounding(overrides):
    (learner, steps), (eager, expected) = (built(f"execution={mode}", *overrides) for mode in ("compile", "eager"))
    torch.testing.assert_close(taken(steps, 12), taken(expected, 12), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(tensors(learner), tensors(eager), rtol=1e-3, atol=1e-4)
    assert steps.gradient_norm() == pytest.approx(expected.gradient_norm(), rel=1e-3)
    assert steps.mode == "compile"


@pytest.mark.slow
def test_learners_in_one_process_do_not_share_a_graph():
    """Guards are skipped: nothing but the code object tells their functions apart."""
    learners = [(), ("objective=iwae", "objective.num_samples=1"), ("beta=4",)]
    compiled = [built("execution=compile", *words) for words in learners]
    eager = [built("execution=eager", *words) for words in learners]
    for start, stop in ((0, 5), (5, 8)):
        for (learner, steps), (other, expected) in zip(compiled, eager, strict=True):
            torch.testing.assert_close(taken(steps, stop, start), taken(expected, stop, start), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(tensors(learner), tensors(other), rtol=1e-3, atol=1e-4)
            assert steps.gradient_norm() == pytest.approx(expected.gradient_norm(), rel=1e-3)
            assert steps.mode == "compile"


def test_a_compiler_that_fails_is_reported_in_one_line_and_steps_run_eagerly(caplog):
    def failing(step):
        raise RuntimeError("No working C++ compiler\nfound in a long text")

    learner, steps = with_compiler(failing)
    with caplog.at_level(logging.WARNING, "vae_train"):
        found = taken(steps, 5)
    assert [record.getMessage() for record in caplog.records] == [
        "execution=compile is not supported here; falling back to eager: No working C++ compiler"
    ]
    assert steps.mode == "eager"
    eager, expected = eager_of()
    assert torch.equal(found, taken(expected, 5))
    assert all(torch.equal(a, b) for a, b in zip(tensors(learner), tensors(eager), strict=True))


def test_an_error_of_the_steps_themselves_is_not_hidden():
    def broken(inputs):
        raise ZeroDivisionError

    data, learner, _ = small_run()
    with pytest.raises(ZeroDivisionError):
        runner("compile", broken, feed_of(data, learner), learner.gradient_norm)(0, 1)


@pytest.mark.slow
def test_a_compiled_training_is_the_same_training_and_can_be_resumed(tmp_path):
    """Validation, previews, the average, a checkpoint half-way, and a new stream of batches."""
    metrics = []
    for mode in ("eager", "compile"):
        words = ("epochs=2", "learner.ema=0.9", "batch_size=500", f"execution={mode}")
        data, learner, trainer = small_run(*words)
        checkpoints = Checkpoints(tmp_path / mode)
        trainer.epochs = 1
        trainer.fit(learner, data, checkpoints, [])
        data, learner, trainer = small_run(*words)
        final, execution = trainer.fit(learner, data, checkpoints, [], checkpoints.load("last"))
        assert execution == mode
        metrics.append({name: value for name, value in final.items() if name != "best_by"})
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_pure_steps_find_images_that_are_not_on_the_device(workers, tmp_path):
    digits = small_run("data.binarize=none", "model/likelihood=gaussian")[0].split("train")
    np.savez(tmp_path / "x.npz", x_train=digits.stored.pixels.numpy(), y_train=digits.stored.labels[:, 0].numpy())
    there = ("data=arrays", f"data.path={tmp_path}/x.npz", "data.binarize=dynamic", "model/likelihood=bernoulli")
    _, steps = with_compiler(lambda step: step, *there, "loader.storage=host", f"loader.workers={workers}")
    assert not steps.feed.stream.images.resident
    torch.testing.assert_close(taken(steps, 20), taken(eager_of(*there)[1], 20), rtol=1e-5, atol=1e-5)
    steps.feed.stream.close()
