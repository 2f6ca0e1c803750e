"""Reads the results of every job of a sweep from the folders of its runs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vae_train.runs.config import Config, weight_of_rate
from vae_train.runs.run import read_json
from vae_train.runs.schema import yaml_text
from vae_train.runs.sweep_file import NEUTRAL, SweepJob, swept
from vae_train.util.errors import UsageError
from vae_train.util.numbers import finite

HEADLINE = ("elbo", "rate", "distortion", "bits_per_dim")
"""Metrics of the best epoch, or of training without a validation."""

LATENT_COUNTS = ("active_units", "codes_used")
"""Measured at the end of a training, or by `vae eval`."""

EVALUATED = ("valid", "test", "train")
"""Splits by descending preference for counts that only an evaluation has."""

SEED = "seed"

MISSING = "–"


class Conditions(NamedTuple):
    """What decides whether values of two runs can be compared; None if it is unknown."""

    objective: str | None = None
    beta: float | None = None
    likelihood: str | None = None
    data: str | None = None
    """Checksum of the data."""


class JobResult(NamedTuple):
    """What a job of a sweep has found so far."""

    number: int
    job: SweepJob
    folder: Path
    status: str
    error: str
    settings: Mapping[str, str]
    """The settings in which jobs differ, the seed included."""
    point: str
    """The same for jobs that only differ in their seed."""
    split: str
    """The images of the headline's metrics: "valid", or "train" without a validation; empty without metrics."""
    best_epoch: int | None
    best_by: str
    values: Mapping[str, float]
    """Metrics of training by name, and those of evaluations with the file as prefix, for instance "test.nll"."""
    errors: Mapping[str, float]
    """Standard errors over images, of metrics of evaluations."""
    conditions: Conditions

    @property
    def is_done(self) -> bool:
        """Whether its training has ended as planned."""
        return self.status == "done"


def read_results(sweep: Path, jobs: Sequence[SweepJob], failures: Mapping[str, str]) -> list[JobResult]:
    """Reads what all jobs of a sweep have found so far.

    Args:
        sweep: the folder of the sweep.
        jobs: its jobs.
        failures: errors of jobs that have just failed, by the names of their folders.
    """
    varied = swept([job.settings for job in jobs])
    configs = [_config(job, sweep) for job in jobs]
    same = {typed_point(job): _digest(config) for job, config in zip(jobs, configs, strict=True) if config is not None}
    return [
        _result(number, job, sweep, config, varied, same.get(typed_point(job), repr(typed_point(job))), failures)
        for number, (job, config) in enumerate(zip(jobs, configs, strict=True))
    ]


def _result(
    number: int,
    job: SweepJob,
    sweep: Path,
    config: Config | None,
    varied: Sequence[str],
    planned: str,
    failures: Mapping[str, str],
) -> JobResult:
    files, failure = job.files(sweep), failures.get(job.folder)
    summary = read_json(files.summary_file)
    split, values = _training(summary)
    evaluated, errors = _evaluations(files.eval, summary)
    for name in LATENT_COUNTS:
        known = (evaluated.get(f"{split}.{name}") for split in EVALUATED)
        if name not in values and (count := next((c for c in known if c is not None), None)) is not None:
            values[name] = count
    return JobResult(
        number,
        job,
        files.folder,
        "failed" if failure else job.status(sweep),
        failure or str(summary.get("error", "")),
        {key: job.settings.get(key) or _value(config, key) for key in varied},
        planned if config is None else _digest(config),
        split,
        summary["best_epoch"] if isinstance(summary.get("best_epoch"), int) else None,
        str(summary.get("best_by", "")),
        values | evaluated,
        errors,
        _conditions(config, read_json(files.environment_file)),
    )


def _config(job: SweepJob, sweep: Path) -> Config | None:
    """The configuration of a job's run; None before it starts, or if it cannot be read."""
    path = job.files(sweep).config_file
    try:
        return Config.read(path) if path.exists() else None
    except UsageError:
        return None


def _digest(config: Config) -> str:
    """The same for all runs that only differ in their seed."""
    return config.digest((*NEUTRAL, SEED, "data.units"))


