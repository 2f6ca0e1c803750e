"""A worker of a search, with runs that take no time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs.test_search import AXES, plan
from vae_train.runs.search.history import read_history, read_importances, summary
from vae_train.runs.search.loop import Tools, TrialLoop
from vae_train.runs.search.plan import NewSearch, write_search
from vae_train.runs.search.space import Choices
from vae_train.runs.search.study import SearchStudy
from vae_train.runs.sweep_file import SweepJob
from vae_train.util.errors import UsageError

EPOCHS = 4


class Sweep:
    """Runs whose loss after every epoch is a function of settings and seed."""

    def __init__(self, folder: Path, loss, busy=()):
        self.folder, self.loss, self.busy = folder, loss, busy
        self.trained, self.evaluated = [], []

    def tools(self) -> Tools:
        return Tools(self.add, self.train, self.evaluate)

    def add(self, values, seed):
        texts = (*(f"{key}={value}" for key, value in values.items()), f"seed={seed}")
        return SweepJob("-".join(texts), "-".join(texts), texts, texts)

    def train(self, job, report):
        if job.folder in self.busy:
            return False
        self.trained.append(job.folder)
        files = job.files(self.folder)
        files.folder.mkdir(exist_ok=True)
        rows, is_pruned = [], False
        for epoch in range(1, EPOCHS + 1):
            loss = self.loss(job.settings, epoch)
            if loss is None:
                files.summary_file.write_text(json.dumps({"status": "failed", "error": "NaN in loss"}))
                return True
            rows.append({"step": epoch, "epoch": epoch, "split": "valid", "scope": "epoch", "loss": loss, "rate": 7.0})
            is_pruned = report is not None and report(epoch, rows[-1])
            if is_pruned:
                break
        files.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        status = "pruned" if is_pruned else "done"
        files.summary_file.write_text(json.dumps({"status": status, "best_epoch": rows[-1]["epoch"]}))
        return True

    def evaluate(self, folder, outputs):
        self.evaluated.append(folder.name)
        return dict.fromkeys(outputs, 3.0)


def search(folder: Path, sweep: Sweep, seeds=1, **changes):
    stored = write_search(folder, NewSearch((), None))
    chosen = plan(**changes)._replace(name=folder.name, search=stored)
    TrialLoop(folder, SearchStudy(folder, chosen), chosen.metrics, seeds, sweep.tools()).run()
    return read_history(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "s").mkdir()
    return tmp_path / "s"


def test_the_study_sees_the_mean_over_the_seeds(folder: Path) -> None:
    sweep = Sweep(folder, lambda settings, epoch: float(settings["beta"]) + float(settings["seed"]))
    history = search(folder, sweep, seeds=3, trials=4)
    assert len(sweep.trained) == 12
    for trial in history.trials:
        assert trial.values == pytest.approx([trial.settings["beta"] + 1])
        assert [name[-1] for name in trial.runs] == ["0", "1", "2"]
        assert trial.validations == dict.fromkeys(range(1, EPOCHS + 1), trial.settings["beta"])  # the first seed
    best = min(history.trials, key=lambda trial: trial.values)
    assert history.best == [best.number]
    assert summary(history)[0] == "4 trials: 4 complete"
    assert f"best: trial {best.number}, loss " in summary(history)[1]
    assert set(read_importances(folder)) == {axis.key for axis in AXES}


def test_other_seeds_of_a_pruned_trial_are_not_trained(folder: Path) -> None:
    axes = (Choices("choice", tuple(map(str, range(99)))),)
    sweep = Sweep(folder, lambda settings, epoch: float(settings["seed"]))
    search(folder, sweep, seeds=2, axes=axes, trials=6, prune="median")
    sweep = Sweep(folder, lambda settings, epoch: 99.0)
    history = search(folder, sweep, seeds=2, axes=axes, trials=7, prune="median")
    assert [trial.state for trial in history.trials] == ["complete"] * 6 + ["pruned"]
    assert history.trials[-1].values == ()
    assert history.trials[-1].validations == {1: 99.0}
    assert [name[-1] for name in sweep.trained] == ["0"]
    assert summary(history)[0] == "7 trials: 6 complete, 1 pruned"


def test_a_trial_with_a_failed_run_has_failed(folder: Path) -> None:
    sweep = Sweep(folder, lambda settings, epoch: None if settings["model"] == "conv" and epoch == 2 else 1.0)
    history = search(folder, sweep, trials=6)
    states = {trial.settings["model"]: trial.state for trial in history.trials}
    assert states == {"mlp": "complete", "conv": "fail"}
    assert {trial.error for trial in history.trials if trial.state == "fail"} == {"NaN in loss"}


def test_settings_that_do_not_work_together_fail_and_others_go_on(folder: Path) -> None:
    sweep = Sweep(folder, lambda settings, epoch: 1.0)
    add = sweep.add

    def refuse(values, seed):
        if values["model"] == "conv":
            raise UsageError("too small an image")
        return add(values, seed)

    sweep.add = refuse
    history = search(folder, sweep, trials=6)
    assert {trial.error for trial in history.trials if trial.settings["model"] == "conv"} == {"too small an image"}
    assert all(trial.state == "complete" for trial in history.trials if trial.settings["model"] == "mlp")


def test_an_interrupted_trial_trains_what_is_left_of_it(folder: Path) -> None:
    sweep = Sweep(folder, lambda settings, epoch: float(settings["seed"]))

    def interrupt(job, report):
        if job.settings["seed"] == "1":
            raise KeyboardInterrupt
        return sweep.train(job, report)

    chosen = plan(trials=1)._replace(name="s", search=write_search(folder, NewSearch((), None)))
    loop = TrialLoop(folder, SearchStudy(folder, chosen), ["loss"], 2, sweep.tools()._replace(train=interrupt))
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    assert [trial.state for trial in read_history(folder).trials] == ["running"]
    history = search(folder, sweep, seeds=2, trials=1)
    assert [name[-1] for name in sweep.trained] == ["0", "1"]
    assert history.trials[0].values == [0.5]


def test_metrics_of_an_evaluation_decide(folder: Path) -> None:
    sweep = Sweep(folder, lambda settings, epoch: float(epoch))
    history = search(folder, sweep, trials=3, metrics=("nll", "rate", "ssim"))
    assert len(sweep.evaluated) == 3
    assert history.trials[0].values == [3.0, 7.0, 3.0]
    assert history.directions == ["minimize", "minimize", "maximize"]
    assert read_importances(folder) == {}
    assert summary(history)[1].startswith("not dominated: trial 0, nll 3, rate 7, ssim 3, with ")


def test_equal_settings_are_trained_once(folder: Path) -> None:
    sweep = Sweep(folder, lambda settings, epoch: 1.0)
    history = search(folder, sweep, trials=6, axes=(Choices("model", ("mlp", "conv")),))
    assert len(sweep.trained) == 2
    assert [trial.state for trial in history.trials] == ["complete"] * 6


def test_equal_settings_wait_for_the_worker_that_trains_them(folder: Path, monkeypatch) -> None:
    sweep = Sweep(folder, lambda settings, epoch: 1.0)
    axes, waited = (Choices("model", ("mlp",)),), []
    chosen = plan(trials=2, axes=axes)._replace(name="s", search=write_search(folder, NewSearch((), None)))
    other = SearchStudy(folder, chosen)
    taken = other.next_trial(set())
    trial = taken.__enter__()
    trial.note("runs", ["model=mlp-seed=0"])

    def end(seconds):
        waited.append(seconds)
        sweep.train(sweep.add(trial.values, 0), None)
        other.finish(trial, [1.0], other.trials()[0].state.COMPLETE)
        taken.__exit__(None, None, None)

    monkeypatch.setattr("vae_train.runs.search.loop.time.sleep", end)
    history = search(folder, sweep, trials=2, axes=axes)
    assert len(waited) == 1
    assert [trial.state for trial in history.trials] == ["complete"] * 2
    assert len(sweep.trained) == 1


def test_a_run_that_another_process_trains_is_left_to_it(folder: Path, monkeypatch) -> None:
    sweep = Sweep(folder, lambda settings, epoch: 1.0, busy=["model=mlp-seed=0"])
    monkeypatch.setattr("vae_train.runs.search.loop.time.sleep", lambda _: sweep.busy.clear())
    sweep.busy = ["model=mlp-seed=0"]
    history = search(folder, sweep, trials=1, axes=(Choices("model", ("mlp",)),))
    assert [trial.state for trial in history.trials] == ["complete"]
