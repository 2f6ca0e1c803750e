from __future__ import annotations

import math
import os
import signal
import time

import pytest
import torch

from tests.support import SplitSource, load, small_run
from vae_train.cli.commands.reproduce import without_clock
from vae_train.data.storage.stored import StoredImages, TensorStore
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.base import Logger
from vae_train.training.loggers.files import Files, read_metrics
from vae_train.training.signals import SAME_SIGNAL_WINDOW_S
from vae_train.util.errors import RunError, Stopped

SETTINGS = ("batch_size=100", "epochs=3", "trainer.log_every=5", "learner.ema=0.9", "objective.num_samples=2")
STEPS = [13, 26, 38]
"""The last steps of the epochs: 1,257 images in batches of 100."""


def few_digits(data, num_train, num_valid):
    """The first digits, with or without a validation split."""
    train, valid = (data.split(name).stored.pixels for name in ("train", "valid"))
    few = StoredImages(TensorStore(train[:num_train]), 17, stochastic=True)
    return load(SplitSource(few, StoredImages(TensorStore(valid[:num_valid]), 2) if num_valid else None))


class Rows(Logger):
    """Keeps what it is told."""

    def __init__(self):
        self.rows, self.grids = [], []

    def metrics(self, row):
        self.rows.append(row)

    def image_grid(self, kind, name, step, grid):
        self.grids.append((kind, name, step))

    def of(self, split, scope="epoch"):
        return [row for row in self.rows if (row["split"], row["scope"]) == (split, scope)]


def before(learner, number, action):
    """Calls `action` just before update number `number` (the first is 1)."""
    step = learner.step

    def hooked(inputs):
        if inputs.step + 1 == number:
            action(learner)
        return step(inputs)

    learner.step = hooked


def scripted(learner, elbos, losses=None):
    """Replaces the metrics of validation."""
    values = iter(zip(elbos, losses or [-e for e in elbos], strict=True))

    def evaluate(batch, start, step):
        elbo, loss = next(values)
        return {name: torch.tensor(value) for name, value in
                (("loss", loss), ("elbo", elbo), ("distortion", -elbo), ("rate", 0.0))}  # fmt: skip

    learner.evaluate = evaluate


def fit(tmp_path, *overrides, prepare=lambda learner: None, num=None):
    data, learner, trainer = small_run(*SETTINGS, *overrides)
    prepare(learner)
    rows = Rows()
    if num is not None:
        data = few_digits(data, *num)
    summary, _ = trainer.fit(learner, data, Checkpoints(tmp_path), [rows])
    return summary, rows, learner


def stop(_):
    os.kill(os.getpid(), signal.SIGTERM)


def trained(folder, *overrides, prepare=lambda learner: None):
    """One try of a run in `folder`, going on where the last one stopped: its final state and all its rows."""
    data, learner, trainer = small_run(*SETTINGS, *overrides)
    prepare(learner)
    checkpoints = Checkpoints(folder)
    state = checkpoints.load("last") if checkpoints.path("last").exists() else None
    files = Files(folder, state["progress"]["step"] if state else 0)
    try:
        trainer.fit(learner, data, checkpoints, [files], state)
    finally:
        files.close()
    return checkpoints.load("last"), checkpoints.load("best"), rows_of(folder)


def rows_of(folder):
    return [without_clock(row) for row in read_metrics(folder / "metrics.jsonl")]


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("at", [[1], [7], [13], [14, 20, 21], [26], [37]], ids=str)
def test_a_run_that_was_stopped_goes_on_bit_by_bit(at, tmp_path, uninterrupted):
    for number in at:
        with pytest.raises(Stopped) as caught:
            trained(tmp_path, prepare=lambda learner, number=number: before(learner, number, stop))
        assert caught.value.signal == signal.SIGTERM
        assert f", step {number}; checkpoint saved" in str(caught.value)
        assert read_metrics(tmp_path / "metrics.jsonl") == [] or rows_of(tmp_path)[-1]["step"] <= number
    last, best, rows = trained(tmp_path)
    for name in ("model", "ema", "optimizer", "lr_schedule", "progress", "meter", "random", "seed"):
        assert equal(last[name], uninterrupted[0][name]), name
    assert equal(best["model"], uninterrupted[1]["model"])
    assert rows == uninterrupted[2]


