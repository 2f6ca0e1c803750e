"""The learner turns a batch into an update of the parameters."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from vae_train.batch import Batch
from vae_train.model.base import LatentVariableModel
from vae_train.objective.base import Objective
from vae_train.rng import BlockRng
from vae_train.training.gradients import EagerGradients
from vae_train.training.lr import LearningRate
from vae_train.training.optimizer import MovingAverage, ScheduledOptimizer, parameter_groups
from vae_train.training.ranks import ALONE, Ranks, SharedBatch, Summation
from vae_train.training.skipping import NormGuard
from vae_train.training.step import GradientFunction, Losses, Reports, Scalars, Statistics, StepInputs, StepModule
from vae_train.util.ranges import Decay, PositiveFloat, PositiveInt, Range
from vae_train.util.runtime import Precision, memory_format


class Learner:
    """A model, its objective and its optimiser: `loss`, `backward`, `step` and `evaluate`.

    Args:
        model: the model that is trained.
        objective: what is minimised.
        optimizer: a constructor of `torch.optim`; receives the parameters.
        lr_schedule: a factor on the optimiser's learning rate as a function of the step.
        seed: the run's seed.
        clip_norm: largest L2 norm of the gradient; larger gradients are scaled down. None for no clipping.
        ema: decay of an exponential moving average of the weights, which is then evaluated and sampled; None for none.
        grad_accumulation: number of microbatches per batch, to save memory. Their noise is that of the whole batch, so
            that the gradient is the same up to rounding.
        precision: "bfloat16" runs the networks under autocast; log-probabilities stay float32. "tf32" is set by
            `vae_train.util.runtime.prepare`.
        skip_norm: skip updates whose gradient norm exceeds this multiple of its running mean, see `NormGuard`; None
            skips none.
        shards: parts of a batch whose gradients are added in order, so that results do not depend on the number of
            processes, which divides it; None for the fastest order.
        gradients: builds the function that `backward` calls for every microbatch.
        ranks: the processes that share every batch of training.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        objective: Objective,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr_schedule: LearningRate,
        seed: int,
        clip_norm: PositiveFloat | None,
        ema: Decay | None,
        grad_accumulation: PositiveInt,
        precision: Precision,
        skip_norm: Annotated[float, Range(1, open_low=True)] | None,
        shards: PositiveInt | None,
        gradients: Callable[[StepModule], GradientFunction] = EagerGradients,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.objective, self.lr_schedule, self.seed = model, objective, lr_schedule, seed
        self.clip_norm, self.grad_accumulation, self.precision = clip_norm, grad_accumulation, precision
        self.device = model.device
        model.to(memory_format=memory_format(self.device, precision))  # type: ignore[call-overload]
        self.module = StepModule(model, objective, precision)
        self.parameters = list(self.module.parameters())
        self.optimizer = ScheduledOptimizer(optimizer(parameter_groups(model, objective)), lr_schedule)
        self.average = None if ema is None else MovingAverage(model, ema)
        self.evaluated = model if self.average is None else self.average.module
        """The model to evaluate: the moving average, if there is one."""
        self._evaluated = StepModule(self.evaluated, objective, precision)
        self._gradients = gradients(self.module)
        self.ranks, self._sum = ranks, Summation(ranks, shards, self.parameters)
        if ranks.size > 1:
            objective.whole_batch = partial(SharedBatch.of, ranks)
        self._norm: Tensor | None = None
        self.guard = None if skip_norm is None else NormGuard(skip_norm, self.device)
        self._parts: dict[str, Any] = {"model": model, "ema": self.average, "objective": objective}
        self._parts |= {"optimizer": self.optimizer, "lr_schedule": lr_schedule, "guard": self.guard}
        """Objects with a state; the moving average and the guard may be None."""

    def loss(self, inputs: StepInputs) -> tuple[Losses, Scalars, Statistics]:
        """The losses of a batch with their graph, its scalars, and the statistics for `update_state`."""
        return self.module(inputs)

    def backward(self, inputs: StepInputs) -> Reports:
        """Computes the clipped gradients, also stored in `grad`, with scalars and statistics of the whole batch.

        Args:
            inputs: some images of the batch; other ranks have the others.
        """
        for p in self.parameters:
            p.grad = None  # frees memory for the activations
        parts = self._sum.parts(inputs, self.grad_accumulation)
        gradients, scalars, statistics = self._sum((self._gradients(part, share), share) for part, share in parts)
        if self.clip_norm is not None:
            # Clipping is in place, but `torch.autograd.grad` may return the same tensor for several parameters.
            gradients = [None if gradient is None else gradient.clone() for gradient in gradients]
        for p, gradient in zip(self.parameters, gradients, strict=True):
            p.grad = gradient
        self._norm = None if self.clip_norm is None else nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        return Reports(gradients, scalars, statistics)

    def step(self, inputs: StepInputs) -> Scalars:
        """Updates the parameters once; returns scalars of the batch, computed before the update.

        Does not wait for the device.
        """
        _, scalars, statistics = self.backward(inputs)
        if self.guard is None:
            self._update(statistics, inputs)
        else:
            norm = self.gradient_norm()
            skip = self.guard.observe(norm)
            # The log has a finite norm, although training goes on after one that is not.
            self._norm = torch.where(norm.isfinite(), norm, self.guard.usual_norm())
            self.guard.apply(skip, partial(self._update, statistics, inputs), self._changed)
            scalars = scalars | {"skipped": skip.to(norm.dtype)}
        if self.average is not None:
            self.average.update_parameters(self.model)
        return scalars

    def _update(self, statistics: Statistics, inputs: StepInputs) -> None:
        self.module.update_state(statistics)
        self.optimizer.step(inputs.rates)

    def _changed(self) -> list[Tensor]:
        """All tensors on the device that `_update` changes."""
        states = self.optimizer.optimizer.state.values()
        moments = [value for state in states for value in state.values() if isinstance(value, Tensor)]
        return [t for t in [*self.parameters, *self.module.buffers(), *moments] if t.device == self.device]

    @torch.no_grad()
    def evaluate(self, batch: Batch, start: int, step: int) -> Scalars:
        """Scalars of one batch of a split, with the weights of `evaluated`.

        Args:
            batch: images `start`, `start` + 1, … of the split.
            start: number of the batch's first image, on which the noise depends; it is the same in every evaluation.
            step: number of updates so far, for schedules.
        """
        rng = BlockRng(self.seed, "valid", start, device=self.device)
        _, scalars, _ = self._evaluated(StepInputs(batch, step, (), rng))
        return scalars

    def rates(self, step: int) -> list[float]:
        """The learning rate of update `step` for every parameter group."""
        return self.optimizer.rates(step)

    def gradient_norm(self) -> Tensor:
        """The L2 norm of the last gradient before clipping, with shape `()`.

        Without clipping it is only computed on request, since it would slow down small networks by several per cent.
        """
        if self._norm is not None:
            return self._norm
        return nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])

    def state_dict(self) -> dict[str, Any]:
        """The state that an update depends on besides its inputs."""
        return {name: None if part is None else part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        for name, part in self._parts.items():
            if part is not None:
                part.load_state_dict(state[name])
