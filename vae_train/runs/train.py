"""Trains a configuration in a new folder, and resumes runs."""

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from vae_train.data.session import DataSession
from vae_train.plotting.charts import plot_curves
from vae_train.runs.build import Builder, Training, assemble, load_data, read_weights
from vae_train.runs.config import PLACES, Config, changed
from vae_train.runs.defaults import with_defaults
from vae_train.runs.differences import hyperparameters, model_differences
from vae_train.runs.environment import environment
from vae_train.runs.facts import facts_to_dict
from vae_train.runs.metrics_check import check_rows
from vae_train.runs.outcome import latent_use, outcome
from vae_train.runs.ranks import begin, compare_data, device_of, tell_configuration, threads_of
from vae_train.runs.run import Run, write_json
from vae_train.runs.schema import RunFacts, known
from vae_train.runs.start_message import log_start
from vae_train.runs.tracking import open_loggers, register
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.base import Logger
from vae_train.training.loggers.files import Files, best_row, read_metrics
from vae_train.training.ranks import ALONE, Ranks
from vae_train.training.state import Patience, Pruning, ReportValidation
from vae_train.util.errors import RunError, Stopped
from vae_train.util.files import FolderGuard
from vae_train.util.locks import Lock
from vae_train.util.runtime import busy_message, prepare

log = logging.getLogger("vae_train")


def train(
    config: Config,
    folder: Path | None = None,
    session: DataSession | None = None,
    builder: Builder | None = None,
    lock: Lock | None = None,
    ranks: Ranks = ALONE,
    report: ReportValidation | None = None,
) -> Run:
    """Trains a configuration in a new folder.

    Args:
        config: the resolved configuration of `vae train`; `vae_train.runs.check.check` finds its errors.
        folder: the new folder; None for `outputs/<date>/<time>-<name>`.
        session: caches data that was read before.
        builder: locates classes; by default only those of vae_train.
        lock: that of the folder, if this process holds it.
        ranks: the processes that train together; the others call `vae_train.runs.follow.follow`.
        report: receives every validation, and may prune the run.

    Raises:
        UsageError: the configuration is invalid, or the folder exists.
        RunError: training failed.
        Stopped: a signal arrived; the state is saved.
    """
    session, builder = session or DataSession(), builder or Builder()
    tell_configuration(ranks, config, builder)
    training, config = assemble_run(config, session, builder, ranks)
    _initialize(training, config)
    run = Run.create(folder, config, lock=lock)
    with run.locked():
        register(run, builder)
        _fit(run, training, None, builder, report)
    return run


def resume(
    run: Run,
    changes: Mapping[str, Any],
    session: DataSession,
    builder: Builder,
    ranks: Ranks = ALONE,
    report: ReportValidation | None = None,
) -> None:
    """Resumes a run from its last checkpoint; restarts it if it has none.

    Args:
        run: a run that ended or was interrupted.
        changes: new values by dotted path, of `RESUMABLE` settings.
        session: caches data that was read before.
        builder: locates classes.
        ranks: see `train`; their number may have changed.
        report: see `train`.

    Raises:
        UsageError: another process is training this run.
        RunError, Stopped: see `train`.
    """
    with run.locked():
        before, config = run.config, changed(run.config, changes)
        tell_configuration(ranks, config, builder)
        training, run.config = assemble_run(config, session, builder, ranks)
        checkpoints, state = Checkpoints(run.checkpoints, run.report), None
        if "last" in checkpoints.names():
            state = checkpoints.load_last(training.learner.device)
            state["history"] = check_rows(run, state)
            _log_resumed(before, training, state["progress"]["step"], builder)
        else:
            log.info("%s has no checkpoint yet; starting from the beginning", run.folder)
            _initialize(training, run.config)
        _fit(run, training, state, builder, report)


def assemble_run(
    config: Config, session: DataSession, builder: Builder, ranks: Ranks = ALONE
) -> tuple[Training, Config]:
    """Builds a training; also returns the configuration with all derived values filled in."""
    device = device_of(config["device"], ranks)
    prepare(threads_of(config["threads"], ranks), config["learner"]["precision"])
    ranks.use(device)
    if message := busy_message(torch.get_num_threads()):
        log.warning("%s", message)
    # Files that cannot be read do not count.
    config = with_defaults(config, load_data(config, session, torch.device("cpu"), builder).facts)
    training = assemble(config, session, device, builder, ranks)
    compare_data(ranks, training.data.checksum if ranks.size > 1 else "")
    mode = training.trainer.execution
    values = {"device": str(device), "execution": mode, "trainer.execution": mode}
    values |= {f"data.{name}": value for name, value in training.data.resolved.items()}
    values |= {f"objective.{name}": value for name, value in training.learner.objective.resolved.items()}
    places = {f"data.{name}": config["data"].get(name) for name in PLACES}
    values |= {
        name: str(Path(os.path.expanduser(place)).absolute()) for name, place in places.items() if place is not None
    }
    return training, config.with_values(values)


