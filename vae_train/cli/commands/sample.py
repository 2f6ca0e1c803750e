"""`vae sample`: samples and other plots of a trained model."""

import logging
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from vae_train.batch import SPLITS
from vae_train.cli.jobs import Job
from vae_train.cli.schema import no_effect
from vae_train.plotting.grid import channels_note
from vae_train.plotting.png import PlotFormat
from vae_train.runs.check import checkpoint_errors, run_data_errors
from vae_train.runs.config import PLACES, WRITTEN_PLACES
from vae_train.runs.fitted_priors import prior_errors
from vae_train.runs.show.base import Plot, find_plot, plot_names
from vae_train.runs.show.opened import OpenedRun
from vae_train.runs.show.options import Options
from vae_train.runs.show.writing import Writer
from vae_train.util.errors import ErrorDetail, collecting
from vae_train.util.folders import folder_errors
from vae_train.util.runtime import device_errors, resolve_device

log = logging.getLogger("vae_train")

if TYPE_CHECKING:
    ShowName = str
else:
    ShowName = Literal[tuple(plot_names())]
"""The files of `vae_train.runs.show`."""

DATA_SETTINGS = [f"data.{name}" for name in (*PLACES, *WRITTEN_PLACES)]

SAMPLE_SETTINGS = ("npz", "save_each")


@dataclass(kw_only=True)
class Settings(Options):
    """The top-level settings of conf/sample.yaml."""

    run: str
    show: list[ShowName]
    format: list[PlotFormat]
    save_each: bool
    npz: bool
    out: str | None
    overwrite: bool
    device: str
    strict: bool

    @property
    def plots(self) -> list[Plot]:
        """The chosen plots."""
        return [find_plot(name) for name in self.show]


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a missing run, checkpoint, prior or device, and settings that do not fit the model or its data."""
    run = job.open(settings.run)
    opened = OpenedRun(run, settings, job.builder, job.session, torch.device("cpu"))
    errors = device_errors(settings.device) + prior_errors(run, settings.prior) + _unused(settings, job, opened)
    errors += folder_errors(settings.out or str(run.samples), f"out={settings.out}" if settings.out else "run's folder")
    if any(plot.needs_model for plot in settings.plots):
        errors += checkpoint_errors(run, settings.checkpoint)
    with collecting(errors):
        _ = opened.condition
        errors += [error for plot in settings.plots for error in plot.errors(opened)]
    if not errors and any(plot.needs_data(opened) for plot in settings.plots):
        errors += run_data_errors(run, run.config, job.session, job.builder) or _data_errors(settings, opened)
    return errors


def _unused(settings: Settings, job: Job, opened: OpenedRun) -> list[ErrorDetail]:
    """Typed settings that none of the chosen plots reads."""
    plots = settings.plots
    unused = {option.name for option in fields(Options)}.difference(*(plot.reads for plot in plots))
    unused.update(SAMPLE_SETTINGS if not any(plot.has_samples for plot in plots) else ())
    unused.update(["format"] if not any(plot.has_sheet for plot in plots) else ())
    unused.update(DATA_SETTINGS if not any(plot.needs_data(opened) for plot in plots) else ())
    return no_effect(job.overrides, sorted(unused), f"with show={','.join(settings.show)}")


def _data_errors(settings: Settings, opened: OpenedRun) -> list[ErrorDetail]:
    if settings.split is not None and settings.split not in opened.data.splits:
        splits = ", ".join(name for name in SPLITS if name in opened.data.splits)
        return [ErrorDetail(f"split={settings.split}", f"this run's data has no such split; it has {splits}")]
    found = [error for plot in settings.plots if plot.needs_data(opened) for error in plot.data_errors(opened)]
    return list(dict.fromkeys(found))


def run(settings: Settings, job: Job) -> None:
    """Computes the plots and writes their files."""
    run = job.open(settings.run)
    opened = OpenedRun(run, settings, job.builder, job.session, resolve_device(settings.device))
    folder = Path(settings.out) if settings.out else run.samples
    parents = settings.out is not None  # a run that was deleted is not created anew
    writer = Writer(folder, settings.format, settings.overwrite, settings.save_each, settings.npz, parents)
    _ = opened.condition
    shape = opened.facts.data_shape if any(plot.needs_model for plot in settings.plots) else ()
    for note in filter(None, [*opened.notes, channels_note(shape) if shape else None]):
        log.info("%s", note)
    for plot in settings.plots:
        contents = plot(opened)
        paths = writer.write(contents, plot.file_name(opened), opened.trained if contents.samples is not None else None)
        log.info("%s: %s", contents.about, ", ".join(map(str, paths)))
