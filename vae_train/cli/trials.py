"""Composes and evaluates the jobs of a search's trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from vae_train.cli.commands import eval as eval_command
from vae_train.cli.jobs import Job, StoredJobs
from vae_train.cli.overrides import compose_jobs
from vae_train.cli.parsing import quoted
from vae_train.cli.reader import Composed
from vae_train.cli.searching import eval_outputs, metrics_of
from vae_train.cli.space import is_search
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.saved import untrusted
from vae_train.runs.search.plan import Plan, read_search
from vae_train.runs.search.samplers import Search
from vae_train.runs.sweep_file import SweepJob
from vae_train.util.errors import ErrorDetail, RunError, UsageError


class TrialJobs:
    """The jobs of a search.

    Args:
        first: the first of the combinations that were checked.
        check: the errors of a job.
        entry: the entry of a job in its sweep, and its configuration.
        left_out: settings of the command that are not settings of its jobs.
        is_trusted: whether the settings of the search are those of this command, and not of a file.
    """

    def __init__(
        self,
        first: Job,
        check: Callable[[Job], list[ErrorDetail]],
        entry: Callable[[Job], tuple[SweepJob, Config]],
        left_out: Sequence[str],
        is_trusted: bool = True,
    ) -> None:
        assert first.space is not None
        self.first, self.space, self.check, self.entry = first, first.space, check, entry
        self.left_out, self.is_trusted = left_out, is_trusted
        self._composed: Composed = {}
        self._composed_eval: Composed = {}

    def work(self, sweep: Path) -> dict[str, str]:
        """Works on the trials of the search in a sweep's folder, see `work_on_trials`."""
        from vae_train.runs.search.worker import work_on_trials

        job, stored = self.first, read_search(sweep)
        assert stored is not None
        search: Search = job.builder.build(job.config["search"])
        plan = Plan(
            sweep.name,
            stored,
            self.space.axes,
            metrics_of(job),
            job.settings.trials,
            job.settings.prune,
            partial(search.sampler, job.settings.seed),
        )
        return work_on_trials(sweep, plan, job.settings.seeds, self._compose, self.evaluate, job.session)

    def _compose(self, values: Mapping[str, str], number: int) -> tuple[SweepJob, Config, Builder]:
        job = self.compose(values, number)
        return *self.entry(job), job.builder

    def compose(self, values: Mapping[str, str], number: int) -> Job:
        """The job of a trial.

        Args:
            values: the settings that the search chose, as typed.
            number: which of the seeds; the first is 0.

        Raises:
            UsageError: these settings do not work together.
        """
        settings = self.first.settings
        texts = [*filter(self._is_kept, self.space.fixed), *(f"{key}={value}" for key, value in values.items())]
        if settings.seeds > 1:
            texts = [*(text for text in texts if not text.startswith("seed=")), f"seed={settings.seed + number}"]
        jobs, errors = compose_jobs(
            "train",
            [],
            type(settings),
            stored=StoredJobs([texts], is_alone=True),
            multirun=True,
            config_dir=self.space.config_dir,
            session=self.first.session,
            composed=self._composed,
        )
        if errors:
            raise UsageError(errors)
        (job,) = jobs
        job = job if self.is_trusted else job._replace(config=untrusted(job.config))
        if errors := self.check(job):
            raise UsageError(errors)
        return job

    def _is_kept(self, text: str) -> bool:
        key = text.partition("=")[0]
        return not is_search(key) and key.partition(".")[0] not in self.left_out

    def evaluate(self, folder: Path, outputs: Sequence[str]) -> dict[str, float]:
        """Evaluates a run on the validation split.

        Args:
            folder: the folder of the run.
            outputs: the metrics to compute.

        Raises:
            RunError: a metric has no value for this run.
        """
        job, errors = self._eval_job(folder, outputs)
        if errors := errors or eval_command.check(job.settings, job):
            raise UsageError(errors)
        report = eval_command.evaluate_run(job.open(str(folder)), job.settings, job)
        if missing := next((output for output in outputs if output not in report.estimates), None):
            raise RunError(f"{missing} is not available: {report.unavailable.get(missing, 'it was not computed')}")
        return {output: float(report.estimates[output].value) for output in outputs}

    def _eval_job(self, folder: Path, outputs: Sequence[str]) -> tuple[Job, list[ErrorDetail]]:
        first, allow = self.first, self.first.builder.allow
        metrics = eval_outputs(self.space.config_dir, allow)
        wanted = {metrics[output] for output in outputs}
        typed_keys = {override.partition("=")[0] for override in first.overrides}
        typed = [f"run={quoted(str(folder))}", "split=valid", "latents=false", f"device={first.settings.device}"]
        typed += [f"allow=[{','.join(allow)}]"] if allow else []
        typed += [
            f"{key}={quoted(str(first.config.at(key)))}" for key in ("data.root", "data.path") if key in typed_keys
        ]
        typed += [f"metrics.{name}.enabled={str(name in wanted).lower()}" for name in dict.fromkeys(metrics.values())]
        jobs, errors = compose_jobs(
            "eval",
            typed,
            eval_command.Settings,
            all_of=eval_command.ALL_OF,
            config_dir=self.space.config_dir,
            session=first.session,
            composed=self._composed_eval,
        )
        if not jobs:
            raise UsageError(errors)
        return jobs[0], errors
