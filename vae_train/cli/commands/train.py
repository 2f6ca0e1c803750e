"""`vae train`: trains a model and leaves a run."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vae_train.runs.run import ENVIRONMENT, SUMMARY, Run, environment, write_bad_files
from vae_train.util.errors import ErrorDetail, Stopped
from vae_train.util.ranges import NonNegativeFloat, PositiveFloat, PositiveInt, Seed

if TYPE_CHECKING:
    import torch

    from vae_train.data.dataset import Dataset
    from vae_train.training.learner import Learner
    from vae_train.training.trainer import Trainer

log = logging.getLogger("vae_train")

CHANGEABLE = (
    "epochs",
    "device",
    "threads",
    "execution",
    "allow",
    "trainer.eval_every",
    "trainer.sample_every",
    "trainer.checkpoint_every",
    "trainer.checkpoint_seconds",
    "trainer.log_every",
    "trainer.patience",
    "trainer.eval_batch_size",
)
"""What may be given with resume=: none of it changes what a step computes, but for rounding."""

KNOB = {"knob": True}


@dataclass
class Settings:
    """The top of conf/train.yaml; fields marked KNOB act through the components that read them."""

    latent_dim: PositiveInt = field(metadata=KNOB)
    beta: NonNegativeFloat = field(metadata=KNOB)
    lr: PositiveFloat = field(metadata=KNOB)
    batch_size: PositiveInt = field(metadata=KNOB)
    epochs: PositiveInt = field(metadata=KNOB)
    seed: Seed
    device: str
    precision: Literal["float32", "tf32", "bfloat16"] = field(metadata=KNOB)
    execution: Literal["auto", "eager", "compile", "graph"] = field(metadata=KNOB)
    threads: PositiveInt | None
    name: str | None
    out: str | None
    sweep: str | None
    resume: str | None
    init_from: str | None
    plan: bool
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """What only this command knows to be wrong: combinations, the device, files that are not there."""
    from vae_train.runs.build import data_errors, execution_errors, folder_errors, model_errors
    from vae_train.util.runtime import prepare

    prepare(cfg.threads, cfg.learner.precision)
    if cfg.resume:
        return _resume_errors(cfg, words)
    found = execution_errors(cfg)
    found += folder_errors(cfg)
    found += data_errors(cfg)
    return found + model_errors(cfg)


def run(cfg: DictConfig) -> float:
    """Trains; returns the best validation -ELBO (the training one where there is no validation)."""
    if cfg.plan:
        from vae_train.runs.plan import show

        show(cfg)
        return math.nan
    if cfg.resume:
        return resume(Run.open(cfg.resume), list(HydraConfig.get().overrides.task))
    cfg.name = cfg.name or default_name()
    _, loss = start(cfg, job_folder(cfg))
    return loss


def start(cfg: DictConfig, folder: Path | None) -> tuple[Run, float]:
    """Trains a configuration in a new folder; returns the run and what `run` returns."""
    from vae_train.runs.build import assemble, read_weights, resolve_device

    device = resolve_device(cfg.device)
    cfg = DictConfig(OmegaConf.to_container(cfg, resolve=True))
    cfg.device = str(device)
    data, learner, trainer = assemble(cfg, device)
    cfg.execution = cfg.trainer.execution = trainer.execution
    cfg.data.update(data.resolved)
    if cfg.init_from:
        read_weights(learner.model, Run.open(cfg.init_from))
    created = Run.create(folder, cfg)
    return created, _train(created, data, learner, trainer, None)


def resume(opened: Run, words: Sequence[str]) -> float:
    """Goes on with a run where its furthest checkpoint stands; see `run`."""
    from vae_train.runs.build import assemble, resolve_device
    from vae_train.training.checkpoint import Checkpoints

    cfg = _changed(opened, words)
    device = resolve_device(cfg.device)
    state = Checkpoints(opened.checkpoints).furthest(device)
    data, learner, trainer = assemble(cfg, device)
    cfg.execution = cfg.trainer.execution = trainer.execution
    opened.config = cfg
    opened.save_config()
    return _train(opened, data, learner, trainer, state)


def default_name() -> str:
    """data-model, as they were chosen on the command line."""
    chosen = HydraConfig.get().runtime.choices
    return f"{chosen['data']}-{chosen['model']}"


def job_folder(cfg: DictConfig) -> Path | None:
    """The folder that was asked for: `out=`, or the job's number within the sweep; None for the default."""
    hydra = HydraConfig.get()
    if str(hydra.mode).endswith("MULTIRUN"):
        return Path(hydra.sweep.dir) / str(hydra.job.num)
    return Path(str(cfg.out)) if cfg.out else None


