"""The trials of a search as a report shows them. Optuna is imported late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vae_train.runs.search.metrics import metric_text
from vae_train.runs.search.plan import read_search
from vae_train.runs.search.storage import JOURNAL_FILE, open_storage

if TYPE_CHECKING:
    from optuna.study import Study


class TrialRow(NamedTuple):
    """A trial."""

    number: int
    """The first is 0."""
    state: str
    """running, complete, pruned or fail."""
    settings: Mapping[str, str | float]
    """The settings that the search chose."""
    values: Sequence[float]
    """A value for each metric; empty unless it is complete."""
    validations: Mapping[int, float]
    """Epoch -> what was reported after it."""
    runs: Sequence[str]
    """The names of the folders of its runs, one for each seed."""
    error: str


class History(NamedTuple):
    """The trials of a search."""

    metrics: Sequence[str]
    directions: Sequence[str]
    """minimize or maximize, for each metric."""
    trials: Sequence[TrialRow]
    best: Sequence[int]
    """The number of the best trial, or those of the Pareto front of several metrics; empty if none is complete."""


MIN_TRIALS = 4
"""Complete trials with which the importance of settings is estimated."""


def read_history(sweep: Path) -> History | None:
    """The history of the search of a sweep; None if the sweep has no search, or no trial yet.

    Raises:
        UsageError: its database cannot be reached, or only the sweep names it.
    """
    study = _load(sweep)
    if study is None:
        return None
    trials = [
        TrialRow(
            trial.number,
            trial.state.name.lower(),
            trial.params,
            trial.values if trial.state.name == "COMPLETE" else (),
            trial.intermediate_values,
            trial.user_attrs.get("runs", ()),
            str(trial.user_attrs.get("error", "")),
        )
        for trial in study.get_trials(deepcopy=False)
    ]
    directions = [direction.name.lower() for direction in study.directions]
    best = [trial.number for trial in study.best_trials] if any(trial.values for trial in trials) else []
    return History(study.user_attrs.get("metrics", ()), directions, trials, best)


def read_importances(sweep: Path) -> Mapping[str, float]:
    """How much of the metric's variance each setting of a search explains, largest first.

    It is estimated by fANOVA (Hutter, Hoos & Leyton-Brown, "An efficient approach for assessing hyperparameter
    importance", ICML 2014). Empty with several metrics or few complete trials.
    """
    study = _load(sweep)
    if study is None or len(study.directions) > 1:
        return {}
    if sum(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)) < MIN_TRIALS:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    try:
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except RuntimeError:  # all trials are equally good
        return {}


def _load(sweep: Path) -> Study | None:
    """The study of a sweep; None if there is none yet."""
    search = read_search(sweep)
    if search is None or (search.settings.storage is None and not (sweep / JOURNAL_FILE).exists()):
        return None
    import optuna

    try:
        return optuna.load_study(study_name=sweep.name, storage=open_storage(sweep, search.settings.storage))
    except KeyError:
        return None


def summary(history: History) -> list[str]:
    """How a search ended, in lines."""
    states = [trial.state for trial in history.trials]
    names = {"complete": "complete", "pruned": "pruned", "fail": "failed", "running": "unfinished"}
    counts = ", ".join(f"{states.count(state)} {name}" for state, name in names.items() if state in states)
    lines = [f"{len(states)} trials: {counts}"]
    for number in history.best:
        trial = history.trials[number]
        values = ", ".join(map(metric_text, history.metrics, trial.values))
        settings = " ".join(f"{key}={value}" for key, value in trial.settings.items())
        kind = "best" if len(history.metrics) == 1 else "not dominated"
        lines.append(f"{kind}: trial {number}, {values}, with {settings}")
    return lines
