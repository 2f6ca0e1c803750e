"""`vae fit-prior`: fits a density to the encodings of a trained model, which can replace its prior."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from vae_train.runs.run import Run
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import PositiveInt, Seed

if TYPE_CHECKING:
    from vae_train.runs.fitted_priors import PriorComparison

log = logging.getLogger("vae_train")

GROUPS = {"prior": "fitted_prior@prior"}
"""Words that choose among the files of a group of another name. A folder conf/prior would make `prior=` a choice in
`vae eval` and `vae sample` too, where it is the name of a fitted prior."""


@dataclass
class Settings:
    """The top of conf/fit_prior.yaml."""

    run: str
    checkpoint: Literal["best", "last"]
    batch_size: PositiveInt
    seed: Seed
    device: str
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """Reports a run or a device that does not exist, latents that are not vectors, and impossible settings."""
    from vae_train.runs.build import checkpoint_errors, data_errors, device_errors, open_run
    from vae_train.runs.fitted_priors import fitting_error
    from vae_train.runs.schema import allowed, build
    from vae_train.util.runtime import prepare

    prepare()
    run, errors = open_run(cfg.run, f"run={cfg.run}", cfg.allow)
    if run is None:
        return errors
    reason = fitting_error(run.config)
    errors = [ErrorDetail(f"run={cfg.run}", reason)] if reason else []
    try:
        build(cfg.prior, allowed(cfg), event_shape=(2,), data_shape=(1, 1, 1))
    except UsageError as error:
        errors += error.errors
    return errors + device_errors(cfg.device) + checkpoint_errors(run, cfg.checkpoint) + data_errors(run.config)


def run(cfg: DictConfig) -> float:
    """Writes priors/<prior>.pt and priors/<prior>.json of a run; returns the gain in nats."""
    from vae_train.runs.build import loaded, open_model, resolve_device
    from vae_train.runs.fitted_priors import compare_priors, fit_prior, prior_name, sampled_encodings, save_prior
    from vae_train.runs.schema import allowed

    begin, name = time.perf_counter(), prior_name(cfg.prior)
    opened, device = Run.open(cfg.run), resolve_device(cfg.device)
    model: Any = open_model(opened, cfg.checkpoint, device, cfg.allow)
    data = loaded(opened.config, device)
    split: Literal["valid", "test"] = "valid" if data.split("valid") is not None else "test"
    if data.split(split) is None:
        raise UsageError("this run's data has no validation and no test images to compare the priors on")
    options = {"seed": cfg.seed, "device": device, "batch_size": cfg.batch_size}
    z = sampled_encodings(model, data.split("train"), **options)
    try:
        prior = fit_prior(cfg.prior, model, z, cfg.seed, allowed(cfg))
    except ValueError as error:
        raise UsageError([ErrorDetail(f"prior={name}", str(error))]) from error
    comparison = compare_priors(model, prior, sampled_encodings(model, data.split(split), **options))
    save_prior(prior, cfg.prior, model, opened, name)
    report: dict[str, Any] = {key: estimate.to_dict() for key, estimate in comparison._asdict().items()}
    report |= {"prior": name, "split": split, "checkpoint": cfg.checkpoint, "seed": cfg.seed, "num_encodings": len(z)}
    settings = OmegaConf.to_container(cfg.prior, resolve=True)
    report |= {"settings": settings, "seconds": round(time.perf_counter() - begin, 2)}
    path = opened.write_json(f"priors/{name}.json", report)
    log.info("%s", _summary(name, split, comparison))
    log.info("  %s: vae eval run=%s prior=%s, vae sample run=%s prior=%s", path.with_suffix(".pt"), opened.folder,
             name, opened.folder, name)  # fmt: skip
    return comparison.gain.value


def _summary(name: str, split: str, comparison: PriorComparison) -> str:
    own, fitted, gain = (f"{e.value:.2f} ± {e.se or 0:.2f}" for e in comparison)
    return (
        f"{name}: log p(z) of {comparison.gain.n:,} {split} encodings is {fitted} nats, and {own} under the "
        f"model's own prior: a gain of {gain}"
    )
