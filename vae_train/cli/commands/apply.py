"""`vae apply`: applies a trained model to images."""

import logging
from dataclasses import dataclass
from typing import Any

from vae_train.cli.jobs import Job
from vae_train.cli.schema import no_effect
from vae_train.runs.apply.apply import MARKER, apply_task, open_inputs
from vae_train.runs.apply.inputs import Request
from vae_train.runs.check import checkpoint_errors, run_data_errors
from vae_train.runs.fitted_priors import prior_errors
from vae_train.runs.labels import condition_errors
from vae_train.runs.schema import yaml_text
from vae_train.runs.trained import TrainedModel
from vae_train.training.checkpoint import CheckpointName
from vae_train.util.errors import ErrorDetail, collecting
from vae_train.util.folders import out_errors
from vae_train.util.ranges import PositiveInt, Seed
from vae_train.util.runtime import device_errors, resolve_device
from vae_train.util.text import counted

log = logging.getLogger("vae_train")


@dataclass
class Settings:
    """The top-level settings of conf/apply.yaml."""

    run: str
    input: str | list[str]
    num: PositiveInt | None
    key: str | None
    label: int | str | None
    factors: list[int | str] | None
    out: str | None
    overwrite: bool
    checkpoint: CheckpointName
    prior: str | None
    batch_size: PositiveInt
    seed: Seed
    device: str
    strict: bool


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a missing run, checkpoint, prior, input or device, and a folder that cannot be written."""
    run, request = job.open(settings.run), _request(settings, job)
    errors = device_errors(settings.device) + checkpoint_errors(run, settings.checkpoint)
    errors += prior_errors(run, settings.prior) + out_errors(settings.out, settings.overwrite, MARKER)
    errors += run.link_errors() if settings.out is None else []
    if request.frames not in (None, "first", "all"):
        errors.append(ErrorDetail(f"data.frames={yaml_text(request.frames)}", "must be first, all or null"))
    with collecting(errors):
        if request.kind == "split":
            errors += run_data_errors(run, run.config, job.session, job.builder)
        if request.kind != "array":
            errors += no_effect(job.overrides, ["key"], f"with input={settings.input}, which is not an array file")
    return errors + condition_errors(run.config.at("model.condition"), label=settings.label, factors=settings.factors)


def run(settings: Settings, job: Job) -> None:
    """Applies the model, and says where the results are."""
    run, device = job.open(settings.run), resolve_device(settings.device)
    task: Any = job.builder.build(job.config["task"])
    model = TrainedModel.open(run, settings.checkpoint, device, job.builder, settings.prior)
    inputs = open_inputs(_request(settings, job), task, run, model, job.builder).first(settings.num)
    options: dict[str, Any] = {name: getattr(settings, name) for name in ("out", "overwrite", "batch_size")}
    folder = apply_task(task, job.choices["task"], run, model, inputs, **options)
    log.info("%s of %s: %s", counted(len(inputs), "result"), job.choices["task"], folder)
    log.info("  %s", "  ".join(f"{path.name}/" if path.is_dir() else path.name for path in sorted(folder.iterdir())))


def _request(settings: Settings, job: Job) -> Request:
    label: Any = settings.factors if settings.label is None else settings.label
    return Request(settings.input, settings.key, label, settings.seed, job.session, job.config.at("data.frames"))
