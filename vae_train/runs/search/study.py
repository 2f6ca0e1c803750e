"""The study of a search: trials that workers take, report on and end. Imports Optuna, so it is imported late."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from vae_train.runs.search.metrics import direction
from vae_train.runs.search.plan import Plan, Prune
from vae_train.runs.search.sampling import TrialSampler
from vae_train.runs.search.space import choose
from vae_train.runs.search.storage import open_storage
from vae_train.util.errors import RunError, UsageError
from vae_train.util.locks import locked, try_lock

log = logging.getLogger("vae_train")

LOCKS = ".locks"
"""The folder of locks in that of a sweep: one for each trial, and one for choosing the next trial."""

RETRY_DELAYS_S = (1.0, 5.0, 25.0)
"""Seconds to wait before each further attempt to store a trial's result in a database that does not answer."""


class StorageError(RunError):
    """A database does not answer. The trial remains unfinished, and is ended when the search goes on."""


class Trial:
    """A trial that this process works on.

    Args:
        trial: Optuna's trial.
        values: its settings, as typed.
        reported: the epochs that were reported before this process took it.
    """

    def __init__(self, trial: optuna.Trial, values: Mapping[str, str], reported: Sequence[int]) -> None:
        self._trial, self.values, self._reported = trial, values, set(reported)

    @property
    def number(self) -> int:
        """The number of the trial; the first is 0."""
        return self._trial.number

    def report(self, epoch: int, value: float) -> bool:
        """Reports the value after an epoch, unless it was reported before; returns whether to prune the trial.

        A resumed run repeats epochs, and gets the answers again that it got before: to go on.
        """
        if epoch in self._reported:
            return False
        self._reported.add(epoch)
        try:
            self._trial.report(value, epoch)
            return self._trial.should_prune()
        except Exception as error:  # the database does not answer; the result matters more than one value
            log.warning("trial %d: epoch %d could not be reported: %s", self.number, epoch, error)
            return False

    def note(self, name: str, value: object) -> None:
        """Stores a fact about the trial, which optuna-dashboard shows as well."""
        self._trial.set_user_attr(name, value)


class SearchStudy:
    """A study that several processes work on.

    Args:
        folder: the folder of its sweep.
        plan: what it consists of.

    Raises:
        UsageError: the storage cannot be used, or has another study of this name.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan
        (folder / LOCKS).mkdir(exist_ok=True)
        with self._choosing():
            self.study = optuna.create_study(
                study_name=plan.name,
                storage=open_storage(folder, plan.search.settings.storage),
                directions=[direction(metric) for metric in plan.metrics],
                sampler=TrialSampler(plan.sampler),
                pruner=pruner(plan.prune),
                load_if_exists=True,
            )
            token = self.study.user_attrs.get("sweep")
            if token is None:
                self.study.set_user_attr("sweep", plan.search.token)
                self.study.set_user_attr("metrics", list(plan.metrics))
            elif token != plan.search.token:
                place = plan.search.settings.storage or folder
                message = f"{place} has a study {plan.name} of another sweep; choose another name"
                raise UsageError(f"sweep={plan.name}: {message}")

    @contextmanager
    def next_trial(self, postponed: set[int]) -> Iterator[Trial | None]:
        """Takes a trial within the block: one that another process left unfinished, or else a new one.

        Args:
            postponed: numbers of unfinished trials to leave alone.

        Yields:
            The trial; None if there is none left to take.
        """
        with ExitStack() as stack:
            with self._choosing():
                trial = self._unfinished(postponed, stack) or self._new(stack)
            yield trial

    def finish(self, trial: Trial, values: Sequence[float] | None, state: TrialState) -> None:
        """Ends a trial, unless another process took it over and has ended it.

        Args:
            trial: the trial.
            values: a value for each metric; None unless it is complete.
            state: complete, pruned or failed.
        """
        results = list(values) if values is not None else None
        for seconds in RETRY_DELAYS_S:
            with suppress(optuna.exceptions.StorageInternalError):
                self.study.tell(trial.number, results, state=state, skip_if_finished=True)
                return
            time.sleep(seconds)
        try:
            self.study.tell(trial.number, results, state=state, skip_if_finished=True)
        except optuna.exceptions.StorageInternalError as error:
            raise StorageError(f"trial {trial.number} could not be stored: {error}") from error

    def trials(self) -> list[FrozenTrial]:
        """All trials so far."""
        return self.study.get_trials(deepcopy=False)

    def _unfinished(self, postponed: set[int], stack: ExitStack) -> Trial | None:
        for frozen in self.trials():
            if frozen.state.is_finished() or frozen.number in postponed or not self._lock(frozen.number, stack):
                continue
            current = self.trials()[frozen.number]  # another process may have ended it just before
            if not current.state.is_finished():
                return self._trial(optuna.Trial(self.study, frozen._trial_id), list(current.intermediate_values))
            stack.close()
        return None

    def _new(self, stack: ExitStack) -> Trial | None:
        if len(self.trials()) >= self.plan.trials:
            return None
        asked = self.study.ask()
        if asked.number >= self.plan.trials:  # on a file system without locks another host was faster
            self.study.tell(asked.number, state=TrialState.FAIL)
            return None
        self._lock(asked.number, stack)
        return self._trial(asked, [])

    def _trial(self, trial: optuna.Trial, reported: Sequence[int]) -> Trial:
        return Trial(trial, choose(self.plan.axes, trial), reported)

    def _lock(self, number: int, stack: ExitStack) -> bool:
        """Locks a trial until `stack` is closed; returns False if another process works on it."""
        if (lock := try_lock(self.folder / LOCKS / f"trial-{number}")) is None:
            return False
        stack.enter_context(lock)
        return True

    @contextmanager
    def _choosing(self) -> Iterator[None]:
        """Only one process chooses at a time, so that there are never too many trials and none is taken twice."""
        with locked(self.folder / LOCKS / "study", wait=True):
            yield


def pruner(name: Prune) -> BasePruner:
    """The pruner of a search, which sees the number of an epoch as its step."""
    if name == "none":
        return NopPruner()
    return MedianPruner() if name == "median" else SuccessiveHalvingPruner()
