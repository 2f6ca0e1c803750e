"""Messages about the best epoch, and about schedules that do not fit the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commandline import Vae

LINEAR = ("objective/beta_schedule=linear", "objective.beta_schedule.start=0")


@pytest.mark.parametrize(("arguments", "where", "why"), [
    (("data=shapes", "data.num_valid=0", "trainer.patience=3"), "trainer.patience=3", "no validation split"),
    (("trainer.patience=3", "trainer.eval_every=3"), "trainer.patience=3", "trainer.eval_every=3 exceeds the 2 epochs"),
    (("lr_schedule=plateau", "trainer.eval_every=3"), "lr_schedule=plateau", "use lr_schedule=constant"),
])  # fmt: skip
def test_patience_needs_validations(vae: Vae, arguments, where, why):
    (line,) = vae.train(*arguments).errors()
    assert line.split()[0] == where
    assert why in line


def test_what_outlasts_a_run_is_said_once_at_the_start(vae: Vae):
    answer = vae.train(
        *LINEAR, "batch_size=419", "objective.beta_schedule.warmup=10", "lr_schedule.warmup=4", "out=run"
    )
    assert "schedules take 10 epochs, but the run has 2; it ends at beta = 0.2" in answer.out
    assert "lr_schedule.warmup=4 exceeds the 2 epochs; they end at 0.5 of lr" in answer.out
    by = "validation objective at beta = 0.2, before the schedules end"
    assert f"by {by}: ELBO" in answer.out
    assert json.loads(Path("run/summary.json").read_text())["best_by"] == by
    answer = vae("train", "resume=run", "epochs=4")
    assert "the best epoch is now chosen by the validation objective at beta = 0.4" in answer.out
    assert json.loads(Path("run/summary.json").read_text())["best_epoch"] in (3, 4)
    assert "outlasts" not in vae.train("out=plain").out


def test_a_decay_that_more_epochs_move_is_said(vae: Vae):
    vae.train("lr_schedule=cosine", "batch_size=419", "out=run")
    answer = vae("train", "resume=run", "epochs=8")
    assert "lr_schedule now ends after 8 epochs; it resumes at 0.854 of lr instead of 0" in answer.out
    assert "lr_schedule now" not in vae("train", "resume=run", "epochs=8", "trainer.patience=3").out


def test_an_adaptive_objective_says_what_is_the_best(vae: Vae):
    answer = vae.train("objective=geco", "out=run")
    assert "the objective is adaptive, so losses of different epochs are not comparable" in answer.out
    assert "by validation ELBO (beta = 1): ELBO" in answer.out