def typed_point(job: SweepJob) -> tuple[tuple[str, str], ...]:
    """The typed settings of a job without its seed, sorted; numbers that are equal have the same text."""
    without = (SEED, "sweep", *NEUTRAL)
    return tuple(sorted((key, _plain(text)) for key, text in job.settings.items() if not key.startswith(without)))


def _plain(text: str) -> str:
    try:
        return repr(float(text))
    except ValueError:
        return text


def _value(config: Config | None, key: str) -> str:
    """The value of a setting that was not typed for a job."""
    value = None if config is None else config.at(key, MISSING)
    return MISSING if config is None or isinstance(value, Config) else yaml_text(value)


def _training(summary: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The split of the headline's metrics, and all metrics of a training."""
    numbers = {name: number for name, value in summary.items() if (number := finite(value)) is not None}
    split = "valid" if "best_epoch" in numbers else "train" if "train_loss" in numbers else ""
    prefix = "train_" if split == "train" else "best_"
    short = {name: numbers[f"{prefix}{name}"] for name in HEADLINE if f"{prefix}{name}" in numbers}
    rest = {name: value for name, value in numbers.items() if name != "best_epoch" and not name.startswith("best_")}
    return split, short | rest


def _evaluations(folder: Path, summary: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, float]]:
    """Values and standard errors of all evaluations of the finished run, by file and metric."""
    values, errors = dict[str, float](), dict[str, float]()
    for path in sorted(folder.glob("*.json")):
        content = read_json(path)
        if content.get("trained", trained(summary)) != trained(summary):
            continue  # of a training that was not finished, or that went on
        for name, entry in content.items():
            value = finite(entry.get("value")) if isinstance(entry, dict) else None
            if value is not None:
                values[f"{path.stem}.{name}"] = value
                if (error := finite(entry.get("se"))) is not None:
                    errors[f"{path.stem}.{name}"] = error
    return values, errors


def trained(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Identifies the weights of a run's best epoch within its training, for evaluations."""
    return {"status": summary.get("status"), "best_epoch": summary.get("best_epoch")}


def _conditions(config: Config | None, environment: Mapping[str, Any]) -> Conditions:
    if config is None:
        return Conditions()
    data = environment.get("data_checksum")
    targets = (config.at(f"{path}._target_") for path in ("objective", "model.likelihood"))
    objective, likelihood = (None if name is None else str(name) for name in targets)
    return Conditions(objective, finite(weight_of_rate(config)), likelihood, None if data is None else str(data))


def to_entry(result: JobResult) -> dict[str, Any]:
    """The results of a job for sweep.json; the names of the numbers are those of sweep.csv."""
    entry: dict[str, Any] = {"status": result.status, "split": result.split or None}
    entry |= {"best_epoch": result.best_epoch, "best_by": result.best_by or None}
    entry |= {_column(name): value for name, value in result.values.items() if _is_column(name)}
    entry |= {f"{name}_se": error for name, error in result.errors.items()}
    return entry | ({"error": result.error} if result.error else {})


def to_csv(results: Sequence[JobResult]) -> str:
    """A table with a row for every job."""
    names = dict.fromkeys(name for r in results for name in r.values if _is_column(name))
    order = [name for name in (*HEADLINE, *LATENT_COUNTS, "seconds") if name in names or name in ("elbo", "seconds")]
    order += [name for name in names if name not in order]
    scored = {name for result in results for name in result.errors}
    numbers = [column for n in order for column in ([_column(n), f"{n}_se"] if n in scored else [_column(n)])]
    settings = list(results[0].settings)
    text = io.StringIO(newline="")
    columns = ["job", *settings, "status", "split", "best_epoch", "best_by", *numbers, "folder", "error"]
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    for result in results:
        about = {"job": result.number, "folder": str(result.folder), "error": result.error}
        writer.writerow({**to_entry(result), **result.settings, **about})
    return text.getvalue()


def _is_column(name: str) -> bool:
    """Whether a metric is a column: those of the best epoch and of evaluations, not those of the last epoch."""
    return name in (*HEADLINE, *LATENT_COUNTS, "seconds") or "." in name


def _column(name: str) -> str:
    return f"best_{name}" if name in HEADLINE else name
