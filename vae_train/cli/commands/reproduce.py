"""`vae reproduce`: trains a saved configuration again and compares the metrics."""

from dataclasses import dataclass
from pathlib import Path

from vae_train.cli.overrides import Job
from vae_train.runs import reproduce
from vae_train.runs.check import data_errors, execution_errors, open_run
from vae_train.runs.run import Run, folder_errors
from vae_train.util.errors import ErrorDetail
from vae_train.util.ranges import NonNegativeFloat


@dataclass
class Settings:
    """The top of conf/reproduce.yaml."""

    run: str
    tolerance: NonNegativeFloat
    device: str | None
    out: str | None
    allow: str | None


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """A run that does not exist or has no metrics, and whatever would be wrong with it as a new one."""
    run, errors = open_run(settings.run, f"run={settings.run}", job.builder)
    if run is None:
        return errors
    if not run.metrics_file.exists():
        return [ErrorDetail(f"run={settings.run}", f"{run.metrics_file} does not exist; nothing to compare with")]
    config = reproduce.configuration(run, settings.device)
    return execution_errors(config) + folder_errors(settings.out) + data_errors(config, job.session, job.builder)


def run(settings: Settings, job: Job) -> None:
    """Trains again and compares; fails if the last ELBOs differ by more than the tolerance."""
    folder = Path(settings.out) if settings.out else None
    reproduce.reproduce(Run.open(settings.run), settings.device, folder, settings.tolerance, job.session, job.builder)
