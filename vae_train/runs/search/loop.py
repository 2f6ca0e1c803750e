"""A worker of a search: takes trials, trains their jobs, and tells the study what came of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from vae_train.runs.run import read_json
from vae_train.runs.search.metrics import is_validated, metric_text, validated_value
from vae_train.runs.search.study import SearchStudy, StorageError, Trial
from vae_train.runs.statuses import CLOSED
from vae_train.runs.sweep_file import SweepJob
from vae_train.training.state import ReportValidation
from vae_train.util.errors import RunError, UsageError
from vae_train.util.text import first_line

log = logging.getLogger("vae_train")

WAIT_S = 1.0
"""Seconds between two looks at trials that wait for another worker."""


class Tools(NamedTuple):
    """What a search needs of the sweep that it belongs to."""

    add: Callable[[Mapping[str, str], int], SweepJob]
    """(settings of a trial, which of the seeds) -> its job in the sweep, which may be known."""
    train: Callable[[SweepJob, ReportValidation | None], bool]
    """Trains a job, or resumes it; returns False if another process does. Raises a RunError if it fails."""
    evaluate: Callable[[Path, Sequence[str]], Mapping[str, float]]
    """(folder of a run, metrics) -> their values on the validation split."""


class _PostponedError(Exception):
    """A job of a trial is being trained by another process."""


class TrialLoop:
    """Works on the trials of a search until none is left.

    Args:
        sweep: the folder of the sweep.
        study: its study.
        metrics: the metrics that decide; those of validation are reported while a run trains if there is only one.
        seeds: number of runs of a trial, whose mean counts.
        tools: what trains and evaluates them.
    """

    def __init__(self, sweep: Path, study: SearchStudy, metrics: Sequence[str], seeds: int, tools: Tools) -> None:
        self.sweep, self.study, self.metrics, self.seeds, self.tools = sweep, study, metrics, seeds, tools
        self._seen = set[int]()

    def run(self) -> None:
        """Takes trials and ends them.

        Raises:
            StorageError: the study cannot be reached.
        """
        try:
            self._run()
        except StorageInternalError as error:
            raise StorageError(f"the study of {self.sweep} cannot be reached: {first_line(error)}") from error

    def _run(self) -> None:
        postponed = set[int]()
        while True:
            with self.study.next_trial(postponed) as trial:
                if trial is not None:
                    if self._end(trial):
                        postponed.clear()
                    else:
                        postponed.add(trial.number)
                    continue
            if not postponed:
                return
            time.sleep(WAIT_S)
            postponed.clear()

    def _end(self, trial: Trial) -> bool:
        """Works on a trial and ends it; returns False if it has to wait for another process."""
        settings = " ".join(f"{key}={value}" for key, value in trial.values.items())
        if trial.number not in self._seen:
            log.info("[%d/%d] trial %d: %s", trial.number + 1, self.study.plan.trials, trial.number, settings)
        self._seen.add(trial.number)
        try:
            values = self._values(trial)
        except _PostponedError:
            return False
        except (RunError, UsageError) as error:
            log.error("trial %d failed: %s", trial.number, error)
            trial.note("error", str(error))
            self.study.finish(trial, None, TrialState.FAIL)
            return True
        self.study.finish(trial, values, TrialState.PRUNED if values is None else TrialState.COMPLETE)
        shown = "" if values is None else ", ".join(map(metric_text, self.metrics, values))
        log.info("trial %d: %s", trial.number, shown or "pruned")
        return True

    def _values(self, trial: Trial) -> list[float] | None:
        """The means of the metrics over the seeds of a trial; None if it is pruned.

        Raises:
            RunError: a run failed, or has no such metric.
            UsageError: its settings do not work together.
        """
        results, jobs = list[list[float]](), list[SweepJob]()
        for number in range(self.seeds):
            job = self.tools.add(trial.values, number)
            jobs.append(job)
            trial.note("runs", [each.folder for each in jobs])
            self._train(trial, job, is_first=number == 0)
            status = job.status(self.sweep)
            if status == "pruned":
                return None
            if status != "done":
                raise RunError(str(read_json(job.files(self.sweep).summary_file).get("error", f"its run is {status}")))
            results.append(self._results(job))
        return [fmean(values) for values in zip(*results, strict=True)]

    def _train(self, trial: Trial, job: SweepJob, is_first: bool) -> None:
        """Trains a job that has not ended; pruning looks at the first seed only."""
        if job.status(self.sweep) in CLOSED:
            return
        for other in self.study.trials():  # another trial may have the same settings
            is_earlier = other.number < trial.number and not other.state.is_finished()
            if is_earlier and job.folder in other.user_attrs.get("runs", ()):
                raise _PostponedError
        metric = self.metrics[0]
        is_reported = is_first and len(self.metrics) == 1 and is_validated(metric)

        def report(epoch: int, row: Mapping[str, float]) -> bool:
            return metric in row and trial.report(epoch, row[metric])

        if not self.tools.train(job, report if is_reported else None):
            raise _PostponedError

    def _results(self, job: SweepJob) -> list[float]:
        """The metrics of a run that is done."""
        files = job.files(self.sweep)
        late = [metric for metric in self.metrics if not is_validated(metric)]
        evaluated = self.tools.evaluate(files.folder, late) if late else {}
        return [evaluated[m] if m in evaluated else validated_value(files, m) for m in self.metrics]
