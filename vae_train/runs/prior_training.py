"""Trains a prior on encodings by maximum likelihood, with the learner."""

import copy
import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Shape
from vae_train.distributions.base import Distribution
from vae_train.model.base import LatentVariableModel
from vae_train.model.prior.fitted.base import FittedPrior, GradientTraining, no_encoder
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import ModelTraits
from vae_train.objective.elbo import ELBO
from vae_train.objective.schedule import ConstantBeta
from vae_train.rng import BlockRng, Rng, generator
from vae_train.training.display import LINE_SECONDS
from vae_train.training.learner import Learner
from vae_train.training.lr import CosineRate
from vae_train.training.signals import StopRequest
from vae_train.training.step import StepInputs
from vae_train.util.errors import RunError
from vae_train.util.progress import progress_bar
from vae_train.util.text import duration, first_line

log = logging.getLogger("vae_train")

EVALUATION_STEPS = 50
"""Updates between evaluations on held-out encodings, at least."""

CHECKPOINT_SECONDS = 60
"""Time between two checkpoints; a killed training loses at most this."""


class DensityModel(LatentVariableModel):
    """A prior as a model p(x) of encodings x, without latents: its negative ELBO is -log p(x).

    Args:
        prior: the density.
    """

    def __init__(self, prior: FittedPrior) -> None:
        super().__init__()
        self.prior, self.data_shape, self.levels = prior, prior.event_shape, None

    @classmethod
    @override
    def traits(cls, **settings: Any) -> ModelTraits:
        return ModelTraits(layers=())

    @override
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        return Trace(x=batch.x[None], latents=(), px=self.prior(no_encoder), mask=None)

    @property
    @override
    def latent_shapes(self) -> tuple[Shape, ...]:
        return ()

    @override
    def infer(
        self, x: Tensor, y: Tensor | None, rng: Rng, num_samples: int = 1, temperature: float = 1.0
    ) -> tuple[Latent, ...]:
        return ()

    @override
    def decode_latents(self, z: Sequence[Tensor], y: Tensor | None = None) -> Distribution:
        return self.prior(no_encoder)

    @override
    def sample(
        self, num: int, rng: Rng, temperature: float | Sequence[float] = 1.0, y: Tensor | None = None
    ) -> Distribution:
        return self.prior(no_encoder)