def _log_resumed(before: Config, training: Training, step: int, builder: Builder) -> None:
    """Logs where a run resumes, and a jump of the learning rate that a changed length causes."""
    epochs = training.trainer.epochs_of(training.data.facts.num_train)
    log.info("resuming after step %s, in epoch %d of %d", f"{step:,}", epochs.of(step), epochs.total)
    arguments = known(training.data.facts, RunFacts.of(before, training.data.facts))
    schedules = builder.build(before["lr_schedule"], **arguments), training.learner.lr_schedule
    was, now = (float(schedule(step)) for schedule in schedules)
    if not math.isclose(was, now, abs_tol=1e-3):
        message = "lr_schedule now ends after %d epochs; it resumes at %.3g of lr instead of %.3g"
        log.info(message, training.trainer.epochs, now, was)


def _initialize(training: Training, config: Config) -> None:
    """Copies the initial weights from the run of init_from, if there is one."""
    if config.get("init_from"):
        run = Run.open(config["init_from"])
        read_weights(training.learner.model, run)
        if differences := model_differences(run.config, config):
            log.info("init_from=%s: the weights are of another model: %s", config["init_from"], differences)


def _fit(
    run: Run,
    training: Training,
    state: dict[str, Any] | None,
    builder: Builder,
    report: ReportValidation | None = None,
) -> None:
    """Trains in the folder of a locked run."""
    data, learner, trainer = training
    step = state["progress"]["step"] if state else 0
    facts = RunFacts.of(run.config, data.facts)._replace(folder=run.tensorboard, step=step)
    started, summary, execution = time.perf_counter(), dict[str, Any](status="failed"), trainer.execution
    stopping = Patience(trainer.patience) if report is None else Pruning(trainer.patience, report)
    # The status comes before the new configuration, so that a run killed in between does not count as done.
    write_json(run.summary_file, {"status": "running"})
    run.config.write(run.config_file)
    with run.logged(), run.guard() as guard:
        log_start(run, training)
        write_json(run.facts_file, facts_to_dict(data.stored_facts))
        write_json(run.environment_file, environment(learner.device, data.checksum, learner.ranks.size))
        loggers = [Files(run.folder, facts.step), *open_loggers(run, facts, builder)]
        try:
            stamp = {"config": run.fingerprint, "data": data.checksum}
            checkpoints = Checkpoints(run.checkpoints, run.report, stamp)
            state = begin(learner.ranks, training, state, f"; resume with: vae train resume={run.as_typed}")
            metrics, execution = trainer.fit(learner, data, checkpoints, loggers, state, stopping, guard.check)
            summary = {"status": "stopped"}  # a second signal may arrive before the summary is complete
            checkpoints.remove_previous()
            latents = latent_use(run, training, metrics)
            best = best_row(read_metrics(run.metrics_file), metrics.get("best_epoch"))
            for logger in loggers:
                logger.hyperparameters(hyperparameters(run.config), best)
            summary = {"status": "pruned" if stopping.is_pruned else "done", **metrics, **latents.counts}
        except Stopped as stopped:
            summary = {"status": "stopped"}
            stopped.args = (f"{stopped}. Resume with: vae train resume={run.as_typed}",)
            raise
        except Exception as error:
            summary = {"status": "failed", "error": str(error)}
            log.debug("failed", exc_info=True)
            raise
        finally:
            seconds = round(time.perf_counter() - started, 3)
            _finish(run, summary | {"execution": execution, "seconds": seconds}, loggers, guard)
        checkpoints.keep(run.config.get("keep") or "both")
        for line in outcome(run, training, metrics, read_metrics(run.metrics_file), latents):
            log.info("%s", line)


def _finish(run: Run, summary: dict[str, Any], loggers: Sequence[Logger], guard: FolderGuard) -> None:
    """Writes how a run ended, closes its loggers and plots its metrics."""
    is_in_place = guard.is_in_place()
    if is_in_place:
        write_json(run.summary_file, summary)
    for logger in loggers:
        with nullcontext() if is_in_place else suppress(RunError):
            logger.close()
    if is_in_place:
        plot_curves(read_metrics(run.metrics_file), run.curves_file)
