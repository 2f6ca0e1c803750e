"""The only training loop: when to update, log, evaluate, draw and save."""

from __future__ import annotations

import logging
import math
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from vae_train.batch import Images, evenly_spaced
from vae_train.data.dataset import Dataset
from vae_train.data.stream import Stream, evaluation_batches
from vae_train.plotting.grid import plot_grid
from vae_train.rng import Rng
from vae_train.training.background import Background, Output
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.learner import Learner
from vae_train.training.loggers import Logger
from vae_train.training.meter import Meter, wide
from vae_train.training.previews import MANIFOLD_SIDE, is_planar, manifold, num_columns, reconstructions, samples
from vae_train.training.signals import StopRequest
from vae_train.util.errors import RunError, Stopped
from vae_train.util.ranges import NonNegativeFloat, PositiveInt

log = logging.getLogger("vae_train")

NUM_PICTURES = 64


@dataclass
class Progress:
    """How far a run is, and what was best so far."""

    step: int = 0
    best: float = math.inf
    """The lowest monitored value of all validations."""
    best_elbo: float = -math.inf
    """The validation ELBO that belongs to it."""
    best_epoch: int = 0
    waited: int = 0
    """Validations since the best one."""
    ended: bool = False
    """Whether early stopping ended the run."""


class Trainer:
    """Trains a learner on a data set.

    An epoch has N / B steps, rounded up where one ends within a batch: the stream of batches knows no epochs.

    Args:
        epochs: passes over the training images.
        batch_size: B, images per optimiser step.
        eval_every: epochs between two validations; the last epoch is always validated.
        sample_every: epochs between two sets of pictures; there is always one at the end.
        checkpoint_every: epochs between two checkpoints; there is always one at the end.
        checkpoint_seconds: at least so many between two checkpoints, see `Output`: a run that is killed has lost these
            and an epoch at most.
        log_every: steps between two rows of the log.
        patience: validations without improvement after which the run ends; None never ends it.
        monitor: what is best: the validation "elbo" (beta = 1) or the optimised "loss".
        eval_batch_size: images at a time in validation.
    """

    def __init__(
        self,
        epochs: PositiveInt,
        batch_size: PositiveInt,
        eval_every: PositiveInt,
        sample_every: PositiveInt,
        checkpoint_every: PositiveInt,
        checkpoint_seconds: NonNegativeFloat,
        log_every: PositiveInt,
        patience: PositiveInt | None,
        monitor: Literal["elbo", "loss"],
        eval_batch_size: PositiveInt,
    ) -> None:
        self.epochs, self.batch_size = epochs, batch_size
        self.eval_every, self.sample_every, self.checkpoint_every = eval_every, sample_every, checkpoint_every
        self.checkpoint_seconds = checkpoint_seconds
        self.log_every, self.patience, self.monitor, self.eval_batch_size = (
            log_every,
            patience,
            monitor,
            eval_batch_size,
        )

    def fit(
        self,
        learner: Learner,
        data: Dataset,
        checkpoints: Checkpoints,
        logger: Logger,
        resumed: dict[str, Any] | None = None,
    ) -> dict[str, float]:
        """Trains until the last epoch, or until nothing improves.

        Args:
            learner: what takes the steps.
            data: a loaded data set.
            checkpoints: where the state is saved.
            logger: where figures and pictures go.
            resumed: a checkpoint to go on from.

        Returns:
            How the run ended: "best_elbo" and "best_epoch" by validation, and the last figures.

        Raises:
            RunError: a figure became NaN or infinite, or the disk refused.
            Stopped: a signal came; the state is saved.
        """
        train, valid = data.training(), data.split("valid")
        progress, meter = Progress(), Meter()
        if resumed is not None:
            restore(resumed, learner, progress, meter)
        figures: dict[str, float] = {}
        stream = Stream(train, self.batch_size, seed=learner.seed, device=learner.device)
        clock = Clock(stream)
        with (
            StopRequest() as stop,
            Background() as background,
            Output(logger, checkpoints, background, self.checkpoint_seconds) as output,
            closing(stream),
        ):
            for epoch in range(self._epoch_of(progress.step, train), self.epochs + 1):
                end, last = self._end_of(epoch, train), epoch == self.epochs
                with self._bar(epoch, progress.step, train) as bar:
                    while progress.step < end:
                        limit = min(end - progress.step, self.log_every - progress.step % self.log_every)
                        rows = learner.advance(stream, progress.step, limit)
                        meter.add(learner.names, rows)
                        progress.step += len(rows)
                        clock.images += len(rows) * self.batch_size
                        bar.update(len(rows))
                        if progress.step % self.log_every == 0:
                            norm = self._check(learner, meter, progress.step, output)
                            row = meter.window() | _about(learner, progress.step, norm, clock.lap())
                            output.scalars(_head(progress.step, epoch, "train", "step") | row)
                            bar.set_postfix_str(_postfix(row))
                        if stop.signal is not None and progress.step < end:
                            self._check(learner, meter, progress.step, output)
                            output.save(["last"], lambda: snapshot(learner, progress, meter))
                            raise Stopped(stop.signal, epoch, progress.step)

                    norm = self._check(learner, meter, progress.step, output)
                    row = meter.epoch() | _about(learner, progress.step, norm, clock.epoch())
                    output.scalars(_head(progress.step, epoch, "train", "epoch") | row)
                    bar.set_postfix_str(_postfix(row))
                log.debug("epoch %d, step %d, train: %s", epoch, progress.step, _postfix(row))
                figures = {f"train_{name}": row[name] for name in ("loss", "elbo") if name in row}

                saved = []
                if valid is not None and (last or epoch % self.eval_every == 0):
                    row = self._validate(learner, valid, progress.step, output)
                    output.scalars(_head(progress.step, epoch, "valid", "epoch") | row)
                    log.debug("epoch %d, step %d, valid: %s", epoch, progress.step, _postfix(row))
                    figures |= {f"valid_{name}": row[name] for name in ("loss", "elbo") if name in row}
                    saved += ["best"] if self._judge(row, epoch, progress, learner) else []
                last = last or progress.ended
                if last or epoch % self.sample_every == 0:
                    self._draw(learner, data, output, epoch, progress.step, last)
                if last or stop.signal is not None or epoch % self.checkpoint_every == 0:
                    saved += ["last"]
                if saved:
                    output.save(saved, lambda: snapshot(learner, progress, meter))
                if progress.ended:
                    log.info("no improvement in %d validations: stopped after epoch %d", progress.waited, epoch)
                    break
                if stop.signal is not None and not last:
                    raise Stopped(stop.signal, epoch, progress.step)
                clock.restart()
        if valid is not None:
            figures["best_epoch"] = float(progress.best_epoch)
            figures |= {} if math.isnan(progress.best_elbo) else {"best_elbo": progress.best_elbo}
        return figures

    def steps_per_epoch(self, num_train: int) -> float:
        """Optimiser steps in an epoch; may be fractional."""
        return num_train / self.batch_size

    def _end_of(self, epoch: int, train: Images) -> int:
        """The number of steps at the end of an epoch (the first is 1)."""
        return -(-epoch * len(train) // self.batch_size)

    def _epoch_of(self, step: int, train: Images) -> int:
        """The epoch that the next step belongs to."""
        epoch = step * self.batch_size // len(train)
        while self._end_of(epoch, train) <= step:
            epoch += 1
        return epoch

    def _validate(self, learner: Learner, images: Images, step: int, output: Output) -> dict[str, float]:
        """Means of a split, weighted by images, since the last batch may be short."""
        total, names = torch.zeros((), device=learner.device), list[str]()
        for start, batch in evaluation_batches(images, self.eval_batch_size, learner.device):
            scalars = learner.evaluate(batch, start, step)
            names, total = list(scalars), total + wide(torch.stack(list(scalars.values()))) * len(batch.x)
        row = dict(zip(names, (total / len(images)).tolist(), strict=True))
        bad = [name for name, value in row.items() if not math.isfinite(value)]
        if bad:
            raise RunError(_not_finite(bad, f"in the validation after step {step:,}", output))
        return row

    def _judge(self, row: dict[str, float], epoch: int, progress: Progress, learner: Learner) -> bool:
        """Takes notice of a validation; says whether it is the best so far."""
        # A model with point masses for posteriors has no ELBO.
        elbo = row.get("elbo", math.nan)
        value = -elbo if self.monitor == "elbo" and "elbo" in row else row["loss"]
        learner.lr_schedule.observe(value)
        if value < progress.best:
            progress.best, progress.best_elbo, progress.best_epoch, progress.waited = value, elbo, epoch, 0
            return True
        progress.waited += 1
        progress.ended = self.patience is not None and progress.waited >= self.patience
        return False

    def _draw(self, learner: Learner, data: Dataset, output: Output, epoch: int, step: int, final: bool) -> None:
        """Pictures of the same images and the same noise every time."""
        model, name = learner.evaluated, "final" if final else f"epoch-{epoch:04d}"
        images = data.preview()
        rng = Rng(learner.seed, "pictures", device=learner.device)
        index = evenly_spaced(len(images), NUM_PICTURES // 2).to(learner.device)
        batch = images.fetch(index, rng)
        pairs = data.to_pixels(reconstructions(model, batch, learner.seed))
        drawn = data.to_pixels(samples(model, NUM_PICTURES, learner.seed, learner.device))
        output.picture("reconstructions", name, step, partial(plot_grid, pairs, num_columns(batch.x)))
        output.picture("samples", name, step, partial(plot_grid, drawn, 8))
        if final and is_planar(model):
            plane = data.to_pixels(manifold(model, learner.device))
            output.picture("samples", "manifold", step, partial(plot_grid, plane, MANIFOLD_SIDE))

    def _check(self, learner: Learner, meter: Meter, step: int, output: Output) -> float:
        """Ends the run where a figure since the last check is NaN or infinite; comes before every checkpoint.

        A gradient that is not finite shows in the figures of the next step: only the last one must be asked for. Its L2
        norm is returned.
        """
        ago, names = meter.first_bad() or (0, [])
        norm = learner.gradient_norm()
        if not names and math.isfinite(norm):
            return norm
        names = names or ["grad_norm"]
        raise RunError(_not_finite(names, f"at step {step - ago:,}", output))

    def _bar(self, epoch: int, step: int, train: Images) -> tqdm:
        begin, end = self._end_of(epoch - 1, train), self._end_of(epoch, train)
        return tqdm(
            total=end - begin,
            initial=step - begin,
            desc=f"Epoch {epoch}/{self.epochs}",
            bar_format="{desc} |{bar:20}| {percentage:.0f}%{postfix}  [{elapsed}<{remaining}]",
            leave=epoch == self.epochs,
            disable=not sys.stderr.isatty(),
        )


class Clock:
    """Images per second of training, and the share of it that waited for data.

    Validation, pictures and checkpoints do not count.

    Args:
        stream: where the images come from, which knows how long it waited.
    """

    def __init__(self, stream: Stream) -> None:
        self.images, self._stream, self._waited = 0, stream, 0.0
        self._epoch = (0, 0.0, 0.0)  # images, seconds, seconds that waited
        self._start = time.perf_counter()

    def lap(self) -> dict[str, float]:
        """The figures since the last lap."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        waited = self._stream.waited - self._waited
        figures = _pace(self.images, seconds, waited)
        images, total, waits = self._epoch
        self._epoch = (images + self.images, total + seconds, waits + waited)
        self.restart()
        return figures

    def epoch(self) -> dict[str, float]:
        """The figures since the last epoch."""
        self.lap()
        figures, self._epoch = _pace(*self._epoch), (0, 0.0, 0.0)
        return figures

    def restart(self) -> None:
        """The time since the last lap was spent on something else."""
        self.images, self._waited, self._start = 0, self._stream.waited, time.perf_counter()


def _pace(images: int, seconds: float, waited: float) -> dict[str, float]:
    return {"images_per_second": images / seconds, "data_wait": waited / seconds}


def snapshot(learner: Learner, progress: Progress, meter: Meter) -> dict[str, Any]:
    """The whole state of a run as plain data and tensors."""
    return {
        **learner.state_dict(),
        "seed": learner.seed,
        "progress": asdict(progress),
        "meter": meter.state_dict(),
        # Nothing of ours draws from the global generators; a library that a component uses may.
        "random": {"cpu": torch.get_rng_state(), "cuda": _cuda_states()},
    }


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def restore(state: dict[str, Any], learner: Learner, progress: Progress, meter: Meter) -> None:
    """The inverse of `snapshot`."""
    learner.load_state_dict(state)
    for name, value in state["progress"].items():
        setattr(progress, name, value)
    progress.ended = False
    meter.load_state_dict(state["meter"])
    torch.set_rng_state(state["random"]["cpu"].cpu())
    if learner.device.type == "cuda" and len(state["random"]["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["random"]["cuda"]])


def _not_finite(names: list[str], where: str, output: Output) -> str:
    """What to say of figures that are NaN or infinite: the term that did it, what is left, what to try."""
    output.finish()
    saved = output.checkpoints.names()
    good = f"the last good checkpoint is {output.checkpoints.path(saved[0])}" if saved else "there is no checkpoint yet"
    terms = [name for name in names if name in ("distortion", "rate")] or names
    return (
        f"{' and '.join(terms)} became NaN or infinite {where}; {good}. Try a lower lr=, "
        "learner.clip_norm=1, a warm-up (lr_schedule.warmup=1) or precision=float32"
    )


def _about(learner: Learner, step: int, norm: float, pace: dict[str, float]) -> dict[str, float]:
    """What a row says of the last update, and of the time."""
    return {"lr": learner.rates(step - 1)[0], "grad_norm": norm, **pace}


def _head(step: int, epoch: int, split: str, scope: str) -> dict[str, Any]:
    return {"step": step, "epoch": epoch, "split": split, "scope": scope}


def _postfix(row: dict[str, float]) -> str:
    text = f"loss {row['loss']:.2f}  recon {row['distortion']:.2f}"
    text += f"  kl {row['rate']:.2f}" if "rate" in row else ""
    return text + f"  {row['images_per_second']:,.0f} img/s" if "images_per_second" in row else text
