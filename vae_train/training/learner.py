"""How a gradient is taken and applied: the one place that knows how a step is executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vae_train.draws import BlockDraw, Draw, Rows
from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.ranges import Decay, PositiveFloat, PositiveInt
from vae_train.schedules import LearningRate

if TYPE_CHECKING:
    from vae_train.data.base import Batch

Scalars = dict[str, Tensor]


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
        precision: "bfloat16" runs the networks under autocast; log-probabilities stay float32.
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
        accumulate: PositiveInt,
        precision: Literal["float32", "bfloat16"],
    ) -> None:
        self.model, self.objective, self.lr_schedule, self.seed = model, objective, lr_schedule, seed
        self.parameters = [*model.parameters(), *objective.parameters()]
        self.device = self.parameters[0].device
        self.optimizer = optimizer(self.parameters)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.clip_norm, self.accumulate, self.precision = clip_norm, accumulate, precision
        self._norm: Tensor | None = None
        self.average = (
            None if ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(ema), use_buffers=True)
        )

    @property
    def evaluated(self) -> LatentVariableModel:
        """The model that is evaluated: the moving average, where there is one."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    @property
    def lr(self) -> float:
        """The learning rate of the last update."""
        return float(self.optimizer.param_groups[0]["lr"])

    def gradient_norm(self) -> float:
        """The L2 norm of the last update's gradient, before it was clipped.

        Where nothing is clipped it is only computed when it is asked for: at every step of a small network on a CPU it
        would be several per cent of the time.
        """
        norm = self._norm
        if norm is None:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        return float(norm)

    def update(self, batch: Batch, step: int) -> Scalars:
        """One optimiser step; returns scalars of the batch, taken before the step."""
        factor = self.lr_schedule(step)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        draw = Draw(self.seed, "train", step, device=self.device)
        scalars: Scalars = {}
        for part, rows in self._parts(batch):
            share = (rows.stop - rows.start) / rows.total
            with self._autocast():
                trace = self.model(part, draw if rows.total == len(part.x) else draw.part(rows), self._num_samples)
            terms = self.objective(trace, step)
            (terms["loss"] if share == 1 else share * terms["loss"]).backward()
            for name, value in _scalars(terms, trace).items():
                scalars[name] = value if share == 1 else scalars.get(name, 0.0) + share * value
        if self.clip_norm is not None:
            self._norm = nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return scalars

    @torch.no_grad()
    def evaluate(self, batch: Batch, start: int, step: int) -> Scalars:
        """Scalars of one batch of a split, without a gradient, with the weights that are evaluated.

        Args:
            batch: images `start`, `start` + 1, … of the split.
            start: number of the batch's first image; the noise is a function of it, and the same at every evaluation.
            step: number of updates so far, for schedules.
        """
        draw = BlockDraw(self.seed, "valid", start, device=self.device)
        with self._autocast():
            trace = self.evaluated(batch, draw, self._num_samples)
        return _scalars(self.objective(trace, step), trace)

    def state_dict(self) -> dict[str, Any]:
        """Everything that an update depends on but the batch and the step."""
        return {
            "model": self.model.state_dict(),
            "ema": None if self.average is None else self.average.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_schedule": self.lr_schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["ema"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.lr_schedule.load_state_dict(state["lr_schedule"])

    @property
    def _num_samples(self) -> int:
        return self.objective.num_samples

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, Rows]]:
        total = len(batch.x)
        bounds = [round(i * total / self.accumulate) for i in range(self.accumulate + 1)]
        for start, stop in pairwise(bounds):
            if start < stop:  # more pieces than images leave some empty
                yield (batch if stop - start == total else batch.part(start, stop)), Rows(start, stop, total)

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


def _scalars(terms: dict[str, Tensor], trace: Trace) -> Scalars:
    """What the objective says, and what every run reports of every batch, detached."""
    with torch.no_grad():
        distortion, rate = trace.distortion().mean(), trace.rate().mean()
        scalars = {name: value.detach() for name, value in terms.items()}
        scalars |= {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        bits = trace.bits_per_dim()
    return scalars if bits is None else scalars | {"bits_per_dim": bits.mean()}