class PriorCheckpoint(Protocol):
    """Where an interrupted training is saved, to be continued later."""

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is none."""

    def save(self, state: dict[str, Any]) -> None:
        """Saves a state of plain data and tensors."""

    def stop(self, signal: int, step: int) -> NoReturn:
        """Raises the error that ends the command after a signal, once the state is saved."""


@dataclass
class Progress:
    """The progress of a training, and its best held-out evaluation."""

    step: int = 0
    """Number of updates."""
    evaluated: int = -1
    """Number of updates before the last evaluation."""
    value: float = math.inf
    """The last mean of -log p of the held-out encodings, in nats."""
    best: float = math.inf
    waited: int = 0
    """Evaluations since the best one."""


def train_prior(
    prior: FittedPrior,
    z: Tensor,
    held_out: Tensor,
    seed: int,
    settings: GradientTraining,
    checkpoint: PriorCheckpoint | None = None,
) -> None:
    """Trains a prior with early stopping on held-out encodings, and restores the best weights.

    Args:
        prior: the prior.
        z: (N, D) encodings, or (N, *event_shape) codes.
        held_out: (M, D) other encodings, or codes.
        seed: seed of the batches.
        settings: steps, patience, batch size and learning rate.
        checkpoint: where Ctrl-C and SIGTERM save the training, which then continues bit for bit; None to save nothing.

    Raises:
        Stopped: a signal arrived; the training is saved.
    """
    training = PriorTraining(prior, z, held_out, seed, settings)
    with ExitStack() as stack:
        stop = None if checkpoint is None else stack.enter_context(StopRequest())
        # Only these algorithms of convolutions give the same gradients again.
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False))
        if checkpoint is not None and (state := checkpoint.load()) is not None:
            _restore(training, state)
        display = stack.enter_context(closing(PriorDisplay(prior, training.num_steps, training.progress.step)))
        while not training.ended():
            if checkpoint is not None and stop is not None and stop.signal is not None:
                checkpoint.save(training.state_dict())
                checkpoint.stop(stop.signal, training.progress.step)
            training.step()
            display.show(training.progress)
            if checkpoint is not None and display.is_due("checkpoint", CHECKPOINT_SECONDS):
                checkpoint.save(training.state_dict())
    prior.load_state_dict(training.best)


class PriorTraining:
    """The training of a prior by the learner, with a state that it continues from.

    Args:
        prior: the prior.
        z: (N, D) encodings, or (N, *event_shape) codes.
        held_out: (M, D) other encodings, or codes.
        seed: seed of the batches.
        settings: see `GradientTraining`.
    """

    def __init__(self, prior: FittedPrior, z: Tensor, held_out: Tensor, seed: int, settings: GradientTraining) -> None:
        self.prior, self.seed, self.settings = prior, seed, settings
        self.weight = next(prior.parameters())
        self.z, self.held_out = z, self._events(held_out)
        self.num_steps = settings.num_steps(len(z))
        self.interval = min(max(EVALUATION_STEPS, len(z) // settings.batch_size), settings.max_interval)
        schedule = CosineRate(max(self.num_steps, 1), 1.0, settings.warmup, settings.final)
        self.learner = Learner(
            model=DensityModel(prior),
            objective=ELBO(1.0, ConstantBeta(1.0), 1, None, 1.0, 0.0, "dimension", steps_per_epoch=1.0),
            optimizer=partial(torch.optim.Adam, lr=settings.lr),
            lr_schedule=schedule,
            seed=seed,
            clip_norm=settings.clip_norm,
            ema=None,
            grad_accumulation=settings.microbatches,
            precision="float32",
            skip_norm=None,
            shards=None,
        )
        self.progress, self.best = Progress(), copy.deepcopy(prior.state_dict())

    def ended(self) -> bool:
        """Evaluates the prior if it is time, and returns whether the training has ended."""
        progress, last = self.progress, self.progress.step >= self.num_steps
        if (last or progress.step % self.interval == 0) and progress.evaluated != progress.step:
            progress.value = self.learner.evaluate(Batch(self.held_out), 0, progress.step)["distortion"].item()
            progress.evaluated = progress.step
            if progress.value < progress.best:
                progress.best, progress.waited, self.best = progress.value, 0, copy.deepcopy(self.prior.state_dict())
            else:
                progress.waited += 1
        return last or progress.waited >= self.settings.patience

    def step(self) -> None:
        """Takes one update."""
        step, count = self.progress.step, len(self.z)
        size = min(self.settings.batch_size, count)
        rows = torch.randint(count, (size,), generator=generator(self.seed, "expost", step)).to(self.z.device)
        rng = BlockRng(self.seed, "expost", 0, device=self.weight.device)  # the loss needs no noise
        self.learner.step(StepInputs(Batch(self._events(self.z[rows])), step, self.learner.rates(step), rng))
        self.progress.step += 1

    def state_dict(self) -> dict[str, Any]:
        """The state that the training continues from."""
        return {**self.learner.state_dict(), "progress": asdict(self.progress), "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        self.learner.load_state_dict(state)
        self.progress, self.best = Progress(**state["progress"]), state["best"]

    def _events(self, z: Tensor) -> Tensor:
        """Encodings in the shape of events and the type that the prior takes, on its device."""
        if not z.is_floating_point():
            return z.to(self.weight.device, torch.int64)
        return z.to(self.weight).unflatten(-1, self.prior.event_shape)


def _restore(training: PriorTraining, state: dict[str, Any]) -> None:
    """Continues a training.

    Raises:
        RunError: the state is that of another training, or damaged.
    """
    try:
        training.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = first_line(error)
        raise RunError(f"the interrupted training cannot be continued ({reason}); refit=true starts anew") from error


class PriorDisplay:
    """Shows the progress of a training: a bar on a terminal, lines elsewhere, at most one in 30 s.

    Args:
        prior: the prior that is trained.
        total: maximal number of updates.
        step: number of updates so far.
    """

    def __init__(self, prior: FittedPrior, total: int, step: int) -> None:
        self.prior, self.total, self.first = prior, total, step
        self.bar = progress_bar(total, "training the prior")
        self.bar.update(step)
        self.started = time.monotonic()
        self.last = dict[str, float]()
        self.first_shown = 0.0

    def is_due(self, what: str, seconds: float) -> bool:
        """Whether this many seconds have passed since it was last due."""
        now = time.monotonic()
        if now - self.last.setdefault(what, self.started) < seconds:
            return False
        self.last[what] = now
        return True

    def show(self, progress: Progress) -> None:
        """Shows the number of updates and the last evaluation."""
        text = f"held-out {self._nats(progress.value)}, best {self._nats(progress.best)}"
        self.bar.set_postfix_str(text, refresh=False)
        self.bar.update(1)
        taken = progress.step - self.first
        if taken <= 1:  # the first evaluation and the first update take longer
            self.first_shown = time.monotonic()
        elif self.bar.disable and self.is_due("line", LINE_SECONDS):
            left = (time.monotonic() - self.first_shown) / (taken - 1) * (self.total - progress.step)
            log.info(
                "step %s of %s · %s · at most %s left", *(f"{progress.step:,}", f"{self.total:,}", text, duration(left))
            )

    def close(self) -> None:
        """Removes the bar."""
        self.bar.close()

    def _nats(self, value: float) -> str:
        if not self.prior.over_codes:
            return f"{value:.2f} nats"
        return f"{value / math.log(2) / self.prior.size:.3f} bits per code"