def _train(run: Run, data: Dataset, learner: Learner, trainer: Trainer, state: dict[str, Any] | None) -> float:
    """Trains within an existing folder."""
    from vae_train.plotting.curves import plot_curves
    from vae_train.runs.schema import allowed, build
    from vae_train.training.checkpoint import Checkpoints
    from vae_train.training.loggers.base import Tee
    from vae_train.training.loggers.files import Files, read_metrics

    step = state["progress"]["step"] if state else 0
    started, status = time.perf_counter(), dict[str, Any](status="failed")
    with run.logged():
        _introduce(run, data, learner, trainer.execution)
        _report_bad_files(run, data)
        run.write_json(ENVIRONMENT, _environment(learner.device, data))
        board = build(run.config.logger, folder=run.folder / "tensorboard", step=step, allow=allowed(run.config))
        logger = Tee(Files(run.folder, step), board)
        try:
            figures = trainer.fit(learner, data, Checkpoints(run.checkpoints), logger, state)
            logger.hyperparameters(_hyperparameters(run.config), {f"final/{k}": v for k, v in figures.items()})
            status = {"status": "done", **figures}
        except Stopped as stopped:
            status = {"status": "stopped"}
            stopped.args = (f"{stopped}. Go on with: vae train resume={run.folder}",)
            raise
        except Exception as error:
            status = {"status": "failed", "error": str(error)}
            log.debug("failed", exc_info=True)
            raise
        finally:
            how = {"execution": trainer.execution, "seconds": round(time.perf_counter() - started, 3)}
            run.write_json(SUMMARY, status | how)
            logger.close()
            plot_curves(read_metrics(run.folder / "metrics.jsonl"), run.folder / "curves.png")
        _conclude(run, figures, learner)
    return -figures.get("best_elbo", figures.get("train_elbo", math.nan))


def _introduce(run: Run, data: Dataset, learner: Learner, execution: str) -> None:
    import torch

    from vae_train.util.runtime import emulated

    sizes = " / ".join(
        f"{len(images):,} {name}" for name in ("train", "valid", "test") if (images := data.split(name)) is not None
    )
    count = sum(p.numel() for p in learner.parameters)
    device = f"cpu, {torch.get_num_threads()} threads" if learner.device.type == "cpu" else str(learner.device)
    c, h, w = data.facts.data_shape
    log.info(
        "vae train · %s · %dx%dx%d · %s · %d latents, %s parameters · %s, %s, %s",
        *(run.config.name, h, w, c, sizes, run.config.latent_dim, f"{count:,}"),
        *(device, learner.precision, execution),
    )
    slow = emulated(learner.precision, learner.device)
    if slow:
        log.warning("%s", slow)
    train = data.training()
    log.log(logging.DEBUG if train.resident else logging.INFO, "data: %s", data.storage)
    warning = getattr(getattr(learner.model, "likelihood", None), "warning", None)
    if warning:
        log.info("%s", warning)
    log.info("%s", run.folder)


def _report_bad_files(run: Run, data: Dataset) -> None:
    """Lists what could not be read in the run's folder."""
    path = write_bad_files(run.folder, data.bad_files)
    if path is None:
        return
    count = len(data.bad_files)
    log.info("%s could not be read and %s left out: %s", "1 file" if count == 1 else f"{count:,} files",
             "was" if count == 1 else "were", path)  # fmt: skip


