"""How a gradient is taken and applied: the one place that knows how a step is executed."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.rng import BlockRng, Rng, Rows
from vae_train.training.execution import Execution, Mode, resolve
from vae_train.training.execution import execution as executed
from vae_train.training.lr import LearningRate
from vae_train.training.nodes import memory
from vae_train.training.step import Calls, Differentiated, Gradients, Last, Losses, Scalars
from vae_train.util.ranges import Decay, PositiveFloat, PositiveInt
from vae_train.util.runtime import Precision, memory_format
from vae_train.util.text import first_line

if TYPE_CHECKING:
    from vae_train.batch import Batch
    from vae_train.data.stream import Stream

log = logging.getLogger("vae_train")

WAYS = ("fused", "foreach", "capturable")
"""Settings of an optimiser that say how it computes, not what."""


class Learner:
    """A model, its objective and its optimiser.

    Args:
        model: what is trained.
        objective: what is minimised.
        optimizer: a constructor of `torch.optim`, given the parameters.
        lr_schedule: a factor on the optimiser's learning rate as a function of the step.
        seed: the run's seed.
        clip_norm: the gradient is scaled down to this L2 norm where it is longer; None does not clip.
        ema: decay of an exponential moving average of the weights, which is then what is evaluated and sampled; None
            for none.
        accumulate: pieces that a batch is cut into, one after the other, to save memory. The noise is that of the whole
            batch, so the gradient is the same up to rounding.
        precision: "bfloat16" runs the networks under autocast; log-probabilities stay float32. "tf32" is for
            `vae_train.util.runtime.prepare`.
        execution: how steps are executed, see `vae_train.training.execution`; "auto" is `resolve`d.
        steps: how many the run will take.
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
        execution: Mode,
        steps: float = 0,
    ) -> None:
        self.model, self.objective, self.lr_schedule, self.seed = model, objective, lr_schedule, seed
        self.parameters = [*model.parameters(), *objective.parameters()]
        self._num_model = len(list(model.parameters()))
        self.device = self.parameters[0].device
        self.model.to(memory_format=memory_format(self.device, precision))  # type: ignore[call-overload]
        self.optimizer = optimizer(_groups(model, objective))
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.clip_norm, self.grad_accumulation, self.precision = clip_norm, grad_accumulation, precision
        self.calls = Calls(self.differentiated, plain_step(self.optimizer))
        """What a step calls where nothing is compiled."""
        self._asked = [{k: group[k] for k in WAYS if k in group} for group in self.optimizer.param_groups]
        self.average = None if ema is None else AveragedModel(model, use_buffers=True)
        self._follow = None if ema is None else get_ema_multi_avg_fn(ema)
        self._averaging = False
        self.names: list[str] = []
        """What `advance` returns the figures of; known after the first step."""
        self.last = Last([], None)
        """What the last step left behind."""
        self._execution = executed(resolve(execution, self.device, steps), self)
        self._suit_optimizer()

    @property
    def execution(self) -> Mode:
        """How steps are executed: "eager", "compile" or "graph"."""
        return self._execution.mode

    @property
    def fused(self) -> bool:
        """Whether the optimiser's step is a kernel of PyTorch's, which reads all that changes from tensors."""
        fused = all(group.get("fused") for group in self.optimizer.param_groups)
        return fused and type(self.optimizer).__module__.startswith("torch.optim")

    @property
    def evaluated(self) -> LatentVariableModel:
        """The model that is evaluated: the moving average, where there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def rates(self, step: int) -> list[float]:
        """The learning rate of update `step` for every group of parameters."""
        factor = float(self.lr_schedule(step))
        return [rate * factor for rate in self.base_rates]

    def gradient_norm(self) -> float:
        """The L2 norm of the last update's gradient, before it was clipped.

        Where nothing is clipped it is only computed when it is asked for: at every step of a small network it would be
        several per cent of the time.
        """
        norm = self.last.norm
        return float(nn.utils.get_total_norm(self.last.gradients) if norm is None else norm)

    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        """Takes as many steps as are executed in one go, at most `limit` and at least one.

        Args:
            stream: where the batches come from.
            step: number of updates so far.
            limit: how many steps may be taken.

        Returns:
            The scalars of each step, taken before it: a tensor with shape `(steps, F)` on the device, which is not
            waited for; `names` says what they are.
        """
        return self._execution.advance(stream, step, limit)

    def update(self, batch: Batch, step: int) -> Scalars:
        """One optimiser step, one operation after the other; returns scalars of the batch, taken before the step."""
        self.set_rates(self.rates(step))
        return self.take(batch, step, Rng(self.seed, "train", step, device=self.device))

    def take(self, batch: Batch, step: int | Tensor, rng: Rng, calls: Calls | None = None) -> Scalars:
        """What a step is, given its learning rate and its noise: tensor operations that wait for nothing.

        Args:
            batch: images.
            step: number of updates so far; a tensor where the step is captured.
            draw: the source of the noise.
            calls: what is called instead of `self.calls`.
        """
        calls = calls or self.calls
        scalars = self.differentiate(batch, step, rng, calls.differentiated)
        calls.apply()
        self.update_average()
        return scalars

    def differentiate(
        self, batch: Batch, step: int | Tensor, rng: Rng, differentiated: Differentiated | None = None
    ) -> Scalars:
        """The first half of `take`: leaves the clipped gradients in `last` and with the parameters."""
        differentiated = differentiated or self.differentiated
        self.forget_gradients()
        scalars: Scalars = {}
        for part, rows in self._parts(batch):
            share = (rows.stop - rows.start) / rows.total
            noise = rng if rows.total == len(part.x) else rng.part(rows)
            gradients, found = differentiated(part, step, noise, share)
            for p, gradient in zip(self.parameters, apart(gradients), strict=True):
                if gradient is not None:
                    p.grad = gradient if p.grad is None else p.grad + gradient
            for name, value in found.items():
                scalars[name] = value if share == 1 else scalars.get(name, 0.0) + share * value
        norm = None if self.clip_norm is None else nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.last = Last([p.grad for p in self.parameters if p.grad is not None], norm)
        with torch.no_grad():
            self.objective.update_state(scalars)
        return scalars

    def forget_gradients(self) -> None:
        """There was no step yet."""
        for p in self.parameters:
            p.grad = None
        self.last = Last([], None)

    def forward(self, batch: Batch, step: int | Tensor, rng: Rng) -> tuple[Losses, Scalars]:
        """The losses of a batch, and what every run reports of it, detached."""
        with self._autocast():
            trace = self.model(batch, rng, self._num_samples)
        terms = self.objective(trace, step)
        losses = Losses(terms["loss"], terms.get("critic_loss"), terms.get("encoder_loss"))
        return losses, _scalars(terms, trace)

    def differentiated(self, batch: Batch, step: int | Tensor, rng: Rng, share: float) -> tuple[Gradients, Scalars]:
        """`gradients` of what `forward` returns, and what every run reports of the batch."""
        losses, scalars = self.forward(batch, step, rng)
        return self.gradients(losses, share), scalars

    def gradients(self, losses: Losses, share: float) -> Gradients:
        """The gradient of each player's loss, times `share`, for its own parameters."""
        players = self._players(losses)
        found: Gradients = [None] * len(self.parameters)
        for loss, own in players:
            parameters = [self.parameters[number] for number in own]
            weighted = loss if share == 1 else share * loss
            several = len(players) > 1
            gradients = torch.autograd.grad(weighted, parameters, retain_graph=several, allow_unused=True)
            for number, p, gradient in zip(own, parameters, gradients, strict=True):
                found[number] = None if gradient is None else laid_out(gradient, p)
        return found

    def update_average(self) -> None:
        """Moves the average of the weights, where there is one, towards them.

        `AveragedModel.update_parameters` has a counter besides, which the device would be waited for.
        """
        if self.average is None or self._follow is None:
            return
        old = [*self.average.module.parameters(), *self.average.module.buffers()]
        new = [*self.model.parameters(), *self.model.buffers()]
        with torch.no_grad():
            if self._averaging:
                self._follow(old, new, self.average.n_averaged)
            else:
                torch._foreach_copy_(old, new)
                self.average.n_averaged.fill_(1)
                self._averaging = True

    def row(self, scalars: Scalars) -> Tensor:
        """The scalars of a step as a tensor with shape `(F,)`."""
        self.names = list(scalars)
        return torch.stack(list(scalars.values()))

    def set_rates(self, rates: Sequence[float | Tensor]) -> None:
        """Tells the optimiser the learning rate of every group of parameters; a tensor where the step is captured."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def fall_back(self, error: Exception) -> Execution:
        """Goes on one operation after the other, since `execution` is not possible here; returns what does."""
        reason = first_line(error)
        log.warning("execution=%s is not possible here, going on with eager: %s", self.execution, reason)
        log.debug("%s", reason, exc_info=error)
        self._execution = executed("eager", self)
        self._suit_optimizer()
        return self._execution

    @torch.no_grad()
    def evaluate(self, batch: Batch, start: int, step: int) -> Scalars:
        """Scalars of one batch of a split, without a gradient, with the weights that are evaluated.

        Args:
            batch: images `start`, `start` + 1, … of the split.
            start: number of the batch's first image; the noise is a function of it, and the same at every evaluation.
            step: number of updates so far, for schedules.
        """
        rng = BlockRng(self.seed, "valid", start, device=self.device)
        with self._autocast():
            trace = self.evaluated(batch, rng, self._num_samples)
        return _scalars(self.objective(trace, step), trace)

    def state_dict(self) -> dict[str, Any]:
        """Everything that an update depends on but the batch and the step."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.average is None else self.average.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self._optimizer_state(),
            "lr_schedule": self.lr_schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["ema"])
            self._averaging = bool(self.average.n_averaged > 0)
        self.objective.load_state_dict(state["objective"])
        saved, own = state["optimizer"], self._ways()
        # With the ways of this run, since PyTorch puts a count of steps on the device where they ask for that.
        groups = [group | ways for group, ways in zip(saved["param_groups"], own, strict=True)]
        self.optimizer.load_state_dict(saved | {"param_groups": groups})
        self.lr_schedule.load_state_dict(state["lr_schedule"])

    def _players(self, losses: Losses) -> list[tuple[Tensor, list[int]]]:
        """Each loss with the numbers of the parameters that minimise it."""
        trained = [number for number, p in enumerate(self.parameters) if p.requires_grad]
        if losses.critic is None and losses.encoder is None:
            return [(losses.loss, trained)]
        inferring = frozenset() if losses.encoder is None else self._inferring
        of_model = [number for number in trained if number < self._num_model]
        players = [
            (losses.loss, [number for number in of_model if number not in inferring]),
            (losses.encoder, [number for number in of_model if number in inferring]),
            (losses.critic, [number for number in trained if number >= self._num_model]),
        ]
        return [(loss, own) for loss, own in players if loss is not None and own]

    @cached_property
    def _inferring(self) -> frozenset[int]:
        """Numbers of the parameters of q(z | x)."""
        inferring = {id(p) for p in self.model.inference_parameters()}
        return frozenset(number for number, p in enumerate(self.parameters) if id(p) in inferring)

    def _optimizer_state(self) -> dict[str, Any]:
        """The optimiser's state; how steps are executed does not show in it."""
        state = self.optimizer.state_dict()
        groups = []
        for group, rate, asked in zip(state["param_groups"], self.base_rates, self._asked, strict=True):
            groups.append(group | {"lr": rate} | asked)
        return state | {"param_groups": groups}

    def _suit_optimizer(self) -> None:
        """Lets the optimiser compute in the way in which steps are executed."""
        for group, ways in zip(self.optimizer.param_groups, self._ways(), strict=True):
            group.update(ways)

    def _ways(self) -> list[dict[str, Any]]:
        """`WAYS` of every group of parameters: as asked for, but where steps are captured or compiled on CUDA.

        A captured optimiser counts its steps on the device. A compiler makes one kernel of many operations, and nothing
        of PyTorch's fused kernel, which gives 65,536 numbers to each of a GPU's processors: most of them idle where a
        network is small.
        """
        captured, compiled = self._execution.captured, self._execution.fuses
        if self.device.type != "cuda":
            captured = compiled = False
        found = []
        for asked in self._asked:
            ways = dict(asked)
            if captured and "capturable" in ways:
                ways["capturable"] = True
            if compiled and ways.get("fused"):
                ways |= {"fused": False, "foreach": True}
            found.append(ways)
        return found

    @property
    def _num_samples(self) -> int:
        return self.objective.num_samples

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, Rows]]:
        total = len(batch.x)
        bounds = [round(i * total / self.grad_accumulation) for i in range(self.grad_accumulation + 1)]
        for start, stop in pairwise(bounds):
            if start < stop:  # more pieces than images leave some empty
                yield (batch if stop - start == total else batch.part(start, stop)), Rows(start, stop, total)

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def _groups(model: nn.Module, objective: Objective) -> list[Any]:
    """The parameters that an optimiser is given; a critic with a learning rate of its own is a group of its own."""
    own = list(objective.parameters())
    if not own or objective.critic_lr is None:
        return [*model.parameters(), *own]
    return [{"params": list(model.parameters())}, {"params": own, "lr": objective.critic_lr}]


