"""The study of a search: its space, its trials, and what several processes make of them."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.postgres import postgres
from vae_train.runs.search import storage
from vae_train.runs.search.history import read_history
from vae_train.runs.search.metrics import default_metric, direction, is_validated
from vae_train.runs.search.plan import NewSearch, Plan, StoredSearch, read_search, write_search
from vae_train.runs.search.samplers import NSGA2, QMC, TPE, Random
from vae_train.runs.search.space import Choices, Interval, number_text
from vae_train.runs.search.storage import chosen_url, full_url, storage_errors
from vae_train.runs.search.study import LOCKS, SearchStudy, pruner
from vae_train.util.errors import RunError, UsageError
from vae_train.util.locks import is_locked

AXES = (
    Interval("beta", 0.5, 8.0),
    Interval("lr", 1e-4, 1e-2, log=True),
    Interval("latent_dim", 4, 64, whole=True),
    Choices("model", ("mlp", "conv")),
)
RANDOM = Random(None, None)
SEARCHES = [RANDOM, TPE(None, None, startup=3), QMC(None, None), NSGA2(None, None, population=3)]


def plan(search=RANDOM, trials=5, prune="none", metrics=("loss",), axes=AXES, url=None, token="token"):
    stored = StoredSearch(NewSearch((), url), token)
    return Plan("s", stored, axes, metrics, trials, prune, lambda number: search.sampler(0, number))


def cost(values):
    return abs(float(values["beta"]) - 2) + float(values["lr"])


def ask_all(study):
    """Takes and ends trials until there is none; the settings of each."""
    found = {}
    while True:
        with study.next_trial(set()) as trial:
            if trial is None:
                return found
            found[trial.number] = dict(trial.values)
            study.finish(trial, [cost(trial.values)] * len(study.plan.metrics), TrialState.COMPLETE)


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_settings_are_within_their_ends_and_can_be_read(tmp_path, search):
    found = ask_all(SearchStudy(tmp_path, plan(search, trials=12)))
    assert sorted(found) == list(range(12))
    for values in found.values():
        assert 0.5 <= float(values["beta"]) <= 8
        assert 1e-4 <= float(values["lr"]) <= 1e-2
        assert 4 <= int(values["latent_dim"]) <= 64
        assert values["model"] in ("mlp", "conv")
        assert len(values["beta"].replace(".", "").lstrip("0")) <= 4
    assert len({tuple(values.values()) for values in found.values()}) >= 10  # a child may be like its parent
    assert {values["model"] for values in found.values()} == {"mlp", "conv"}


@pytest.mark.parametrize("search", SEARCHES, ids=lambda search: type(search).__name__)
def test_an_interrupted_search_chooses_what_an_undisturbed_one_does(tmp_path, search):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = ask_all(SearchStudy(tmp_path / "whole", plan(search, trials=10)))
    parts = {}
    for trials in (4, 7, 10):
        parts |= ask_all(SearchStudy(tmp_path / "parts", plan(search, trials=trials)))
    assert parts == whole


def test_logarithms_of_a_log_interval_are_uniform(tmp_path):
    axes = (Interval("lr", 1e-6, 1.0, log=True),)
    study = SearchStudy(tmp_path, plan(trials=60, axes=axes))
    values = []
    for _ in range(60):
        with study.next_trial(set()) as trial:
            values.append(float(trial.values["lr"]))
            study.finish(trial, [0.0], TrialState.COMPLETE)
    assert 15 < sum(value < 1e-3 for value in values) < 45  # all but certain; half of them are expected


def test_an_abandoned_trial_is_continued_under_its_number(tmp_path):
    study = SearchStudy(tmp_path, plan(trials=2))
    with study.next_trial(set()) as trial:
        before = (trial.number, trial.values)
        assert not trial.report(1, 5.0)
        assert is_locked(tmp_path / LOCKS / f"trial-{trial.number}")
    again = SearchStudy(tmp_path, plan(trials=2))
    assert not is_locked(tmp_path / LOCKS / "trial-0")
    with again.next_trial(set()) as trial:
        assert (trial.number, trial.values) == before
        trial.report(1, 99.0)  # a resumed run repeats an epoch
        trial.report(2, 4.0)
        assert again.trials()[0].intermediate_values == {1: 5.0, 2: 4.0}
        again.finish(trial, [4.0], TrialState.COMPLETE)
    with again.next_trial(set()) as trial:
        assert trial.number == 1


def test_a_trial_of_another_worker_is_left_alone(tmp_path):
    one, other = (SearchStudy(tmp_path, plan(trials=2)) for _ in range(2))
    with one.next_trial(set()) as first, other.next_trial(set()) as second, one.next_trial(set()) as third:
        assert (first.number, second.number, third) == (0, 1, None)
        assert first.values != second.values


def test_postponed_trials_are_left_alone(tmp_path):
    study = SearchStudy(tmp_path, plan(trials=1))
    with study.next_trial(set()):
        pass
    with study.next_trial({0}) as trial:
        assert trial is None
    with study.next_trial(set()) as trial:
        assert trial.number == 0


def work(folder, name):
    (folder / name).write_text(" ".join(map(str, ask_all(SearchStudy(folder, plan(trials=30))))))


def test_processes_take_no_trial_twice_and_never_too_many(tmp_path):
    fork = multiprocessing.get_context("fork")  # spares the imports
    workers = [fork.Process(target=work, args=(tmp_path, name)) for name in ("one", "other")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    taken = [int(number) for name in ("one", "other") for number in (tmp_path / name).read_text().split()]
    assert sorted(taken) == list(range(30))
    trials = SearchStudy(tmp_path, plan()).trials()
    assert len(trials) == 30
    assert all(trial.state == TrialState.COMPLETE for trial in trials)


HOLDER = """
import sys, time
from optuna.storages.journal import JournalFileOpenLock
JournalFileOpenLock(sys.argv[1]).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.filterwarnings("ignore:The value of `grace_period`")
def test_a_process_that_is_killed_while_it_writes_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "GRACE_S", 1)
    monkeypatch.chdir(tmp_path)
    study = SearchStudy(Path(), plan(trials=1))
    journal = tmp_path / storage.JOURNAL_FILE
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(journal)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    started = time.monotonic()
    assert sorted(ask_all(study)) == [0]
    assert time.monotonic() - started < 60  # without a grace period it would be for ever


