"""What `vae train` says when it ends."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.commandline import TINY
from vae_train.runs.outcome import trends

MORE = "vae train resume=run epochs=40"


def history(monitored, losses=None, rate=5.0):
    """Rows of epochs with the given validations."""
    losses = losses or [0.0] * len(monitored)
    return [
        {"epoch": epoch, "scope": "epoch", "split": split} | row
        for epoch, (value, loss) in enumerate(zip(monitored, losses, strict=True), 1)
        for split, row in (("train", {"loss": loss}), ("valid", {"monitored": value, "rate": rate}))
    ]


def falling(count, speed):
    return [100 * (1 - speed) ** epoch for epoch in range(count)]


def test_a_run_that_still_improves_names_the_command_that_goes_on():
    (line,) = trends(history(falling(20, 0.05)), 10, MORE)
    assert line == f"still improving, by 4.08 nats in the last 2 epochs; continue with: {MORE}"


@pytest.mark.parametrize(
    "monitored", [falling(20, 0.5), [5.0] * 20, [9.0, 1.0], [], [10.0, 3.0, *[2.0 - 1e-3 * i for i in range(18)]]]
)
def test_nothing_is_said_of_a_run_that_has_settled_or_is_too_short(monitored):
    assert trends(history(monitored), 10, MORE) == []


def test_overfitting_is_a_validation_that_gets_worse_while_training_gets_better():
    up = [100.0, 50.0, 30.0, 25.0, 24.0, 25.0, 27.0, 30.0]
    (line,) = trends(history(up, losses=falling(8, 0.3)), 10, MORE)
    assert line.startswith(
        "overfitting: since epoch 5 the training loss has fallen, but validation is worse by 6.00 nats"
    )
    assert trends(history(up, losses=falling(8, 0.3)[::-1]), 10, MORE) == []
    assert trends(history([100.0, 50.0, 30.0, 20.0, 25.0], losses=falling(5, 0.3)), 10, MORE) == []


def test_a_rate_beyond_what_latents_can_hold_is_said():
    (line,) = trends(history([1.0] * 10, rate=101.0), 10, MORE)
    assert line.startswith("the rate of 101 nats exceeds 10 nats per latent dimension")
    assert trends(history([1.0] * 10, rate=99.0), 10, MORE) == []


def test_the_end_of_a_training_says_what_matters(vae):
    answer = vae.train("out=run", "beta=100")
    summary = json.loads(Path("run/summary.json").read_text())
    lines = answer.out.splitlines()
    headline = next(line for line in lines if line.startswith("best epoch"))
    assert headline.startswith(f"best epoch {summary['best_epoch']} by validation objective at beta = 100: ")
    assert f"ELBO {summary['best_elbo']:.2f} nats · rate {summary['best_rate']:.2f} · " in headline
    assert f"distortion {summary['best_distortion']:.2f} · {summary['best_bits_per_dim']:.3f} bits/dim · " in headline
    assert headline.endswith(f" · {summary['active_units']} of 2 latent dimensions active")
    assert any(line.startswith("posterior collapse: ") and "lower beta (it was 100)" in line for line in lines)
    assert lines[-3] == "run/"
    assert lines[-2].split() == [
        *(
            "samples/final.png",
            "samples/manifold.png",
            "reconstructions/final.png",
            "curves.png",
            "metrics.csv",
            "checkpoints/best.pt",
        )
    ]
    assert lines[-1] == "next: vae eval run=run · vae report run=run"


def test_a_run_without_validation_reports_its_training_images(vae):
    np.save("x.npy", np.random.default_rng(0).normal(size=(200, 3)))
    answer = vae.train("data=arrays", "data.path=x.npy", "data.valid=0", "out=run")
    assert "no validation; training images of the last epoch: ELBO " in answer.out
    assert " latent dimensions active" in answer.out


@pytest.mark.parametrize(
    ("length", "longer"),
    [(("epochs=2",), "epochs=7"), (("epochs=null", "steps=10"), "steps=69")],
    ids=["epochs", "steps"],
)
def test_a_schedule_that_has_not_ended_is_said_with_the_length_that_it_needs(vae, length, longer):
    arguments = ("objective/beta_schedule=linear", "objective.beta_schedule.warmup=7", "out=run")
    answer = vae("train", *TINY[1:], *length, *arguments)
    assert f"are unfinished; continue with: vae train resume=run {longer}\n" in answer.out
    assert vae("train", "resume=run", longer).code == 0


def test_a_resumed_run_says_where_it_goes_on(vae, trained):
    assert "resuming after step 20, in epoch 3 of 3" in vae("train", f"resume={trained}", "epochs=3").out
