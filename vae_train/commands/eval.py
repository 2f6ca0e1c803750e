"""`vae eval`: how good a trained model is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig

from vae_train.errors import Mistake, UsageError
from vae_train.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Seed
from vae_train.run import Run, runs_named

log = logging.getLogger("vae_train")

Figures = dict[str, Any]


@dataclass
class Settings:
    """The top of conf/eval.yaml."""

    run: str
    checkpoint: Literal["best", "last"]
    split: Literal["train", "valid", "test"]
    num_samples: PositiveInt
    k: Literal["auto"] | NonNegativeInt
    minutes: PositiveFloat
    latents: bool
    batch_size: PositiveInt
    seed: Seed
    device: str
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[Mistake]:
    """A run, a split or a device that is not there."""
    from vae_train.assembly import device_mistakes
    from vae_train.hardware import prepare

    prepare()
    try:
        names = runs_named(cfg.run)
    except UsageError as error:
        return [Mistake(f"run={cfg.run}", str(error))]
    found = device_mistakes(cfg.device)
    for name in names:
        found += _run_mistakes(str(name), cfg)
    return found


def _run_mistakes(name: str, cfg: DictConfig) -> list[Mistake]:
    from vae_train.assembly import checkpoint_mistakes, data_mistakes, loaded, open_run

    run, found = open_run(name, f"run={name}", cfg.allow)
    if run is None:
        return found
    found = checkpoint_mistakes(run) + data_mistakes(run.config)
    if not found and loaded(run.config).split(cfg.split) is None:
        found.append(Mistake(f"split={cfg.split}", "this run's data has no such split"))
    return found


def run(cfg: DictConfig) -> float:
    """Writes and prints the figures of every run that is named; returns -ELBO of the best."""
    from vae_train.evaluation.report import comparison

    found = [(str(folder), evaluate(Run.open(str(folder)), cfg)) for folder in runs_named(cfg.run)]
    if len(found) > 1:
        log.info("\n%s", comparison(found))
    return min(-figures["elbo"]["value"] for _, figures in found)


def evaluate(run: Run, cfg: DictConfig) -> Figures:
    """Writes eval/<split>.json and eval/<split>.md of one run and prints its figures, which it returns."""
    from vae_train.assembly import loaded, open_model, resolve_device
    from vae_train.evaluation import parts
    from vae_train.evaluation.protocol import protocol
    from vae_train.evaluation.report import lines, markdown

    device = resolve_device(cfg.device)
    model = open_model(run, cfg.checkpoint, device, cfg.allow)
    folder = run.make_folder("eval")
    data = loaded(run.config, device)
    subject = parts.Subject(model, data, cfg.split, device, cfg.seed, cfg.batch_size, folder)
    log.info("%s", run.folder)
    parts.bound(subject, cfg.num_samples)
    parts.likelihood(subject, cfg.k, cfg.minutes)
    if cfg.latents:
        parts.latents(subject, run.config.get("beta"))
    figures = subject.figures | {
        "split": cfg.split,
        "checkpoint": cfg.checkpoint,
        "seed": cfg.seed,
        "protocol": protocol(data),
        "warning": getattr(getattr(model, "likelihood", None), "warning", None),
        "why": subject.why,
        "pictures": subject.pictures,
    }
    path = run.write_json(f"eval/{cfg.split}.json", figures)
    run.write_text(f"eval/{cfg.split}.md", markdown(run.folder.name, figures))
    for line in lines(figures):
        log.info("  %s", line)
    log.info("  %s", path)
    return figures