def laid_out(gradient: Tensor, p: Tensor) -> Tensor:
    """A gradient in the memory layout of its parameter, as fused optimisers take for granted.

    `Tensor.backward` sees to that, `torch.autograd.grad` does not: the gradient of a parameter that was expanded may
    have one number where the parameter has many.
    """
    if gradient.stride() == p.stride():
        return gradient
    strides = zip(gradient.shape, gradient.stride(), p.stride(), strict=True)
    if all(own == theirs for size, own, theirs in strides if size > 1):
        return gradient
    return torch.empty_like(p).copy_(gradient)


def apart(gradients: Gradients) -> Gradients:
    """The gradients, each in memory of its own, since clipping changes them in place.

    `torch.autograd.grad` gives both parts of a sum the same tensor.
    """
    seen: set[int] = set()
    found: Gradients = []
    for gradient in gradients:
        if gradient is not None:
            place = memory(gradient)
            gradient = gradient.clone() if place in seen else gradient
            seen.add(place)
        found.append(gradient)
    return found


def plain_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """`optimizer.step` without what PyTorch wraps around its own: hooks for profilers, and the import of its compiler.

    That import takes as long as that of PyTorch, and a step of a small network is 1 % faster.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return optimizer.step
    step = inspect.unwrap(type(optimizer).step)
    return torch.no_grad()(partial(step, optimizer))


def _scalars(terms: dict[str, Tensor], trace: Trace) -> Scalars:
    """What the objective says, and what every run reports of every batch, detached."""
    with torch.no_grad():
        distortion = trace.distortion().mean()
        scalars = {name: value.detach() for name, value in terms.items()}
        if not trace.bounded:  # a point mass has no rate, and no bound
            return scalars | {"distortion": distortion}
        rate = trace.rate().mean()
        scalars |= {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        bits = trace.bits_per_dim()
    return scalars if bits is None else scalars | {"bits_per_dim": bits.mean()}
