"""`vae fit-prior`: fits a density to the encodings of a trained model. It can replace the model's prior."""

import logging
import time
from dataclasses import dataclass
from typing import Any

from vae_train.batch import Split
from vae_train.cli.overrides import Job
from vae_train.evaluation.encodings import encode
from vae_train.evaluation.metrics.base import Estimate
from vae_train.evaluation.subject import Noise
from vae_train.runs.build import load_data, open_model
from vae_train.runs.check import checkpoint_errors, run_data_errors
from vae_train.runs.fitted_priors import compare_priors, fit_prior, fitting_error, save_prior
from vae_train.runs.run import Run, write_json
from vae_train.training.checkpoint import CheckpointName
from vae_train.util.errors import ErrorDetail, UsageError, collecting
from vae_train.util.ranges import PositiveInt, Seed
from vae_train.util.runtime import device_errors, resolve_device

log = logging.getLogger("vae_train")


@dataclass
class Settings:
    """The top-level settings of conf/fit_prior.yaml."""

    run: str
    checkpoint: CheckpointName
    batch_size: PositiveInt
    seed: Seed
    device: str
    strict: bool


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a run or a device that does not exist, latents that are not vectors, and impossible settings."""
    run = job.open(settings.run)
    reason = fitting_error(run.config, job.builder)
    errors = [ErrorDetail(f"run={settings.run}", reason)] if reason else []
    with collecting(errors):
        job.builder.build(job.config["prior"])(event_shape=(2,), data_shape=(1, 1, 1))
    errors += device_errors(settings.device) + checkpoint_errors(run, settings.checkpoint)
    return errors + run_data_errors(run, run.config, job.session, job.builder)


def run(settings: Settings, job: Job) -> None:
    """Writes priors/<prior>.pt and priors/<prior>.json of a run."""
    run = job.open(settings.run)
    with run.guard():
        _fit(run, settings, job)


def _fit(run: Run, settings: Settings, job: Job) -> None:
    begin, node, device = time.perf_counter(), job.config["prior"], resolve_device(settings.device)
    name = str(node["_target_"]).split(".")[-2]
    model: Any = open_model(run, device, job.builder, settings.checkpoint)
    data = load_data(run.config, job.session, device, job.builder)
    split: Split = "valid" if data.split("valid") is not None else "test"
    if data.split(split) is None:
        raise UsageError("this run's data has no validation or test images to compare the priors on")
    noises = Noise(settings.seed, "fit", "train"), Noise(settings.seed, "judge", split)
    parts: Any = [(data.split(noise.split), noise) for noise in noises]  # type: ignore[arg-type]
    z, z_held_out = (encode(model, i, noise=n, batch_size=settings.batch_size).z.cpu() for i, n in parts)
    try:
        prior = fit_prior(node, model, z, settings.seed, job.builder)
    except ValueError as error:
        raise UsageError([ErrorDetail(f"prior={name}", str(error))]) from error
    comparison = compare_priors(model, prior, z_held_out)
    save_prior(prior, node, model, run, name)
    report: dict[str, Any] = {key: estimate.to_dict() for key, estimate in comparison.items()}
    report |= {"prior": name, "split": split, "checkpoint": settings.checkpoint, "seed": settings.seed}
    report |= {"num_encodings": len(z), "settings": node.to_dict(), "seconds": round(time.perf_counter() - begin, 2)}
    path = run.priors / f"{name}.json"
    write_json(path, report)
    log.info("%s", _summary(name, split, comparison))
    setting = f"run={run.as_typed} prior={name}"
    log.info("  %s: vae eval %s, vae sample %s", path.with_suffix(".pt"), setting, setting)


def _summary(name: str, split: str, comparison: dict[str, Estimate]) -> str:
    own, fitted, gain = (f"{e.value:.2f} ± {e.se or 0:.2f}" for e in comparison.values())
    advice = "; keep the model's own prior" if comparison["gain"].value < 0 else ""
    return (
        f"{name}: log p(z) of {comparison['gain'].n:,} {split} encodings is {fitted} nats, and {own} nats under the "
        f"model's own prior: a gain of {gain}{advice}"
    )
