"""The training loop: when to update, log, validate, preview and save."""

import io
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

from vae_train.data.dataset import Dataset
from vae_train.data.stream import Stream
from vae_train.training.background import NoOutput, Output
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.display import Display, describe
from vae_train.training.epochs import Epochs
from vae_train.training.execution import Feed, Mode, Runner, runner, steps_per_launch
from vae_train.training.learner import Learner
from vae_train.training.loggers.base import Logger, row_digest
from vae_train.training.meter import Clock, Scope
from vae_train.training.monitor import Judge, Monitor
from vae_train.training.previews import write_previews
from vae_train.training.signals import StopRequest
from vae_train.training.state import SUMMARIZED, Patience, Stopping, TrainingState
from vae_train.training.validation import validate
from vae_train.util.errors import Stopped
from vae_train.util.ranges import NonNegativeFloat, PositiveInt

log = logging.getLogger("vae_train")

NUM_PREVIEWS = 10
"""Default number of sets of image grids in a run."""


class Training(NamedTuple):
    """The objects of a training."""

    learner: Learner
    data: Dataset
    state: TrainingState
    epochs: Epochs
    runner: Runner
    clock: Clock
    display: Display
    output: Output
    stop: StopRequest
    judge: Judge


@dataclass
class Trainer:
    """Trains a learner on a data set.

    An epoch has N / B steps, rounded up if it ends within a batch, since the stream of batches ignores epochs.

    Args:
        epochs: passes over the training images; None if `steps` is set.
        steps: number of updates, which may cut the last epoch short; None if `epochs` is set.
        batch_size: B, images per optimiser step; None only until the size of the data is known.
        execution: how steps are executed, see `vae_train.training.execution`.
        eval_every: epochs between two validations; the last epoch is always validated.
        sample_every: epochs between two sets of image grids; None for ten sets in total. The last epoch always has one.
        checkpoint_every: epochs between two checkpoints; the last epoch always has one.
        checkpoint_seconds: seconds between two checkpoints, see `Output`. Longer epochs have several, shorter epochs
            share one. A killed run loses at most this time. 0 for checkpoints at the end of every epoch only.
        log_every: steps between two rows of the log.
        patience: number of validations without improvement, after the objective's schedules have ended, that ends the
            run; None for no early stopping.
        monitor: criterion for the best epoch, see `vae_train.training.monitor.Judge`.
        eval_batch_size: images per pass in validation.
    """

    epochs: PositiveInt | None
    steps: PositiveInt | None
    batch_size: PositiveInt | None
    execution: Mode
    eval_every: PositiveInt
    sample_every: PositiveInt | None
    checkpoint_every: PositiveInt
    checkpoint_seconds: NonNegativeFloat
    log_every: PositiveInt
    patience: PositiveInt | None
    monitor: Monitor
    eval_batch_size: PositiveInt

    def fit(
        self,
        learner: Learner,
        data: Dataset,
        checkpoints: Checkpoints,
        loggers: Sequence[Logger],
        resumed: dict[str, Any] | None = None,
        stopping: Stopping | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[dict[str, Any], Mode]:
        """Trains until the last epoch, or until `stopping` ends the run.

        Args:
            learner: takes the steps.
            data: a loaded data set.
            checkpoints: where the state is saved; only rank 0 writes it.
            loggers: receive metrics and image grids of rank 0.
            resumed: a checkpoint to resume from.
            stopping: ends the run early; None for `Patience`.
            check: called before everything that is written; raises an error if training must not write any more.

        Returns:
            The summary: the last metrics, "best_epoch", "best_by", and "best_elbo" and other metrics of that
            epoch; and the mode in which the last steps were executed.

        Raises:
            RunError: a metric became NaN or infinite, writing failed, or another rank ended.
            Stopped: a signal arrived; the state is saved.
        """
        train, ranks = data.training(), learner.ranks
        state = TrainingState(learner, Patience(self.patience) if stopping is None else stopping)
        if resumed is not None:
            state.load_state_dict(resumed)
        metrics: dict[str, Any] = {}
        epochs = self.epochs_of(len(train))
        rows = ranks.rows(epochs.batch_size)
        stream = Stream(train, epochs.batch_size, seed=learner.seed, device=learner.device, rows=rows)
        steps = self.runner(learner, stream)
        sample_every = self.sample_every or math.ceil(epochs.total / NUM_PREVIEWS)
        display = Display(epochs, state.progress.step, None if ranks.rank == 0 else io.StringIO())
        judge = Judge(self.monitor, learner.objective, epochs)
        # Rank 0 alone writes.
        output = (Output if ranks.rank == 0 else NoOutput)(loggers, checkpoints, self.checkpoint_seconds, check)
        with StopRequest(largest=ranks.largest if ranks.size > 1 else None) as stop, output, closing(stream), display:
            training = Training(learner, data, state, epochs, steps, Clock(stream), display, output, stop, judge)
            for epoch in range(self._first_epoch(training), epochs.total + 1):
                trained = self._train_epoch(training, epoch)
                row = self._validate(training, epoch)
                ended = self._ends(training, epoch, row)
                last = ended or epoch == epochs.total
                display.epoch(trained, row, state.progress.describe_best(), last)
                if ranks.rank == 0 and (last or epoch % sample_every == 0):
                    name = "final" if last else f"epoch-{epoch:04d}"
                    write_previews(output, learner.evaluated, data, learner.seed, state.progress.step, name)
                metrics = _selected("train", trained) | _selected("valid", row or {})
                self._save(training, epoch, last)
                if ended:
                    log.info("%s after epoch %d", "pruned" if state.stopping.is_pruned else "early stopping", epoch)
                    break
                if stop.signal is not None and not last:
                    raise _stopped(stop.signal, epoch, state.progress.step)
                training.clock.restart()
        return metrics | state.progress.summary(), steps.mode

    def epochs_of(self, num_images: int) -> Epochs:
        """The epochs of a run on `num_images` training images."""
        assert self.batch_size is not None, "batch_size=null must be resolved"
        if self.steps is None:
            assert self.epochs is not None, "a run has epochs or steps"
            return Epochs(self.epochs, num_images, self.batch_size)
        return Epochs.of_steps(self.steps, num_images, self.batch_size)

    def runner(self, learner: Learner, stream: Stream) -> Runner:
        """Builds the runner of `learner` on the batches of `stream`."""
        num_parameters = sum(p.numel() for p in learner.parameters)
        count = steps_per_launch(num_parameters, stream.batch_size, len(stream.images))
        return runner(self.execution, learner.step, Feed(stream, learner.rates), learner.gradient_norm, count)

    def _first_epoch(self, training: Training) -> int:
        """The epoch to start or resume with; beyond the last one if the run has ended."""
        progress, epochs = training.state.progress, training.epochs
        return epochs.total + 1 if progress.ended == epochs.total else epochs.of(progress.step)

    def _ends(self, training: Training, epoch: int, row: dict[str, float] | None) -> bool:
        """Whether `stopping` ends the run after a validation."""
        progress, stopping = training.state.progress, training.state.stopping
        ended = row is not None and stopping.observe(epoch, row, training.judge.settled(progress.step))
        if row is not None:  # `stopping` of rank 0 may know more than the others
            ended = bool(training.learner.ranks.broadcast(ended))
        progress.ended = training.epochs.total if ended else 0
        return ended

    def _train_epoch(self, training: Training, epoch: int) -> dict[str, float]:
        """Takes the (remaining) steps of an epoch; returns its metrics."""
        progress, meter, clock = training.state.progress, training.state.meter, training.clock
        end = training.epochs.end(epoch)
        while progress.step < end:
            limit = min(end - progress.step, self.log_every - progress.step % self.log_every)
            rows = training.runner(progress.step, limit)
            taken = len(rows.values)
            meter.add(rows.names, rows.values)
            progress.step += taken
            clock.images += taken * training.epochs.batch_size
            training.display.advance(progress.step)
            if progress.step % self.log_every == 0 or progress.step == end:
                training.stop.agree()
            if progress.step % self.log_every == 0:
                training.display.steps(self._log_train(training, epoch, "step"))
            signal = training.stop.signal
            if progress.step < end and (signal is not None or training.output.is_due()):
                self._check(training)
                training.output.save(["last"], training.state.state_dict)
                if signal is not None:
                    raise _stopped(signal, epoch, progress.step)
        return self._log_train(training, epoch, "epoch")

    def _log_train(self, training: Training, epoch: int, scope: Scope) -> dict[str, float]:
        """Writes the means since the last row of this scope."""
        norm, meter = self._check(training), training.state.meter
        means = meter.window() if scope == "step" else meter.epoch() | training.learner.model.epoch_metrics()
        rate = training.learner.rates(training.state.progress.step - 1)[0]
        row = means | {"lr": rate, "grad_norm": norm} | training.clock.pace(scope)
        _write(training, epoch, "train", scope, row)
        return row

    def _check(self, training: Training) -> float:
        """Raises an error if a metric since the last check is not finite, or if all updates are skipped.

        Returns the norm of the last gradient.

        Called before every checkpoint.
        """
        if training.learner.guard is not None:
            training.learner.guard.check()
        norm = training.runner.gradient_norm()
        # A non-finite gradient shows in the metrics of the next step, so only the last one is checked.
        steps_ago, names = training.state.meter.first_nonfinite() or (0, [] if math.isfinite(norm) else ["grad_norm"])
        training.output.check_finite(names, f"at step {training.state.progress.step - steps_ago:,}")
        return norm

    def _validate(self, training: Training, epoch: int) -> dict[str, float] | None:
        """The means over the validation split; None if there is no such split or this epoch is not validated."""
        images = training.data.split("valid")
        if images is None or (epoch != training.epochs.total and epoch % self.eval_every):
            return None
        learner, progress, judge = training.learner, training.state.progress, training.judge
        settled = judge.settled(progress.step)
        row = validate(learner, images, self.eval_batch_size, progress.step)
        is_final = settled or judge.monitor != "objective"
        final = row if is_final else validate(learner, images, self.eval_batch_size, judge.step)
        value = row["monitored"] = judge.value(row, final)
        bad = [name for name, metric in row.items() if not math.isfinite(metric)]
        training.output.check_finite(bad, f"in the validation after step {progress.step:,}")
        _write(training, epoch, "valid", "epoch", row)
        if settled:
            learner.lr_schedule.observe(value)
        by = judge.by(progress.step, "elbo" in row)
        if progress.best_by not in ("", by):
            log.info("the best epoch is now chosen by the %s", by)
        progress.observe(epoch, value, row, by)
        return row

    def _save(self, training: Training, epoch: int, last: bool) -> None:
        """Saves the state as the best, as the last, or as both."""
        names = ["best"] if training.state.progress.best_epoch == epoch else []
        if last or training.stop.signal is not None or epoch % self.checkpoint_every == 0:
            names.append("last")
        if names:
            training.output.save(names, training.state.state_dict)


def _stopped(signal: int, epoch: int, step: int) -> Stopped:
    return Stopped(signal, f"interrupted at epoch {epoch}, step {step:,}; checkpoint saved")


def _write(training: Training, epoch: int, split: str, scope: Scope, row: dict[str, float]) -> None:
    """Writes a row of metrics after the current step."""
    step = training.state.progress.step
    whole = {"step": step, "epoch": epoch, "split": split, "scope": scope} | row
    training.state.history = row_digest([whole], training.state.history)
    training.output.metrics(whole)
    if scope == "epoch":
        log.debug("epoch %d, step %d: %s", epoch, step, describe(split, row))


def _selected(split: str, row: dict[str, float]) -> dict[str, float]:
    """The metrics of a row that belong to a run's summary."""
    return {f"{split}_{name}": row[name] for name in ("loss", *SUMMARIZED) if name in row}
