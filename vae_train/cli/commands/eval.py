"""`vae eval`: how good a trained model is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from vae_train.runs.run import Run, runs_named
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Seed

if TYPE_CHECKING:
    import torch

    from vae_train.batch import Images
    from vae_train.data.dataset import Dataset

log = logging.getLogger("vae_train")

Figures = dict[str, Any]


@dataclass
class Settings:
    """The top of conf/eval.yaml."""

    run: str
    checkpoint: Literal["best", "last"]
    prior: Literal["gmm", "kde", "flow"] | None
    split: Literal["train", "valid", "test"]
    num_samples: PositiveInt
    k: Literal["auto"] | NonNegativeInt
    minutes: PositiveFloat
    latents: bool
    images: bool
    inception: str | None
    against: str | None
    batch_size: PositiveInt
    seed: Seed
    device: str
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """A run, a split or a device that is not there."""
    from vae_train.runs.build import device_errors
    from vae_train.util.runtime import prepare

    prepare()
    try:
        names = runs_named(cfg.run)
    except UsageError as error:
        return [ErrorDetail(f"run={cfg.run}", str(error))]
    found = device_errors(cfg.device) + _weights_errors(cfg)
    for name in names:
        found += _run_errors(str(name), cfg)
    return found


def _weights_errors(cfg: DictConfig) -> list[ErrorDetail]:
    """A file of weights that is not there, or holds something else."""
    if not cfg.images or cfg.inception is None:
        return []
    from vae_train.evaluation.features import InceptionFeatures

    try:
        InceptionFeatures(cfg.inception)
    except UsageError as error:
        return [ErrorDetail(f"inception={cfg.inception}", str(error))]
    return []


def _run_errors(name: str, cfg: DictConfig) -> list[ErrorDetail]:
    from vae_train.runs.build import checkpoint_errors, data_errors, loaded, open_run
    from vae_train.runs.priors import prior_errors

    run, found = open_run(name, f"run={name}", cfg.allow)
    if run is None:
        return found
    found = checkpoint_errors(run, cfg.checkpoint) + prior_errors(run, cfg.prior) + data_errors(run.config)
    if not found and loaded(run.config).split(cfg.split) is None:
        found.append(ErrorDetail(f"split={cfg.split}", "this run's data has no such split"))
    if not found and cfg.against:
        try:
            against(cfg.against, run.config, loaded(run.config))
        except UsageError as error:
            found.append(ErrorDetail(f"against={cfg.against}", "; ".join(m.message for m in error.errors)))
    return found


def against(name: str, config: DictConfig, data: Dataset, device: torch.device | str = "cpu") -> Images:
    """Images of another data set, made like a run's own: its test images, or all where it has no such split.

    Args:
        name: a data set of `conf/data`, a folder of images or an array file.
        config: the run's configuration.
        data: the run's data.
        device: where the images are used.

    Raises:
        UsageError: there is no such data, or it is unlike the run's.
    """
    from vae_train.runs.build import described
    from vae_train.runs.schema import conf_dir, did_you_mean

    known = sorted({path.stem for path in (conf_dir() / "data").glob("*.yaml")} - {"folder", "arrays"})
    place = Path(name).expanduser()
    kind = name if name in known else "folder" if place.is_dir() else "arrays" if place.is_file() else None
    if kind is None:
        raise UsageError(f"no such data set, folder or file{did_you_mean(name, known)} ({', '.join(known)})")
    node = OmegaConf.load(conf_dir() / "data" / f"{kind}.yaml").data
    settings: dict[str, Any] = {"binarize": config.data.get("binarize", "none")} if "binarize" in node else {}
    if kind == "folder":
        _, height, width = data.shape
        settings |= {"root": name, "size": [height, width], "channels": data.shape[0], "valid": 0, "test": 0}
    if kind == "arrays":
        settings |= {"path": name, "valid": 0, "test": 0}
    way = {part: config[part] for part in ("preprocessing", "loader") if part in config}
    other = described(DictConfig(OmegaConf.merge({"data": node}, {"data": settings}, way))).inspect()
    if (tuple(other.shape), other.levels) != (tuple(data.shape), data.levels):
        raise UsageError(
            f"has images of {tuple(other.shape)} with {other.levels} levels, and this run's have {tuple(data.shape)} "
            f"with {data.levels}"
        )
    other.load(device)
    found = other.split("test") or other.split("train")
    assert found is not None
    return found


def run(cfg: DictConfig) -> float:
    """Writes and prints the figures of every run that is named; returns the `cost` of the best."""
    from vae_train.evaluation.report import comparison, cost

    found = [(str(folder), evaluate(Run.open(str(folder)), cfg)) for folder in runs_named(cfg.run)]
    if len(found) > 1:
        log.info("\n%s", comparison(found))
    return min(cost(figures) for _, figures in found)


def evaluate(run: Run, cfg: DictConfig) -> Figures:
    """Writes eval/<split>.json and eval/<split>.md of one run and prints its figures, which it returns."""
    from vae_train.evaluation import parts
    from vae_train.evaluation.protocol import protocol
    from vae_train.evaluation.report import lines, markdown
    from vae_train.runs.build import loaded, open_model, resolve_device
    from vae_train.runs.priors import replace_prior

    device = resolve_device(cfg.device)
    model = open_model(run, cfg.checkpoint, device, cfg.allow)
    if cfg.prior is not None:
        replace_prior(model, run, cfg.prior)
    folder = run.make_folder("eval")
    data = loaded(run.config, device)
    subject = parts.Subject(model, data, cfg.split, device, cfg.seed, cfg.batch_size, folder, cfg.prior)
    log.info("%s", run.folder)
    parts.bound(subject, cfg.num_samples)
    parts.likelihood(subject, cfg.k, cfg.minutes)
    if cfg.latents:
        found = parts.latents(subject, run.config.get("beta"))
        parts.probes(subject, found)
        parts.disentanglement(subject, found)
        parts.mapped(subject, found, run.folder / "tensorboard")
    if cfg.images:
        parts.fidelity(subject, cfg.inception)
    if cfg.against:
        other = against(cfg.against, run.config, data, device)
        parts.anomaly(subject, other, cfg.against, cfg.num_samples)
    figures = subject.figures | {
        "split": cfg.split,
        "checkpoint": cfg.checkpoint,
        "prior": cfg.prior,
        "seed": cfg.seed,
        "protocol": protocol(data),
        "warning": getattr(getattr(model, "likelihood", None), "warning", None),
        "why": subject.why,
        "pictures": subject.pictures,
    }
    path = run.write_json(f"eval/{subject.name}.json", figures)
    run.write_text(f"eval/{subject.name}.md", markdown(run.folder.name, figures))
    for line in lines(figures):
        log.info("  %s", line)
    log.info("  %s", path)
    return figures
