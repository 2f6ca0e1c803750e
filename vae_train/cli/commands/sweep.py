"""`vae sweep`: the results of a sweep so far."""

import logging
from dataclasses import dataclass

from vae_train.cli.jobs import Job
from vae_train.cli.schema import no_effect
from vae_train.plotting.png import PlotFormat
from vae_train.runs.sweep_file import SWEEP_FILE, SWEEPS, read_jobs
from vae_train.runs.sweep_results.best import Goal
from vae_train.runs.sweep_results.estimate import estimate
from vae_train.runs.sweep_table import named_judge, report
from vae_train.util.errors import ErrorDetail, collecting
from vae_train.util.text import did_you_mean

log = logging.getLogger("vae_train")


@dataclass
class Settings:
    """The top-level settings of conf/sweep.yaml."""

    sweep: str
    metric: str | None
    goal: Goal | None
    format: PlotFormat


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a sweep that does not exist, and a metric that nothing can be judged by."""
    folder, where = SWEEPS / settings.sweep, f"sweep={settings.sweep}"
    known = sorted(path.parent.name for path in SWEEPS.glob(f"*/{SWEEP_FILE}"))
    if settings.sweep not in known:
        name = settings.sweep.rstrip("/").rpartition("/")[2]
        near = f"; did you mean sweep={name}?" if name in known else did_you_mean(settings.sweep, known)
        listed = f" ({', '.join(known)})" if known else f": there is none in {SWEEPS} yet"
        return [ErrorDetail(where, f"no such sweep{near}{listed}")]
    errors = list[ErrorDetail]()
    with collecting(errors, where):
        jobs = read_jobs(folder)
    if not errors and not jobs:
        errors.append(ErrorDetail(where, "has no jobs yet"))
    if errors:
        return errors
    if settings.metric is None:
        return no_effect(job.overrides, ["goal"], "without metric=")
    with collecting(errors, f"metric={settings.metric}"):
        named_judge(folder, jobs, settings.metric, settings.goal)
    return errors


def run(settings: Settings, job: Job) -> None:
    """Prints the table, and writes tables and charts."""
    folder = SWEEPS / settings.sweep
    jobs = read_jobs(folder)
    named = None if settings.metric is None else named_judge(folder, jobs, settings.metric, settings.goal)
    report(folder, jobs, {}, named, settings.format)
    if (expected := estimate(folder, jobs)) is not None:
        log.info("%s: %s", settings.sweep, expected.line)
