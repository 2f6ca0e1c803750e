"""By what validations are compared, and what follows it: the best epoch, patience and plateaus."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.support import build_objective, compose, small_run
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.epochs import Epochs
from vae_train.training.monitor import Judge

LINEAR = ("objective/beta_schedule=linear", "objective.beta_schedule.start=0")
TEN = Epochs(total=10, num_images=1000, batch_size=100)
"""Ten epochs of ten steps, as `build_objective` supposes."""


def judge(*overrides: str, monitor: str = "objective") -> Judge:
    return Judge(monitor, build_objective(compose(*overrides)), TEN)


@pytest.mark.parametrize(("overrides", "settled", "step", "by"), [
    (("beta=4",), 0, 100, "validation objective at beta = 4"),
    (("beta=4", *LINEAR, "objective.beta_schedule.warmup=5"), 50, 100, "validation objective at beta = 4"),
    (("beta=4", *LINEAR, "objective.beta_schedule.warmup=40"), 400, 100, "validation objective at beta = 1"),
    (("objective/beta_schedule=cyclical", "objective.beta_schedule.period=4", "objective.beta_schedule.cycles=2"),
     80, 100, "validation objective at beta = 1"),
    (("objective/beta_schedule=cyclical", "objective.beta_schedule.period=4", "objective.beta_schedule.cycles=4"),
     160, 20, "validation objective at beta = 1"),
    (("objective/beta_schedule=two_phase", "objective.beta_schedule.until=20", "objective.beta_schedule.first=0.1"),
     200, 100, "validation objective at beta = 0.1"),
    (("objective=capacity", "beta=100", "objective.capacity=25", "objective.capacity_epochs=5"),
     50, 100, "validation objective at beta = 100 and capacity = 25"),
    (("objective=capacity", "objective.capacity=25", "objective.capacity_epochs=20"),
     200, 100, "validation objective at beta = 1 and capacity = 12.5"),
    (("objective=iwae",), 0, 100, "validation objective"),
    (("objective=vae_gan", "objective.start=3"), 30, 100, "validation ELBO (beta = 1)"),
])  # fmt: skip
def test_an_objective_is_judged_with_its_final_weights(overrides, settled, step, by):
    found = judge(*overrides)
    assert (found.settled_step, found.step) == (settled, step)
    assert found.by(settled) == by
    assert settled == 0 or found.by(settled - 1) == f"{by}, before the schedules end"


@pytest.mark.parametrize("name", ["geco", "control_vae", "factor_vae", "vae_gan", "wae_gan"])
def test_what_adapts_is_judged_by_the_elbo_or_the_distortion(name):
    found, row = judge(f"objective={name}"), {"loss": 1.0, "elbo": -3.0, "distortion": 2.0}
    assert found.value(row, row) == 3.0
    del row["elbo"]
    assert found.value(row, row) == 2.0
    assert found.by(100, bounded=False) == "validation distortion"
    assert judge(f"objective={name}", monitor="loss").value(row, row) == 1.0


def fit(folder: Path, *overrides: str) -> tuple[dict, list[dict], dict]:
    """The summary of a run, its validations, and its best checkpoint."""
    from tests.training.test_trainer import Rows

    data, learner, trainer = small_run("batch_size=100", "lr=1e-2", "trainer.checkpoint_seconds=0", *overrides)
    logger = Rows()
    metrics, _ = trainer.fit(learner, data, Checkpoints(folder), [logger])
    return metrics, logger.of("valid"), Checkpoints(folder).load("best")


def test_a_small_beta_keeps_the_epoch_whose_own_objective_is_lowest(tmp_path):
    metrics, valid, best = fit(tmp_path, "beta=1e-3", "epochs=12")
    values = [row["distortion"] + 1e-3 * row["rate"] for row in valid]
    assert [row["monitored"] for row in valid] == pytest.approx(values, rel=1e-5)
    lowest = 1 + values.index(min(values))
    assert metrics["best_epoch"] == lowest > 1 + max(range(12), key=lambda i: valid[i]["elbo"])
    assert metrics["best_by"] == "validation objective at beta = 0.001"
    assert best["progress"]["step"] == TEN._replace(num_images=1257).end(lowest)


def test_a_warm_up_is_judged_by_its_end_and_its_record_begins_anew(tmp_path):
    overrides = (*LINEAR, "objective.beta_schedule.warmup=6", "epochs=8")
    metrics, valid, _ = fit(tmp_path, *overrides, "beta=30")
    for row in valid:
        assert row["monitored"] == pytest.approx(row["distortion"] + 30 * row["rate"], rel=1e-5)
        assert row["loss"] == pytest.approx(row["distortion"] + row["beta"] * row["rate"], rel=1e-5)
    late = min(valid[5:], key=lambda row: row["monitored"])
    assert metrics["best_epoch"] == late["epoch"]
    assert metrics["best_by"] == "validation objective at beta = 30"


def test_patience_and_plateaus_wait_for_the_end_of_a_warm_up(tmp_path):
    overrides = (*LINEAR, "objective.beta_schedule.warmup=5", "epochs=9", "trainer.patience=2")
    data, learner, trainer = small_run("batch_size=100", "trainer.checkpoint_seconds=0", *overrides)
    count, observed, saved = [0], [], []

    def evaluate(batch, start, step):  # worse from one validation to the next
        count[0] += 1
        return {name: torch.tensor(float(count[0])) for name in ("loss", "distortion")}

    class Seen(Checkpoints):
        def save(self, names, state):
            saved.extend((name, state["progress"]["step"]) for name in names)
            super().save(names, state)

    learner.evaluate, learner.lr_schedule.observe = evaluate, observed.append
    metrics, _ = trainer.fit(learner, data, Seen(tmp_path), [])
    ends = [Epochs(9, 1257, 100).end(epoch) for epoch in range(1, 10)]
    # It is the best at first, and again when the schedule has ended, after which patience counts two more.
    assert [step for name, step in saved if name == "best"] == [ends[0], ends[4]]
    assert (metrics["best_epoch"], saved[-1]) == (5, ("last", ends[6]))
    assert len(observed) == 3
