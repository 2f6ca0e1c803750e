"""`vae sample`: images from the prior of a trained model."""

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Factor
from vae_train.cli.overrides import Job
from vae_train.cli.schema import no_effect
from vae_train.plotting.grid import as_strips, channels_note, plot_grid, plot_lines
from vae_train.plotting.png import write_png
from vae_train.plotting.sheet import plane_sheet, render
from vae_train.runs.build import Builder, run_facts
from vae_train.runs.check import checkpoint_errors
from vae_train.runs.fitted_priors import prior_errors, replace_prior
from vae_train.runs.run import Run
from vae_train.runs.schema import yaml_text
from vae_train.runs.trained import TrainedModel
from vae_train.training.checkpoint import CheckpointName
from vae_train.training.previews import MANIFOLD_LIMIT, MANIFOLD_SIDE, manifold
from vae_train.util.errors import ErrorDetail, RunError, UsageError, collecting
from vae_train.util.files import replacing
from vae_train.util.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed
from vae_train.util.runtime import device_errors, memory_shortage, resolve_device

log = logging.getLogger("vae_train")

MAX_NAMES = 20
"""Number of class names in a message."""

UNUSED_BY_MANIFOLD = ("num", "temperature", "use_mean", "columns", "save_each", "npz", "prior", "seed")


@dataclass
class Settings:
    """The top-level settings of conf/sample.yaml."""

    run: str
    checkpoint: CheckpointName
    prior: str | None
    num: PositiveInt
    temperature: NonNegativeFloat
    use_mean: bool
    columns: PositiveInt
    save_each: bool
    npz: bool
    label: NonNegativeInt | str | None
    factors: list[NonNegativeInt] | None
    manifold: bool
    seed: Seed
    out: str | None
    device: str
    strict: bool

    @property
    def stem(self) -> str:
        """Name of the files, without a suffix."""
        name = f"seed{self.seed}-t{self.temperature:g}" + ("" if self.use_mean else "-pixels")
        if self.label is not None:
            name += f"-label{self.label}"
        elif self.factors is not None:
            name += "-factors" + "-".join(map(str, self.factors))
        return name + (f"-{self.prior}" if self.prior else "")


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a missing run, checkpoint, prior or device, and conditions that do not fit the model."""
    run = job.open(settings.run)
    errors = device_errors(settings.device) + checkpoint_errors(run, settings.checkpoint)
    errors += prior_errors(run, settings.prior)
    shape = list(run.config.at("model.latent_shape", ()))
    if settings.manifold and shape != [2]:
        errors.append(ErrorDetail("manifold=true", f"needs a model with two latents; this model's latents are {shape}"))
    if settings.manifold and run.config.at("model.condition"):
        errors.append(ErrorDetail("manifold=true", "needs a model without a condition: p(x | z, y) depends on y"))
    if settings.manifold:
        errors += no_effect(job.overrides, UNUSED_BY_MANIFOLD, "with manifold=true")
    with collecting(errors):
        _condition(settings, run, job.builder)
        needed = settings.num * math.prod(run_facts(run, job.builder).data_shape) * 4  # float32
        if not settings.manifold and (shortage := memory_shortage(needed)):
            errors.append(ErrorDetail(f"num={settings.num}", shortage))
    return errors


def _condition(settings: Settings, run: Run, builder: Builder) -> list[int] | None:
    """The label or the factors to condition on, as numbers; None if none are given.

    Raises:
        UsageError: the run's model or its data does not have them.
    """
    kind, value = ("factors", settings.factors) if settings.label is None else ("label", settings.label)
    if value is None:
        return None
    has, where = run.config.at("model.condition"), f"{kind}={yaml_text(value)}"
    if kind != has:
        actual = f"model.condition={has}" if has else "no condition; train one with model.condition=label"
        raise UsageError([ErrorDetail(where, f"this run's model has {actual}")])
    factors = run_facts(run, builder).factors
    values, factors = ([value], factors[:1]) if isinstance(value, int | str) else (value, factors)
    if len(values) != len(factors):
        message = f"has {len(values)} values, but the data has {len(factors)} factors"
        raise UsageError([ErrorDetail(where, message)])
    return [_number(each, factor, where) for each, factor in zip(values, factors, strict=True)]


def _number(value: int | str, factor: Factor, where: str) -> int:
    """The number of a class, which may be given by its name.

    Raises:
        UsageError: there is no such class.
    """
    names = [str(name) for name in factor.values or range(factor.size)]
    if isinstance(value, int) and value < factor.size:
        return value
    if isinstance(value, str) and value in names:
        return names.index(value)
    known = f"0 to {factor.size - 1}" + (f", or {', '.join(names[:MAX_NAMES])}" if factor.values else "")
    raise UsageError([ErrorDetail(where, f"no such class; use {known}")])


def run(settings: Settings, job: Job) -> None:
    """Writes a grid and, on request, single images and an array."""
    run, device = job.open(settings.run), resolve_device(settings.device)
    model = TrainedModel.open(run, settings.checkpoint, device, job.builder)
    if settings.prior is not None:
        replace_prior(model.model, run, settings.prior, job.builder)
    condition, folder = _condition(settings, run, job.builder), Path(settings.out) if settings.out else run.samples
    if note := channels_note(model.facts.data_shape):
        log.info("%s", note)
    try:
        folder.mkdir(parents=settings.out is not None, exist_ok=True)  # a run that was deleted is not created anew
        if settings.manifold:
            path = folder / "manifold.png"
            low, high = [-MANIFOLD_LIMIT] * 2, [MANIFOLD_LIMIT] * 2
            plane = manifold(model.model, low, high, MANIFOLD_SIDE)  # type: ignore[arg-type]
            write_png(path, render(plane_sheet(model.transforms.to_pixels(plane), MANIFOLD_SIDE, low, high)))
            log.info("%s", path)
            return
        y = None if condition is None else torch.tensor([condition] * settings.num)
        images = model.sample(settings.num, settings.temperature, y, settings.seed, settings.use_mean)
        path, pixels = folder / f"{settings.stem}.png", model.to_pixels(images)
        write_png(path, plot_grid(pixels, settings.columns))
        log.info("%d samples: %s", settings.num, path)
        if settings.save_each:
            _write_each(pixels, folder / settings.stem)
        if settings.npz:
            # In the units and layout of an array file; (num, H, W, C) for images.
            array = (images.permute(0, 2, 3, 1) if model.facts.layout is None else images).numpy()
            path = path.with_suffix(".npz")
            with replacing(path) as file:
                np.savez_compressed(file, images=array)
            log.info("array %s: %s", array.shape, path)
    except OSError as error:
        raise RunError(f"could not write to {folder}: {error.strerror or error}") from error


def _write_each(images: Tensor, folder: Path) -> None:
    """Writes every image as a PNG; signals and vectors as plots."""
    if folder.is_symlink():
        raise RunError(f"{folder} is a symbolic link, and vae does not write through links; remove it")
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images.split(1)):
        plot = plot_lines(image, 1) if image.shape[2] == 1 else as_strips(image)[0]
        write_png(folder / f"{number:05d}.png", plot)
    log.info("single images: %s", folder)
