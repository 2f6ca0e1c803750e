"""Inputs, computation and outputs of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Batch, Raw
from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.rng import Rng, Rows
from vae_train.util.runtime import Precision

Scalars = dict[str, Tensor]
"""Name -> mean over the images of a batch: detached tensors with shape `()`."""

Gradients = list[Tensor | None]
"""One per parameter; None if the loss does not depend on it."""

Losses = dict[str, Tensor]
"""The losses of the optimisation targets by name, see `LOSSES` and `Objective.forward`."""

LOSSES = ("loss", "encoder_loss", "critic_loss")

Targets = dict[str, list[int]]
"""Optimisation targets: name of a loss -> numbers of the parameters that minimise it."""


class Statistics(NamedTuple):
    """Detached means over a batch, by which `update_state` changes the state of model and objective."""

    model: Scalars
    objective: Scalars


class Reports(NamedTuple):
    """The results of a backward pass."""

    gradients: Gradients
    scalars: Scalars
    statistics: Statistics


class StoredBatch(NamedTuple):
    """A stored batch, which a compiled or captured step converts to a `Batch` itself."""

    raw: Raw
    rng: Rng
    """The noise of augmentation, binarisation, dequantisation and corruption."""
    finish: Callable[[Raw, Rng], Batch]

    def part(self, start: int, stop: int) -> StoredBatch:
        """Images `start` to `stop` of the batch, with their noise of the whole batch."""
        pixels, y = self.raw
        raw = Raw(pixels[start:stop], None if y is None else y[start:stop])
        return self._replace(raw=raw, rng=self.rng.part(_rows_within(self.rng, len(pixels), start, stop)))


class StepInputs(NamedTuple):
    """The inputs of a step: all that it depends on besides the learner's state."""

    batch: Batch | StoredBatch
    step: int | Tensor
    """Number of updates so far; an int64 tensor with shape `()` if the step is compiled or captured."""
    rates: Sequence[float | Tensor]
    """The learning rate of every parameter group."""
    rng: Rng

    @property
    def rows(self) -> Rows:
        """The images of the whole batch that these inputs are for; other processes may have the others."""
        count = len(self.batch.raw.pixels if isinstance(self.batch, StoredBatch) else self.batch.x)
        return self.rng.rows or Rows(0, count, count)

    def microbatches(self, count: int) -> Iterator[tuple[StepInputs, float]]:
        """Splits the images into `count` parts of almost equal size.

        Yields:
            Some images with their noise of the whole batch, and their share of the whole batch.
        """
        first, stop, total = self.rows
        if count == 1:
            yield self, (stop - first) / total
            return
        yield from self.parts([first + cut for cut in cuts(stop - first, count)])

    def parts(self, bounds: Sequence[int]) -> Iterator[tuple[StepInputs, float]]:
        """Splits the images at `bounds`, which count from the first image of the whole batch, see `microbatches`."""
        first, _, total = self.rows
        for start, stop in pairwise(bounds):
            if start < stop:  # parts are empty if the batch has fewer images than parts
                rng, batch = self.rng.part(Rows(start, stop, total)), self.batch.part(start - first, stop - first)
                yield self._replace(batch=batch, rng=rng), (stop - start) / total


def cuts(total: int, count: int) -> list[int]:
    """The bounds of `count` consecutive parts of almost equal size: 0, …, total."""
    return [round(i * total / count) for i in range(count + 1)]


def _rows_within(rng: Rng, count: int, start: int, stop: int) -> Rows:
    """Images `start` to `stop` of the `count` images that `rng` is for, as images of the whole batch."""
    first, _, total = rng.rows or Rows(0, count, count)
    return Rows(first + start, first + stop, total)


GradientFunction = Callable[[StepInputs, float], Reports]
"""(inputs, share) -> gradients of share · loss for every loss, with scalars and statistics of these images."""


class StepModule(nn.Module):
    """Maps a batch to losses, scalars and statistics: one module, so that one `functional_call` covers both.

    Its parameters are those of the model, followed by those of the objective.

    Args:
        model: turns a batch into a trace.
        objective: turns the trace into losses.
        precision: "bfloat16" runs the model's networks under autocast; log-probabilities and objective stay float32.
    """

    def __init__(self, model: LatentVariableModel, objective: Objective, precision: Precision) -> None:
        super().__init__()
        self.model, self.objective, self.precision = model, objective, precision
        self._targets: dict[tuple[str, ...], Targets] = {}

    @override
    def forward(self, inputs: StepInputs) -> tuple[Losses, Scalars, Statistics]:
        batch, step, _, rng = inputs
        if isinstance(batch, StoredBatch):
            batch = batch.finish(batch.raw, batch.rng)
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            trace = self.model(batch, rng, self.objective.num_samples)
        terms = self.objective(self.model, trace, step, rng)
        model, objective = self.model.statistics(trace), self.objective.statistics(trace, terms)
        losses = {name: terms[name] for name in LOSSES if name in terms}
        return losses, _scalars(terms, trace), Statistics(_detached(model), _detached(objective))

    @torch.no_grad()
    def update_state(self, statistics: Statistics) -> None:
        """Updates the state of model and objective in place."""
        self.model.update_state(statistics.model)
        self.objective.update_state(statistics.objective)

    def targets(self, losses: Losses) -> Targets:
        """Maps losses to parameters: those of critic and encoder to their own, if there is one, others to "loss"."""
        names = tuple(losses)
        if names not in self._targets:
            encoder = {id(p) for p in self.model.inference_parameters()} if "encoder_loss" in losses else set()
            num_model = len(list(self.model.parameters()))
            targets: Targets = {name: [] for name in names}
            for number, p in enumerate(self.parameters()):
                if p.requires_grad:
                    is_critic = "critic_loss" in losses and number >= num_model
                    name = "critic_loss" if is_critic else "encoder_loss" if id(p) in encoder else "loss"
                    targets[name].append(number)
            self._targets[names] = {name: numbers for name, numbers in targets.items() if numbers}
        return self._targets[names]


def _detached(values: dict[str, Tensor]) -> Scalars:
    return {name: value.detach() for name, value in values.items()}


@torch.no_grad()
def _scalars(terms: dict[str, Tensor], trace: Trace) -> Scalars:
    """The terms of the objective and the metrics of every batch, detached.

    Models with several layers also have the rate of each, from `rate_1` of the topmost layer on.
    """
    distortion = trace.distortion().mean()
    if not trace.bounded:  # a point mass has neither rate nor ELBO
        return _detached(terms) | {"distortion": distortion}
    rate, bits = trace.rate().mean(), trace.bits_per_dim()
    scalars = _detached(terms) | {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
    if len(trace.latents) > 1:
        scalars |= {f"rate_{i}": latent.rate().mean() for i, latent in enumerate(trace.latents, 1)}
    return scalars if bits is None else scalars | {"bits_per_dim": bits.mean()}