def _conclude(run: Run, figures: dict[str, float], learner: Learner) -> None:
    if "best_elbo" in figures:
        log.info(
            "best epoch %d: validation ELBO %.2f nats (beta = 1)", int(figures["best_epoch"]), figures["best_elbo"]
        )
    elif "best_epoch" in figures:
        log.info("best epoch %d, by the validation loss: a point mass has no ELBO", int(figures["best_epoch"]))
    elif "train_loss" in figures:
        elbo = f", ELBO {figures['train_elbo']:.2f} nats (beta = 1)" if "train_elbo" in figures else ""
        log.info("training loss %.2f%s", figures["train_loss"], elbo)
    log.info("look at %s: curves.png, samples/final.png, reconstructions/final.png, metrics.csv", run.folder)


def _environment(device: torch.device, data: Dataset) -> dict[str, Any]:
    import torch

    return environment(str(device), torch.get_num_threads(), data.checksum)


def _hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """Scalars of the whole configuration by dotted path, for TensorBoard's table."""
    skipped = {"out", "sweep", "resume", "plan", "allow", "name", "threads"}

    def flat(node: Any, path: str) -> dict[str, Any]:
        if isinstance(node, dict):
            return {k: v for key, value in node.items() for k, v in flat(value, f"{path}.{key}").items()}
        return {path[1:]: node} if isinstance(node, bool | int | float | str) else {path[1:]: str(node)}

    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    values = flat({k: v for k, v in plain.items() if k not in skipped}, "")
    return {k: v for k, v in values.items() if not k.endswith("_partial_")}


def _resume_errors(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """Whatever of a resumed run cannot be changed, and a run that has nothing left to do."""
    from vae_train.runs.build import checkpoint_errors, data_errors, execution_errors, open_run

    found = []
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key != "resume" and key not in CHANGEABLE:
            options = "epochs, device, threads, execution and trainer.*_every"
            found.append(ErrorDetail(word, f"cannot change on resume (only {options} can); start a new run for that"))
    opened, wrong = open_run(cfg.resume, f"resume={cfg.resume}", cfg.allow)
    if opened is None or found:
        return found + wrong
    saved = _changed(opened, words)
    found = checkpoint_errors(opened) + execution_errors(saved) + data_errors(saved)
    return found or _epoch_errors(opened, saved) + _changed_data(opened, saved)


def _changed_data(opened: Run, saved: DictConfig) -> list[ErrorDetail]:
    """Data that is not what the run was trained on: a folder, for instance, that has one more image."""
    import json

    from vae_train.runs.build import loaded

    try:
        before = json.loads((opened.folder / ENVIRONMENT).read_text()).get("data_checksum")
    except (OSError, ValueError):
        return []
    if before in (None, loaded(saved).checksum):
        return []
    return [
        ErrorDetail(f"resume={opened.folder}", "its data has changed since: put the old data back, or start a new run")
    ]


def _epoch_errors(opened: Run, saved: DictConfig) -> list[ErrorDetail]:
    """A number of epochs that leaves nothing to do."""
    import json

    if saved.epochs < opened.config.epochs:
        return [ErrorDetail(f"epochs={saved.epochs}", f"the run has {opened.config.epochs}: they may only be raised")]
    path = opened.folder / SUMMARY
    done = json.loads(path.read_text()).get("status") == "done" if path.exists() else False
    if not done or saved.epochs > opened.config.epochs:
        return []
    more = 2 * opened.config.epochs
    return [ErrorDetail(f"resume={opened.folder}", f"has ended after {opened.config.epochs} epochs; add epochs={more}")]


def _changed(opened: Run, words: Sequence[str]) -> DictConfig:
    """The run's configuration with the changes that resume allows."""
    changes = OmegaConf.from_dotlist([w.lstrip("+") for w in words if not w.lstrip("+").startswith("resume=")])
    cfg = opened.config.copy()
    cfg.allow = None  # never from the run itself
    if "epochs" in changes:
        changes.trainer = {**changes.get("trainer", {}), "epochs": changes.epochs}
    if "device" in changes or "execution" in changes:
        # Another device: how its steps are executed is looked up anew.
        changes.execution = changes.get("execution", "auto")
        changes.learner = {"execution": changes.execution}
    return DictConfig(OmegaConf.merge(cfg, changes))
