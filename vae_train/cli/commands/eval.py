"""`vae eval`: evaluates trained models."""

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
    from vae_train.evaluation.suite import Report

log = logging.getLogger("vae_train")

ALL_OF = {"metric": "metrics"}
"""Groups of which every option is composed, with the package that receives them: the command line adds
`+metric@metrics.NAME=NAME` for every file of conf/metric and of a metric folder in --config-dir. No list names them."""


@dataclass
class Settings:
    """The top of conf/eval.yaml."""

    run: str
    checkpoint: Literal["best", "last"]
    prior: str | None
    split: Literal["train", "valid", "test"]
    num_samples: PositiveInt
    k: Literal["auto"] | NonNegativeInt
    minutes: PositiveFloat
    latents: bool
    images: bool
    inception: str | None
    ood: str | None
    batch_size: PositiveInt
    seed: Seed
    device: str
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """Reports a run, a split or a device that does not exist."""
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
    """Reports a file of weights that does not exist, or holds something else."""
    if not cfg.images or cfg.inception is None:
        return []
    from vae_train.evaluation.inception import InceptionFeatures

    try:
        InceptionFeatures(cfg.inception)
    except UsageError as error:
        return [ErrorDetail(f"inception={cfg.inception}", str(error))]
    return []


def _run_errors(name: str, cfg: DictConfig) -> list[ErrorDetail]:
    from vae_train.runs.build import checkpoint_errors, data_errors, loaded, open_run
    from vae_train.runs.fitted_priors import prior_errors

    run, found = open_run(name, f"run={name}", cfg.allow)
    if run is None:
        return found
    found = checkpoint_errors(run, cfg.checkpoint) + prior_errors(run, cfg.prior) + data_errors(run.config)
    if not found and loaded(run.config).split(cfg.split) is None:
        found.append(ErrorDetail(f"split={cfg.split}", "this run's data has no such split"))
    if not found and cfg.ood:
        try:
            ood_images(cfg.ood, run.config, loaded(run.config))
        except UsageError as error:
            found.append(ErrorDetail(f"ood={cfg.ood}", "; ".join(m.message for m in error.errors)))
    return found


def ood_images(name: str, config: DictConfig, data: Dataset, device: torch.device | str = "cpu") -> Images:
    """Opens another data set, made like a run's own: its test images, or all of a data set without that split.

    Args:
        name: a data set of `conf/data`, a folder of images or an array file.
        config: the run's configuration.
        data: the run's data.
        device: where the images are used.

    Raises:
        UsageError: there is no such data, or its images differ from the run's in shape or levels.
    """
    from vae_train.runs.build import loaded, session, source
    from vae_train.runs.schema import conf_dir, did_you_mean

    known = sorted({path.stem for path in (conf_dir() / "data").glob("*.yaml")} - {"folder", "arrays"})
    place = Path(name).expanduser()
    kind = name if name in known else "folder" if place.is_dir() else "arrays" if place.is_file() else None
    if kind is None:
        raise UsageError(f"no such data set, folder or file{did_you_mean(name, known)} ({', '.join(known)})")
    node = OmegaConf.load(conf_dir() / "data" / f"{kind}.yaml").data
    settings: dict[str, Any] = {"binarize": config.data.get("binarize", "none")} if "binarize" in node else {}
    if kind == "folder":
        _, height, width = data.facts.data_shape
        settings |= {"root": name, "size": [height, width], "channels": data.facts.data_shape[0], "valid": 0, "test": 0}
    if kind == "arrays":
        settings |= {"path": name, "valid": 0, "test": 0}
    way = {part: config[part] for part in ("preprocessing", "loader") if part in config}
    merged = DictConfig(OmegaConf.merge({"data": node}, {"data": settings}, way))
    facts, own = session.inspect(source(merged)), data.stored_facts
    if (facts.data_shape, facts.levels) != (own.data_shape, own.levels):
        raise UsageError(
            f"has images of {facts.data_shape} with {facts.levels} levels, and this run's have {own.data_shape} "
            f"with {own.levels}"
        )
    other = loaded(merged, device)
    images = other.split("test") or other.split("train")
    assert images is not None
    return images


def run(cfg: DictConfig) -> float:
    """Evaluates every run that is named, writes and prints the reports; returns the cost of the best."""
    from vae_train.evaluation.report import comparison

    reports = [(str(folder), evaluate_run(Run.open(str(folder)), cfg)) for folder in runs_named(cfg.run)]
    if len(reports) > 1:
        log.info("\n%s", comparison(reports))
    return min(report.cost for _, report in reports)


def evaluate_run(run: Run, cfg: DictConfig) -> Report:
    """Writes eval/<split>.json and eval/<split>.md of one run and prints its report, which it returns."""
    from vae_train.evaluation.report import lines, markdown
    from vae_train.evaluation.subject import Subject
    from vae_train.evaluation.suite import evaluate
    from vae_train.runs.build import loaded, open_model, resolve_device
    from vae_train.runs.fitted_priors import replace_prior
    from vae_train.runs.schema import allowed, build

    device = resolve_device(cfg.device)
    model = open_model(run, cfg.checkpoint, device, cfg.allow)
    if cfg.prior is not None:
        replace_prior(model, run, cfg.prior)
    data = loaded(run.config, device)
    subject = Subject(
        model,
        data,
        cfg.split,
        folder=run.make_folder("eval"),
        device=device,
        seed=cfg.seed,
        batch_size=cfg.batch_size,
        prior=cfg.prior,
        beta=run.config.get("beta"),
        board=run.folder / "tensorboard",
        open_ood=lambda name: ood_images(name, run.config, data, device),
    )
    log.info("%s", run.folder)
    metrics = [build(node, allowed(cfg)) for node in cfg.metrics.values()]
    report = evaluate(subject, metrics, checkpoint=cfg.checkpoint, num_samples=cfg.num_samples)
    path = run.write_json(f"eval/{subject.name}.json", report.to_dict())
    run.write_text(f"eval/{subject.name}.md", markdown(run.folder.name, report))
    for line in lines(report):
        log.info("  %s", line)
    log.info("  %s", path)
    return report