def test_a_schedule_that_listens_goes_on_bit_by_bit(tmp_path):
    options = ("lr_schedule=plateau", "lr_schedule.patience=1", "lr_schedule.threshold=1000", "precision=bfloat16")
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole = trained(tmp_path / "whole", *options)
    with pytest.raises(Stopped):
        trained(tmp_path / "cut", *options, prepare=lambda learner: before(learner, 30, stop))
    last, _, rows = trained(tmp_path / "cut", *options)
    assert equal(last["ema"], whole[0]["ema"])
    assert rows == whole[2]
    assert rows[-1]["split"] == "valid"
    assert {row["lr"] for row in rows if "lr" in row} == {1e-3, 5e-4}


def test_a_run_that_died_goes_on_from_its_last_checkpoint_bit_by_bit(tmp_path, uninterrupted):
    def die(_):
        raise MemoryError

    with pytest.raises(MemoryError):
        trained(tmp_path, prepare=lambda learner: before(learner, 33, die))
    assert rows_of(tmp_path)[-1]["step"] == 30
    last, _, rows = trained(tmp_path)
    assert equal(last["ema"], uninterrupted[0]["ema"])
    assert rows == uninterrupted[2]


def test_a_long_epoch_has_checkpoints_within_from_which_a_run_goes_on_bit_by_bit(tmp_path, uninterrupted):
    def die(_):
        raise MemoryError

    often = "trainer.checkpoint_seconds=1e-9"
    for number, saved in ((9, 5), (33, 30)):  # before the first epoch's end, and within the last epoch
        with pytest.raises(MemoryError):
            trained(tmp_path, often, prepare=lambda learner, number=number: before(learner, number, die))
        assert saved <= Checkpoints(tmp_path).load("last")["progress"]["step"] < number
    last, best, rows = trained(tmp_path)
    assert equal(last["ema"], uninterrupted[0]["ema"])
    assert equal(best["model"], uninterrupted[1]["model"])
    assert rows == uninterrupted[2]


def test_a_nan_is_noticed_before_a_checkpoint_within_an_epoch(tmp_path):
    def poison(learner):
        with torch.no_grad():
            next(learner.model.decoder.parameters()).fill_(math.nan)

    with pytest.raises(RunError, match="became NaN or infinite at step 9;"):
        fit(tmp_path, "trainer.checkpoint_seconds=1e-9", prepare=lambda learner: before(learner, 9, poison))
    assert Checkpoints(tmp_path).load("last")["progress"]["step"] < 9


def test_a_run_that_ended_early_does_not_go_on_unless_it_gets_more_epochs(tmp_path):
    options = ("trainer.patience=1", "trainer.checkpoint_seconds=0")
    worse = [-100.0, -110.0, -105.0, -103.0]
    last, _, rows = trained(tmp_path, *options, "epochs=4", prepare=lambda learner: scripted(learner, worse))
    assert (last["progress"]["step"], last["progress"]["ended"]) == (STEPS[1], 4)
    again, _, rows_again = trained(tmp_path, *options, "epochs=4")
    assert equal(again["model"], last["model"])
    assert rows_again == rows
    more, _, _ = trained(tmp_path, *options, "epochs=5", prepare=lambda learner: scripted(learner, worse[2:]))
    assert more["progress"]["step"] > STEPS[1]


def test_a_signal_in_the_last_step_lets_the_run_end(tmp_path, uninterrupted):
    last, _, rows = trained(tmp_path, prepare=lambda learner: before(learner, 38, stop))
    assert equal(last["model"], uninterrupted[0]["model"])
    assert rows == uninterrupted[2]


def test_a_signal_handler_is_put_back(tmp_path):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Stopped):
        fit(tmp_path, prepare=lambda learner: before(learner, 3, stop))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path):
    def twice(_):
        signal.raise_signal(signal.SIGINT)
        time.sleep(SAME_SIGNAL_WINDOW_S + 0.1)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        fit(tmp_path, prepare=lambda learner: before(learner, 3, twice))
    assert not isinstance(caught.value, Stopped)
    assert list(tmp_path.iterdir()) == []


def test_more_epochs_go_on_where_the_run_ended(tmp_path, uninterrupted):
    trained(tmp_path, "epochs=2")
    last, _, _ = trained(tmp_path)
    assert equal(last["model"], uninterrupted[0]["model"])
    assert equal(last["progress"], uninterrupted[0]["progress"])


