"""Model and objective as one module, so that one `torch.func.functional_call` covers both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Batch
from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.rng import Rng
from vae_train.training.step import Losses, Scalars, Statistics, StoredBatch
from vae_train.util.runtime import Precision

Targets = dict[str, Sequence[int]]
"""Optimisation targets: field of `Losses` -> numbers of the parameters that minimise this loss."""


class StepModule(nn.Module):
    """A batch -> losses, scalars and statistics.

    Its parameters are those of the model, followed by those of the objective.

    Args:
        model: turns a batch into a trace.
        objective: turns the trace into losses.
        precision: "bfloat16" runs the model's networks under autocast; log-probabilities and objective stay float32.
    """

    def __init__(self, model: LatentVariableModel, objective: Objective, precision: Precision) -> None:
        super().__init__()
        self.model, self.objective, self.precision = model, objective, precision
        self._targets: dict[tuple[bool, bool], Targets] = {}

    @override
    def forward(self, batch: Batch | StoredBatch, step: int | Tensor, rng: Rng) -> tuple[Losses, Scalars, Statistics]:
        if isinstance(batch, StoredBatch):
            batch = batch.finished()
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            trace = self.model(batch, rng, self.objective.num_samples)
        terms = self.objective(self.model, trace, step, rng)
        losses = Losses(terms["loss"], terms.get("critic_loss"), terms.get("encoder_loss"))
        model, objective = self.model.statistics(trace), self.objective.statistics(trace, terms)
        return losses, _scalars(terms, trace), Statistics(_detached(model), _detached(objective))

    @torch.no_grad()
    def update_state(self, statistics: Statistics) -> None:
        """Moves the state of model and objective, in place."""
        if statistics.model:
            self.model.update_state(statistics.model)
        if statistics.objective:
            self.objective.update_state(statistics.objective)

    def targets(self, losses: Losses) -> Targets:
        """Which parameters minimise which loss: a critic's its own, q's the encoder loss, the others the loss."""
        kind = (losses.critic is None, losses.encoder is None)
        if kind not in self._targets:
            self._targets[kind] = self._assign(*kind)
        return self._targets[kind]

    def _assign(self, no_critic: bool, no_encoder: bool) -> Targets:
        parameters = list(self.parameters())
        trained = [number for number, p in enumerate(parameters) if p.requires_grad]
        if no_critic and no_encoder:
            return {"loss": trained}
        inference = set() if no_encoder else {id(p) for p in self.model.inference_parameters()}
        num_model = len(list(self.model.parameters()))
        of_model = [number for number in trained if number < num_model]
        targets = {
            "loss": [number for number in of_model if id(parameters[number]) not in inference],
            "encoder": [number for number in of_model if id(parameters[number]) in inference],
            "critic": [] if no_critic else [number for number in trained if number >= num_model],
        }
        return {name: numbers for name, numbers in targets.items() if numbers}


def _detached(values: dict[str, Tensor]) -> Scalars:
    return {name: value.detach() for name, value in values.items()}


def _scalars(terms: dict[str, Tensor], trace: Trace) -> Scalars:
    """The terms of the objective, and what is reported of every batch, detached."""
    with torch.no_grad():
        distortion = trace.distortion().mean()
        scalars = _detached(terms)
        if not trace.bounded:  # a point mass has no rate, and no bound
            return scalars | {"distortion": distortion}
        rate = trace.rate().mean()
        scalars |= {"elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
        bits = trace.bits_per_dim()
    return scalars if bits is None else scalars | {"bits_per_dim": bits.mean()}
