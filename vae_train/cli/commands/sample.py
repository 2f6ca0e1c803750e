"""`vae sample`: pictures from the prior of a trained model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig

from vae_train.runs.run import Run
from vae_train.util.errors import ErrorDetail, RunError
from vae_train.util.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vae_train.model.base import LatentVariableModel

log = logging.getLogger("vae_train")

CHUNK = 256


@dataclass
class Settings:
    """The top of conf/sample.yaml."""

    run: str
    checkpoint: Literal["best", "last"]
    prior: str | None
    num: PositiveInt
    temperature: NonNegativeFloat
    mean: bool
    columns: PositiveInt
    singles: bool
    npz: bool
    label: NonNegativeInt | None
    factors: list[NonNegativeInt] | None
    manifold: bool
    seed: Seed
    out: str | None
    device: str
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """A run or a device that is not there."""
    from vae_train.runs.build import checkpoint_errors, device_errors, open_run
    from vae_train.runs.fitted_priors import prior_errors
    from vae_train.util.runtime import prepare

    prepare()
    run, found = open_run(cfg.run, f"run={cfg.run}", cfg.allow)
    if run is None:
        return found
    found = device_errors(cfg.device) + checkpoint_errors(run, cfg.checkpoint) + prior_errors(run, cfg.prior)
    shape = list(run.config.model.get("latent_shape", []))
    if cfg.manifold and shape != [2]:
        found.append(ErrorDetail("manifold=true", f"needs a model with two latents, and this one has {shape}"))
    if cfg.manifold and run.config.model.get("condition"):
        found.append(
            ErrorDetail("manifold=true", "needs a model without a condition: p(x | z, y) is another for every y")
        )
    return found + _condition_errors(cfg, run)


def _condition_errors(cfg: DictConfig, run: Run) -> list[ErrorDetail]:
    """Labels and factors that the run's model does not know."""
    from vae_train.runs.build import stated_facts

    condition = run.config.model.get("condition")
    wanted = {"label": None if cfg.label is None else [cfg.label], "factors": cfg.factors}
    found = []
    for kind, values in wanted.items():
        if values is None:
            continue
        where = f"{kind}={cfg[kind]}"
        if kind != condition:
            was = f"model.condition={condition}" if condition else "no condition: train one with model.condition=label"
            found.append(ErrorDetail(where, f"this run's model has {was}"))
            continue
        sizes = stated_facts(run.config).factor_sizes[: 1 if kind == "label" else None]
        if len(values) != len(sizes):
            found.append(ErrorDetail(where, f"the data has {len(sizes)} factors: give {len(sizes)} values"))
        elif any(value >= size for value, size in zip(values, sizes, strict=True)):
            found.append(ErrorDetail(where, f"must be below {', '.join(map(str, sizes))}"))
    return found


def run(cfg: DictConfig) -> None:
    """Writes a grid and, on request, single pictures and an array."""
    from vae_train.plotting.grid import plot_grid
    from vae_train.plotting.png import write_png
    from vae_train.runs.build import open_model, resolve_device, source, transforms
    from vae_train.runs.fitted_priors import replace_prior
    from vae_train.training.previews import MANIFOLD_SIDE, manifold

    opened, device = Run.open(cfg.run), resolve_device(cfg.device)
    model = open_model(opened, cfg.checkpoint, device, cfg.allow)
    if cfg.prior is not None:
        replace_prior(model, opened, cfg.prior)
    to_pixels = transforms(opened.config).to_pixels
    folder = Path(str(cfg.out)) if cfg.out else opened.folder / "samples"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if cfg.manifold:
            path = folder / "manifold.png"
            plane = to_pixels(manifold(model, device))  # type: ignore[arg-type]
            write_png(path, plot_grid(plane, MANIFOLD_SIDE))
            log.info("%s", path)
            return
        pictures = to_pixels(_pictures(model, cfg, device)).clamp(0, 1)
        name = f"seed{cfg.seed}-t{cfg.temperature:g}" + ("" if cfg.mean else "-pixels") + _condition_name(cfg)
        name += f"-{cfg.prior}" if cfg.prior else ""
        path = folder / f"{name}.png"
        write_png(path, plot_grid(pictures, cfg.columns))
        log.info("%d samples: %s", cfg.num, path)
        if cfg.singles:
            _write_singles(pictures, folder / name)
        if cfg.npz:
            _write_array(pictures, source(opened.config).stated().bounds, folder / f"{name}.npz")
    except OSError as error:
        raise RunError(f"could not write to {folder}: {error.strerror or error}") from error


def _condition_name(cfg: DictConfig) -> str:
    """What a file's name says of the condition."""
    if cfg.label is not None:
        return f"-label{cfg.label}"
    return "" if cfg.factors is None else "-factors" + "-".join(map(str, cfg.factors))


def _pictures(model: LatentVariableModel, cfg: DictConfig, device: torch.device) -> Tensor:
    """(num, C, H, W) as the model sees them."""
    import torch

    from vae_train.rng import Rng

    given = cfg.factors if cfg.label is None else [cfg.label]
    y = None if given is None else torch.tensor([list(given)], device=device)
    parts = []
    with torch.no_grad():
        for number, start in enumerate(range(0, cfg.num, CHUNK)):
            rng = Rng(cfg.seed, "samples", number, device=device)
            count = min(CHUNK, cfg.num - start)
            px = model.sample(count, rng, cfg.temperature, None if y is None else y.expand(count, -1))
            parts.append((px.mean if cfg.mean else px.sample(rng, 1)[0]).cpu())
    return torch.cat(parts)


def _write_singles(pictures: Tensor, folder: Path) -> None:
    from vae_train.plotting.grid import plot_lines
    from vae_train.plotting.png import write_png

    folder.mkdir(exist_ok=True)
    for number, picture in enumerate(pictures):
        drawn = plot_lines(picture[None], 1) if picture.shape[1] == 1 else picture
        write_png(folder / f"{number:05d}.png", drawn)
    log.info("single pictures: %s", folder)


def _write_array(pictures: Tensor, bounds: tuple[float, float] | None, path: Path) -> None:
    """Writes (num, H, W, C) in [0, 1], or on the scale of the data set's own numbers."""
    import numpy as np

    low, high = bounds or (0.0, 1.0)
    images = (low + (high - low) * pictures).permute(0, 2, 3, 1).numpy()
    np.savez_compressed(path, images=images)
    log.info("array %s: %s", images.shape, path)
