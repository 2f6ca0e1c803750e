"""`vae data`: what a data set contains."""

from dataclasses import dataclass
from pathlib import Path

import torch

from vae_train.cli.overrides import Job
from vae_train.runs.build import load_data
from vae_train.runs.check import data_errors
from vae_train.runs.data_report import report
from vae_train.runs.run import OUTPUTS, folder_errors
from vae_train.util.errors import ErrorDetail
from vae_train.util.ranges import PositiveInt


@dataclass
class Settings:
    """The top of conf/data.yaml."""

    num: PositiveInt
    images: PositiveInt
    out: str | None
    allow: str | None


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Data that is missing or cannot be preprocessed as configured, and a folder that cannot be written."""
    return folder_errors(settings.out) + data_errors(job.config, job.session, job.builder)


def run(settings: Settings, job: Job) -> None:
    """Prints sizes and statistics, and writes plots of the training split."""
    name = job.choices["data"]
    data = load_data(job.config, job.session, torch.device("cpu"), job.builder)
    report(data, name, Path(settings.out) if settings.out else OUTPUTS / "data" / name, settings.num, settings.images)
