"""`vae fit-prior`: fits a density to the encodings of a trained model. It can replace the model's prior."""

import logging
import math
import re
import shlex
import time
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vae_train.batch import Split
from vae_train.cli.jobs import Job
from vae_train.evaluation.encodings import encode, encode_codes
from vae_train.evaluation.metrics.base import Estimate
from vae_train.evaluation.subject import Noise
from vae_train.model.prior.fitted.base import FittedPrior
from vae_train.runs.build import load_data, open_model
from vae_train.runs.check import checkpoint_errors, run_data_errors
from vae_train.runs.fitted_priors import compare_priors, fit_prior, fitting_error, is_fitted, prior_stamp, save_prior
from vae_train.runs.prior_checkpoint import UnfinishedPrior, unfinished_errors
from vae_train.runs.run import Run, read_json, write_json
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
    refit: bool
    seed: Seed
    device: str
    strict: bool


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a missing run or device, unsuitable latents, impossible settings, and another unfinished training."""
    run, node = job.open(settings.run), job.config["prior"]
    errors, name = list[ErrorDetail](), _name(job)
    with collecting(errors):
        prior = _prior_class(job)
        if reason := fitting_error(run.config, job.builder, prior):
            errors.append(ErrorDetail(f"run={settings.run}", reason))
        sizes = {"num_codes": 2} if prior.over_codes else {}
        job.builder.build(node)(event_shape=(2,), data_shape=(1, 1, 1), **sizes)
        if not settings.refit:
            errors += unfinished_errors(run, name, node, settings.seed)
    errors += device_errors(settings.device) + checkpoint_errors(run, settings.checkpoint)
    return errors + run_data_errors(run, run.config, job.session, job.builder)


def run(settings: Settings, job: Job) -> None:
    """Writes priors/<prior>.pt and priors/<prior>.json of a run."""
    run = job.open(settings.run)
    with run.guard():
        _fit(run, settings, job)


def _fit(run: Run, settings: Settings, job: Job) -> None:
    begin, node, device = time.perf_counter(), job.config["prior"], resolve_device(settings.device)
    name, prior_class = _name(job), _prior_class(job)
    model: Any = open_model(run, device, job.builder, settings.checkpoint)
    path, is_trained = run.priors / f"{name}.json", prior_class.over_codes
    stamp = prior_stamp(node, model, settings.seed)
    if is_trained and not settings.refit and is_fitted(run, name, stamp):
        log.info("already fitted with these settings; refit=true fits it again")
        _log_report(run, name, read_json(path))
        return
    data = load_data(run.config, job.session, device, job.builder)
    split: Split = "valid" if data.split("valid") is not None else "test"
    if data.split(split) is None:
        raise UsageError("this run's data has no validation or test images to compare the priors on")
    noises = Noise(settings.seed, "fit", "train"), Noise(settings.seed, "judge", split)
    parts: Any = [(data.split(noise.split), noise) for noise in noises]  # type: ignore[arg-type]
    z, z_held_out = (_encoded(model, prior_class, i, n, settings.batch_size) for i, n in parts)
    checkpoint = UnfinishedPrior(run, name, stamp, _command(job))
    if settings.refit:
        checkpoint.remove()
    try:
        prior = fit_prior(node, model, z, settings.seed, job.builder, checkpoint if is_trained else None)
    except ValueError as error:
        raise UsageError([ErrorDetail(f"prior={name}", str(error))]) from error
    comparison = compare_priors(model, prior, z_held_out)
    save_prior(prior, run, name, stamp)
    checkpoint.remove()
    report: dict[str, Any] = {key: estimate.to_dict() for key, estimate in comparison.items()}
    report |= {"prior": name, "split": split, "checkpoint": settings.checkpoint, "seed": settings.seed}
    report |= {"num_encodings": len(z), "settings": node.to_dict(), "seconds": round(time.perf_counter() - begin, 2)}
    if is_trained:
        report |= {"codes": prior.size, "num_codes": prior.num_codes, "dims": math.prod(model.data_shape)}
    write_json(path, report)
    _log_report(run, name, report)


def _name(job: Job) -> str:
    """The name of the prior, that of its file."""
    return str(job.config["prior"]["_target_"]).split(".")[-2]


def _prior_class(job: Job) -> Any:
    return job.builder.locate(str(job.config["prior"]["_target_"]))


def _command(job: Job) -> str:
    """The command that continues an interrupted training: as typed, without `refit=true`."""
    typed = [re.sub("^fitted_prior@", "", each) for each in job.overrides if not each.startswith("refit=")]
    return shlex.join(["vae", "fit-prior", *typed])


def _encoded(model: Any, prior: type[FittedPrior], images: Any, noise: Noise, batch_size: int) -> Tensor:
    """Encodes images to vectors `(N, D)`, or to codes for a prior over codes, on the CPU."""
    if prior.over_codes:
        return encode_codes(model, images, noise=noise, batch_size=batch_size)
    return encode(model, images, noise=noise, batch_size=batch_size).z.cpu()


def _log_report(run: Run, name: str, report: dict[str, Any]) -> None:
    """Logs what `vae fit-prior` found, and what to do with the prior; a report that was deleted is left out."""
    summary = [_summary(name, report)] if "own" in report else []
    summary = _summary_of_codes(name, report) if "frequency_table" in report else summary
    setting = f"run={run.as_typed} prior={name}"
    for line in (*summary, f"  {run.priors / name}.pt: vae eval {setting}, vae sample {setting}"):
        log.info("%s", line)


def _summary(name: str, report: dict[str, Any]) -> str:
    own, fitted, gain = (_with_error(Estimate.from_dict(report[key])) for key in ("own", "fitted", "gain"))
    advice = "; keep the model's own prior" if report["gain"]["value"] < 0 else ""
    return (
        f"{name}: log p(z) of {report['gain']['n']:,} {report['split']} encodings is {fitted} nats, and {own} nats "
        f"under the model's own prior: a gain of {gain}{advice}"
    )


def _summary_of_codes(name: str, report: dict[str, Any]) -> list[str]:
    """Cross-entropies per code, beside those of simpler distributions, and what the bound gains."""
    nats = {key: -report[key]["value"] / report["codes"] for key in ("fitted", "own", "frequency_table")}
    nats["uniform"] = math.log(report["num_codes"])
    texts = {key: f"{value:.3f} nats, {value / math.log(2):.3f} bits" for key, value in nats.items()}
    others = [f"{texts['uniform']} for uniform codes", f"{texts['frequency_table']} for a frequency table per position"]
    if abs(nats["own"] - nats["uniform"]) > 1e-6:
        others.insert(1, f"{texts['own']} for the model's own prior")
    gain = Estimate.from_dict(report["gain"])
    bits = gain.value / report["dims"] / math.log(2)
    images = f"{gain.n:,} {report['split']} images"
    advice = "; keep the model's own prior" if gain.value < 0 else ""
    return [
        f"{name}: cross-entropy of the codes of {images} is {texts['fitted']} per code; {', '.join(others)}",
        f"  the rate falls by {_with_error(gain)} nats per image, {bits:.4f} bits/dim{advice}",
    ]


def _with_error(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} ± {estimate.se or 0:.2f}"
