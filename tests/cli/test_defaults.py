"""How long a run trains and how large its batches are: by epochs=, steps=, batch_size=, or by the size of the data."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.commandline import rows
from vae_train.batch import DataFacts
from vae_train.runs.config import Config
from vae_train.runs.defaults import with_defaults
from vae_train.training.epochs import Epochs

SMALL = ("data=arrays", "data.path=x.npy", "data.valid=0.2", "data.test=0", "latent_dim=2", "logger=none")
SMALL += ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "batch_size=20", "out=run")
"""80 training images: an epoch has four steps."""


@pytest.fixture(autouse=True)
def _data(_own_folder):
    np.save("x.npy", np.random.default_rng(0).normal(size=(100, 3)))


def length():
    config = Config.read(Path("run/config.yaml"))
    last = rows(Path("run"))[-1]
    assert (config["epochs"], config["steps"]) == (config["trainer"]["epochs"], config["trainer"]["steps"])
    return config["epochs"], config["steps"], last["epoch"], last["step"]


@pytest.mark.parametrize(
    ("setting", "expected"), [("epochs=3", (3, None, 3, 12)), ("steps=8", (2, 8, 2, 8)), ("steps=10", (3, 10, 3, 10))]
)
def test_a_run_is_as_long_as_it_should_be(vae, setting, expected):
    assert vae("train", *SMALL, setting).code == 0
    assert length() == expected


def test_no_epoch_is_empty(vae):
    small = [setting for setting in SMALL if not setting.startswith("batch_size")]
    assert vae("train", *small, "batch_size=64", "steps=9").code == 0  # 80 images: the seventh epoch ends at step 9
    assert length() == (7, 9, 7, 9)


@pytest.mark.parametrize(("num_train", "epochs"), [(80, 375), (700, 43), (1000, 30), (60_000, 30)])
def test_small_data_is_seen_more_often(num_train, epochs):
    config = Config({"trainer": {"epochs": None, "steps": None, "batch_size": 20}})
    assert with_defaults(config, DataFacts((1, 8, 8), 17, num_train))["epochs"] == epochs


@pytest.mark.parametrize(("num_train", "size"), [(9, 9), (80, 16), (160, 32), (319, 32), (640, 128), (60_000, 128)])
def test_small_data_has_small_batches(num_train, size):
    config = Config({"trainer": {"epochs": None, "steps": 7, "batch_size": None}})
    config = with_defaults(config, DataFacts((1, 28, 28), 2, num_train))
    assert config["batch_size"] == config["trainer"]["batch_size"] == size
    assert config["epochs"] == -(-7 * size // num_train)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((3, 64, 64), 32), ((1, 128, 128), 32), ((3, 32, 32), 128), ((1, 64, 64), 128), ((2, 1, 16_000), 128)],
)
def test_large_images_have_small_batches(shape, size):
    config = Config({"trainer": {"epochs": None, "steps": 7, "batch_size": None}})
    assert with_defaults(config, DataFacts(shape, 256, 60_000))["batch_size"] == size
    assert with_defaults(config, DataFacts(shape, 256, 90))["batch_size"] == 16


def test_the_default_size_of_batches_stands_in_the_run(vae):
    small = [setting for setting in SMALL if not setting.startswith("batch_size")]
    assert vae("train", *small, "steps=8").code == 0
    assert length() == (2, 8, 2, 8)
    assert Config.read(Path("run/config.yaml"))["batch_size"] == 16


def test_schedules_run_over_the_steps(vae):
    assert vae("train", *SMALL, "steps=10", "lr_schedule=cosine", "lr=0.1", "trainer.log_every=1").code == 0
    rates = [row["lr"] for row in rows(Path("run")) if row["scope"] == "step"]
    assert rates == pytest.approx([0.05 * (1 + np.cos(np.pi * step / 10)) for step in range(10)])


@pytest.mark.parametrize(
    ("first", "more", "expected"),
    [
        ("steps=6", "steps=10", (3, 10, 3, 10)),
        pytest.param("steps=6", "epochs=3", (3, None, 3, 12), marks=pytest.mark.slow),
        pytest.param("epochs=2", "steps=10", (3, 10, 3, 10), marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_made_longer_is_as_if_it_had_been_so_long(vae, first, more, expected):
    vae("train", *SMALL, first)
    assert vae("train", "resume=run", more).code == 0
    assert length() == expected
    vae("train", *SMALL[:-1], more, "out=whole")
    summaries = [json.loads(Path(run, "summary.json").read_text()) for run in ("run", "whole")]
    assert summaries[0]["valid_loss"] == summaries[1]["valid_loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resume=run", "steps=4"), "steps=4  the run has steps=6, which can only be raised"),
        (("resume=run",), "resume=run  finished after 2 epochs; add steps=12"),
        (("resume=run", "epochs=1"), "epochs=1  the run has steps=6, which can only be raised"),
        ((*SMALL[:-1], "steps=4", "epochs=2"), "steps=4  and epochs=2 are mutually exclusive; leave one out"),
        ((*SMALL[:-1], "steps=0"), "steps=0  is 0, must be at least 1"),
    ],
)
def test_lengths_that_cannot_be(vae, arguments, message):
    vae("train", *SMALL, "steps=6")
    (line,) = vae("train", *arguments).errors()
    assert line.strip().startswith(message)


@pytest.mark.parametrize("steps", [1, 7, 10, 13, 20, 29])
def test_every_step_belongs_to_the_epoch_that_it_is_in(steps):
    epochs = Epochs(-(-steps * 3 // 10), 10, 3, steps)
    assert epochs.last_step == steps
    for step in range(steps):
        epoch = epochs.of(step)
        assert (0 if epoch == 1 else epochs.end(epoch - 1)) <= step < epochs.end(epoch)
    assert epochs.of(steps) == epochs.total + 1


@pytest.mark.parametrize("typed", [["steps=3"], ["epochs=1"], ["-m", "steps=3,4"]])
def test_a_typed_length_replaces_that_of_an_experiment(vae, typed):
    for name, length in (("by_epochs", "epochs: 7"), ("by_steps", "steps: 90")):
        Path("own/experiment").mkdir(parents=True, exist_ok=True)
        Path(f"own/experiment/{name}.yaml").write_text(f"# @package _global_\n{length}\n")
        out = "sweep=" if "-m" in typed else "out="
        answer = vae("train", "--config-dir", "own", f"experiment={name}", *SMALL[:-1], *typed, f"{out}{name}")
        assert answer.code == 0, answer.err
    logs = [path.read_text().splitlines() for path in Path().rglob("metrics.jsonl")]
    assert len(logs) == (4 if "-m" in typed else 2)
    assert {json.loads(rows[-1])["epoch"] for rows in logs} == {1}