def test_a_torn_line_of_the_journal_is_removed(tmp_path):
    ask_all(SearchStudy(tmp_path, plan(trials=2)))
    with (tmp_path / storage.JOURNAL_FILE).open("a") as file:
        file.write('{"op_code":4,"wor')
    assert sorted(ask_all(SearchStudy(tmp_path, plan(trials=3)))) == [2]


def test_a_study_of_another_sweep_is_not_touched(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/studies.db"
    monkeypatch.setenv("VAE_STORAGE", url)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    SearchStudy(tmp_path / "one", plan(url=url, token="one"))
    with pytest.raises(UsageError, match="study s of another sweep"):
        SearchStudy(tmp_path / "two", plan(url=url, token="two"))


def report_runs(study, runs):
    """Trials that report the values of a list each; their states."""
    for values in runs:
        with study.next_trial(set()) as trial:
            is_pruned = any(trial.report(epoch, value) for epoch, value in enumerate(values, 1))
            state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
            study.finish(trial, None if is_pruned else [values[-1]], state)
    return [trial.state.name for trial in study.trials()]


def test_a_trial_below_the_median_is_pruned(tmp_path):
    study = SearchStudy(tmp_path, plan(trials=20, prune="median"))
    good, bad = [[9.0, 5.0, 4.0 + i / 10] for i in range(6)], [[9.0, 8.0, 7.0]]
    assert report_runs(study, good + bad)[-1] == "PRUNED"
    (trial,) = study.trials()[-1:]
    assert trial.intermediate_values == {1: 9.0, 2: 8.0}


def test_a_maximized_metric_is_pruned_the_other_way_round(tmp_path):
    study = SearchStudy(tmp_path, plan(trials=20, prune="median", metrics=("elbo",)))
    assert report_runs(study, [[1.0, 5.0, 6.0]] * 6 + [[1.0, 2.0, 3.0], [1.0, 7.0, 9.0]])[-2:] == ["PRUNED", "COMPLETE"]


def test_successive_halving_keeps_the_best(tmp_path):
    study = SearchStudy(tmp_path, plan(trials=20, prune="halving"))
    runs = [[float(9 - i % 4 - epoch / 10) for epoch in range(16)] for i in range(12)]
    states = report_runs(study, runs)
    assert states.count("PRUNED") >= 3
    assert states[3] == "COMPLETE"


def test_a_search_without_pruning_prunes_nothing(tmp_path):
    study = SearchStudy(tmp_path, plan(trials=20))
    assert set(report_runs(study, [[1.0, 1.0]] * 7 + [[9.0, 9.0]])) == {"COMPLETE"}
    assert type(pruner("none")).__name__ == "NopPruner"


def test_whole_numbers_are_typed_without_a_fraction():
    assert list(map(number_text, (4.0, 0.5, 1e-5, -2.0, 1e20))) == ["4", "0.5", "1e-05", "-2", "1e+20"]


def test_the_metric_decides_the_direction():
    assert [direction(name) for name in ("elbo", "monitored", "nll", "ssim")] == [
        "maximize", "minimize", "minimize", "maximize",
    ]  # fmt: skip
    assert is_validated("distortion")
    assert not is_validated("nll")


def test_trials_of_different_objectives_are_compared_by_the_elbo():
    assert default_metric(["lr", "latent_dim"]) == "monitored"
    assert default_metric(["lr", "beta"]) == "elbo"
    assert default_metric(["objective"]) == "elbo"


def test_a_password_is_never_stored(monkeypatch):
    url = "postgresql://ann:secret@db.example:5432/vae"
    (error,) = storage_errors(url)
    assert "secret" not in str(error)
    assert "VAE_STORAGE" in error.message
    monkeypatch.setenv("VAE_STORAGE", url)
    stored = chosen_url(None)
    assert stored == "postgresql://ann@db.example:5432/vae"
    assert full_url(stored) == "postgresql+psycopg://ann:secret@db.example:5432/vae"
    assert full_url("postgresql://bob@elsewhere/vae") == "postgresql+psycopg://bob@elsewhere/vae"
    monkeypatch.delenv("VAE_STORAGE")
    assert chosen_url(None) is None


def test_a_database_that_cannot_be_reached_is_one_line(monkeypatch):
    (error,) = storage_errors("postgresql://ann@127.0.0.1:1/vae")
    assert error.where == "search.storage=postgresql://ann@127.0.0.1:1/vae"
    assert error.message.startswith("cannot be reached: ")
    assert "\n" not in error.message
    monkeypatch.setenv("VAE_STORAGE", "postgresql://ann:word@127.0.0.1:1/vae")
    (error,) = storage_errors(None, "postgresql://ann@127.0.0.1:1/vae")  # of a search that goes on
    assert error.where == "VAE_STORAGE"
    assert error.message.startswith("cannot be reached: ")
    monkeypatch.delenv("VAE_STORAGE")
    (error,) = storage_errors("nosuch://host/vae")
    assert "nosuch" in error.message


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_that_only_the_sweep_names_is_not_used(tmp_path, monkeypatch, kind):
    url = {"sqlite": f"sqlite:///{tmp_path}/studies.db", "postgresql": "postgresql://ann@127.0.0.1:1/vae"}[kind]
    monkeypatch.delenv("VAE_STORAGE", raising=False)
    (error,) = storage_errors(None, url)
    assert error.where == f"search.storage={url}"
    assert "unless VAE_STORAGE is set to this URL, too" in error.message
    with pytest.raises(UsageError, match="unless VAE_STORAGE"):
        storage.open_storage(tmp_path, url)
    assert list(tmp_path.iterdir()) == []
    write_search(tmp_path, NewSearch(("beta=interval(0.5,8)",), url))
    with pytest.raises(UsageError, match="unless VAE_STORAGE"):
        read_history(tmp_path)


def test_a_stored_search_keeps_its_study_when_it_goes_on(tmp_path):
    assert read_search(tmp_path) is None
    first = write_search(tmp_path, NewSearch(("beta=interval(0.5,8)", "trials=3"), "postgresql://ann@host/vae", "mine"))
    assert read_search(tmp_path) == first
    second = write_search(tmp_path, NewSearch(("beta=interval(0.5,8)", "trials=9"), None))
    assert read_search(tmp_path) == second
    assert (second.token, second.settings.storage) == (first.token, first.settings.storage)
    assert second.settings.overrides[1] == "trials=9"
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        read_search(tmp_path)


@pytest.mark.slow
def test_a_study_in_postgresql_is_shared_without_its_password_being_stored(tmp_path, monkeypatch):
    with postgres() as url:
        monkeypatch.setenv("VAE_STORAGE", url)
        assert storage_errors(None) == []
        stored = chosen_url(None)
        assert "word" not in stored
        one, other = (SearchStudy(tmp_path, plan(url=stored, trials=3)) for _ in range(2))
        with one.next_trial(set()) as first, other.next_trial(set()) as second:
            assert (first.number, second.number) == (0, 1)
            first.report(1, 2.0)
            one.finish(first, [1.0], TrialState.COMPLETE)
        with one.next_trial(set()) as trial:
            assert (trial.number, trial.values) == (1, second.values)
        monkeypatch.setenv("VAE_STORAGE", url.replace("word", "w"))
        (error,) = storage_errors(None)
        assert error.where == "VAE_STORAGE"
        assert "password authentication failed" in error.message
        assert "word/" not in error.message
