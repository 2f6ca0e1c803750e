"""`vae eval`: how good a trained model is."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from omegaconf import DictConfig

from vae_train.errors import Mistake
from vae_train.ranges import PositiveInt, Seed
from vae_train.run import Run

log = logging.getLogger("vae_train")


@dataclass
class Settings:
    """The top of conf/eval.yaml."""

    run: str
    checkpoint: Literal["best", "last"]
    split: Literal["train", "valid", "test"]
    num_samples: PositiveInt
    batch_size: PositiveInt
    seed: Seed
    device: str
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[Mistake]:
    """A run, a split or a device that is not there."""
    from vae_train.assembly import checkpoint_mistakes, data_mistakes, device_mistakes, loaded, open_run
    from vae_train.hardware import prepare

    prepare()
    run, found = open_run(cfg.run, f"run={cfg.run}", cfg.allow)
    if run is None:
        return found
    found = device_mistakes(cfg.device) + checkpoint_mistakes(run) + data_mistakes(run.config)
    if not found and loaded(run.config).split(cfg.split) is None:
        found.append(Mistake(f"split={cfg.split}", "this run's data has no such split"))
    return found


def run(cfg: DictConfig) -> float:
    """Writes eval/<split>.json and prints it; returns -ELBO."""
    figures = evaluate(Run.open(cfg.run), cfg)
    return -figures["elbo"]["value"]


def evaluate(run: Run, cfg: DictConfig) -> dict[str, Any]:
    """The figures of one run, see `vae_train.evaluation.evidence`."""
    from vae_train.assembly import loaded, open_model, resolve_device
    from vae_train.evaluation.evidence import evidence

    device = resolve_device(cfg.device)
    model = open_model(run, cfg.checkpoint, device, cfg.allow)
    images = loaded(run.config, device).split(cfg.split)
    assert images is not None
    figures = evidence(
        model, images, seed=cfg.seed, num_samples=cfg.num_samples, batch_size=cfg.batch_size, device=device
    )
    warning = getattr(getattr(model, "likelihood", None), "warning", None)
    about = {"split": cfg.split, "checkpoint": cfg.checkpoint, "seed": cfg.seed, "warning": warning}
    path = run.write_json(f"eval/{cfg.split}.json", figures | about)
    log.info("%s", run.folder)
    log.info("  %s", table(cfg.split, figures))
    if warning:
        log.info("  %s", warning)
    log.info("  beta = 1, %s images, %d draw%s of z per image · %s", f"{figures['images']:,}", cfg.num_samples,
             "s" if cfg.num_samples > 1 else "", path)  # fmt: skip
    return figures


def table(split: str, figures: dict[str, Any]) -> str:
    """One line with every figure."""
    elbo, bits = figures["elbo"], figures["bits_per_dim"]
    spread = "" if math.isnan(elbo["se"]) else f" ± {elbo['se']:.2f}"
    line = f"{split}   ELBO {elbo['value']:.2f}{spread} nats   rate {figures['rate']['value']:.2f}"
    line += f"   distortion {figures['distortion']['value']:.2f}"
    return line if bits is None else f"{line}   {bits['value']:.4f} bits/dim"
