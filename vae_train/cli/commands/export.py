"""`vae export`: encoder, decoder and weights of a trained model, for other programs."""

import logging
from dataclasses import dataclass

from vae_train.cli.jobs import Job
from vae_train.cli.schema import no_effect
from vae_train.runs.export.export import export
from vae_train.runs.export.options import Format, Options, export_errors
from vae_train.training.checkpoint import CheckpointName
from vae_train.util.errors import ErrorDetail

log = logging.getLogger("vae_train")


@dataclass
class Settings:
    """The top-level settings of conf/export.yaml."""

    run: str
    format: list[Format]
    checkpoint: CheckpointName
    prior: str | None
    license: str | None
    out: str | None
    overwrite: bool
    hub: str | None
    private: bool
    strict: bool

    @property
    def options(self) -> Options:
        """The settings without the run."""
        names = [name for name in Options._fields if name != "formats"]
        return Options(tuple(self.format), **{name: getattr(self, name) for name in names})


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a run, a prior or a package that is missing, and a folder that cannot be written."""
    errors = export_errors(job.open(settings.run), settings.options)
    return errors + (no_effect(job.overrides, ["private"], "without hub=") if settings.hub is None else [])


def run(settings: Settings, job: Job) -> None:
    """Writes the export."""
    opened = job.open(settings.run)
    log.info("%s", opened.folder)
    export(opened, settings.options, job.builder)