@pytest.mark.parametrize(
    ("number", "checkpoint", "words"),
    [
        (4, "there is no checkpoint yet", []),
        (17, "last.pt", []),
        (17, "best.pt", ["trainer.checkpoint_every=4"]),
    ],
)
def test_a_nan_ends_the_run_and_names_step_term_and_checkpoint(number, checkpoint, words, tmp_path):
    def poison(learner):
        with torch.no_grad():
            next(learner.model.decoder.parameters()).fill_(math.nan)

    with pytest.raises(RunError) as caught:
        fit(tmp_path, *words, prepare=lambda learner: before(learner, number, poison))
    assert f"distortion became NaN or infinite at step {number};" in str(caught.value)
    assert checkpoint in str(caught.value)
    assert "learner.clip_norm=1" in str(caught.value)
    if number > 13:
        checkpoints = Checkpoints(tmp_path)
        weights = [w for name in checkpoints.names() for w in checkpoints.load(name)["model"].values()]
        assert all(w.isfinite().all() for w in weights)
        assert weights


def test_a_nan_just_before_a_stop_is_not_saved(tmp_path):
    def poison(learner):
        with torch.no_grad():
            next(learner.model.encoder.parameters()).fill_(math.nan)
        stop(learner)

    with pytest.raises(RunError, match="distortion and rate became NaN or infinite at step 17;"):
        fit(tmp_path, prepare=lambda learner: before(learner, 17, poison))
    assert Checkpoints(tmp_path).load("last")["progress"]["step"] == 13


@pytest.mark.parametrize(("count", "size"), [(257, 100), (200, 100), (7, 3), (101, 100), (100, 100), (5, 4)])
def test_an_epoch_ends_where_its_last_image_has_been_seen(count, size, tmp_path):
    _, rows, _ = fit(tmp_path, f"batch_size={size}", "epochs=4", num=(count, 0))
    assert [row["step"] for row in rows.of("train")] == [math.ceil(epoch * count / size) for epoch in (1, 2, 3, 4)]
    assert [row["epoch"] for row in rows.of("train")] == [1, 2, 3, 4]


def test_rows_of_steps_and_epochs_are_means(tmp_path):
    seen = []

    def listen(learner):
        step = learner.step

        def hooked(inputs):
            seen.append(step(inputs))
            return seen[-1]

        learner.step = hooked

    _, rows, _ = fit(tmp_path, "epochs=2", prepare=listen)
    losses = [s["loss"].item() for s in seen]
    assert [row["step"] for row in rows.of("train", "step")] == [5, 10, 15, 20, 25]
    assert rows.of("train", "step")[1]["loss"] == pytest.approx(sum(losses[5:10]) / 5)
    assert [row["loss"] for row in rows.of("train")] == pytest.approx([sum(losses[:13]) / 13, sum(losses[13:]) / 13])


@pytest.mark.parametrize("size", [7, 100, 180, 500])
def test_validation_is_a_mean_over_images_though_its_last_batch_is_short(size, tmp_path):
    _, rows, learner = fit(tmp_path, "epochs=1", f"trainer.eval_batch_size={size}")
    valid = small_run(*SETTINGS)[0].split("valid")
    found = rows.of("valid")[-1]
    images = [valid.fetch(torch.tensor([i])) for i in range(180)]
    for name in ("elbo", "loss", "rate"):
        each = [learner.evaluate(image, i, STEPS[0])[name].item() for i, image in enumerate(images)]
        assert found[name] == pytest.approx(sum(each) / 180, rel=1e-5)


def test_validation_uses_the_moving_average(tmp_path):
    _, rows, learner = fit(tmp_path, "epochs=1")
    batch = small_run(*SETTINGS)[0].split("valid").fetch(torch.arange(180))
    assert rows.of("valid")[-1]["elbo"] == pytest.approx(learner.evaluate(batch, 0, STEPS[0])["elbo"].item(), rel=1e-4)
    learner.evaluated.load_state_dict(learner.model.state_dict())
    assert rows.of("valid")[-1]["elbo"] != pytest.approx(learner.evaluate(batch, 0, STEPS[0])["elbo"].item(), rel=1e-4)


def test_the_best_checkpoint_is_that_of_the_best_validation(tmp_path):
    summary, _, _ = fit(tmp_path, "epochs=5", prepare=lambda learner: scripted(learner, [-9.0, -5.0, -7.0, -6.0, -8.0]))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load("best")["progress"]["step"] == STEPS[1]
    assert checkpoints.load("last")["progress"]["step"] == 63
    assert (summary["best_elbo"], summary["best_epoch"], summary["valid_elbo"]) == (-5.0, 2.0, -8.0)


def test_what_is_monitored_decides_what_is_best(tmp_path):
    def prepare(learner):
        scripted(learner, [-9.0, -5.0, -7.0], [3.0, 2.0, 1.0])

    assert fit(tmp_path / "objective", prepare=prepare)[0]["best_epoch"] == 3
    summary, _, _ = fit(tmp_path / "elbo", "trainer.monitor=elbo", prepare=prepare)
    assert (summary["best_epoch"], summary["best_by"]) == (2, "validation ELBO (beta = 1)")
    summary, _, _ = fit(tmp_path / "loss", "trainer.monitor=loss", prepare=prepare)
    assert (summary["best_epoch"], summary["best_elbo"]) == (3, -7.0)


def test_a_run_without_improvement_ends_early(tmp_path):
    options = ("epochs=9", "trainer.patience=2", "trainer.sample_every=10")
    elbos = [-9.0, -5.0, -7.0, -4.0, -6.0, -6.0]
    summary, rows, _ = fit(tmp_path, *options, prepare=lambda learner: scripted(learner, elbos))
    assert [row["epoch"] for row in rows.of("valid")] == [1, 2, 3, 4, 5, 6]
    assert summary["best_epoch"] == 4
    assert Checkpoints(tmp_path).load("last")["progress"]["step"] == rows.of("train")[-1]["step"]
    assert {name for _, name, _ in rows.grids} == {"final"}


def test_a_run_without_validation_has_its_last_checkpoint_as_its_best(tmp_path):
    summary, rows, _ = fit(tmp_path, num=(300, 0))
    assert set(summary) == {f"train_{name}" for name in ("loss", "elbo", "rate", "distortion", "bits_per_dim")}
    assert rows.of("valid") == []
    assert not (tmp_path / "best.pt").exists()
    assert Checkpoints(tmp_path).load("best")["progress"]["step"] == 9


def test_everything_happens_as_often_as_it_is_told_and_once_at_the_end(tmp_path):
    saved = []

    class Counting(Checkpoints):
        def save(self, names, state):
            saved.extend((name, state["progress"]["step"]) for name in names)
            super().save(names, state)

    cadence = ("trainer.eval_every=2", "trainer.sample_every=3", "trainer.checkpoint_every=4")
    data, learner, trainer = small_run(*SETTINGS, "epochs=5", *cadence, "trainer.checkpoint_seconds=0")
    rows, ends = Rows(), [math.ceil(e * 12.57) for e in range(1, 6)]
    trainer.fit(learner, data, Counting(tmp_path), [rows])
    assert [row["epoch"] for row in rows.of("valid")] == [2, 4, 5]
    assert [step for name, step in saved if name == "last"] == [ends[3], ends[4]]
    assert [p for p in rows.grids if p[0] == "samples"] == [
        ("samples", "epoch-0003", ends[2]),
        ("samples", "final", ends[4]),
    ]


def test_short_epochs_are_not_saved_until_some_seconds_are_over_and_a_nan_loses_none_of_them(tmp_path):
    saved = []

    class Counting(Checkpoints):
        def save(self, names, state):
            saved.append((sorted(names), state["progress"]["step"]))
            super().save(names, state)

    def poison(learner):
        assert saved == [(["best", "last"], STEPS[0])]
        with torch.no_grad():
            next(learner.model.decoder.parameters()).fill_(math.nan)

    data, learner, trainer = small_run(*SETTINGS, "epochs=5", "trainer.checkpoint_seconds=600")
    before(learner, STEPS[2] + 2, poison)
    scripted(learner, [-100.0, -90.0, -95.0])
    with pytest.raises(RunError, match=r"the last good checkpoint is .*last\.pt"):
        trainer.fit(learner, data, Counting(tmp_path), [Rows()])
    assert saved[1:] == [(["best"], STEPS[1]), (["last"], STEPS[2])]
    assert Checkpoints(tmp_path).load("last")["progress"]["step"] == STEPS[2]


def test_two_latents_have_a_manifold_at_the_end(tmp_path):
    _, rows, _ = fit(tmp_path, "epochs=1", "latent_dim=2")
    assert ("samples", "manifold", STEPS[0]) in rows.grids


def test_training_draws_nothing_from_the_global_generator(tmp_path):
    data, learner, trainer = small_run(*SETTINGS)
    state = torch.get_rng_state()
    trainer.fit(learner, data, Checkpoints(tmp_path), [Rows()])
    assert torch.equal(torch.get_rng_state(), state)


def test_training_learns(tmp_path):
    summary, rows, _ = fit(tmp_path, "epochs=8", "lr=5e-3")
    assert rows.of("valid")[-1]["elbo"] > rows.of("valid")[0]["elbo"] + 3
    assert summary["best_elbo"] == max(row["elbo"] for row in rows.of("valid"))
