"""An exponential moving average of a model's weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vae_train.model.base import LatentVariableModel


class MovingAverage:
    """A copy of a model whose weights and buffers are an exponential moving average of the model's own.

    `AveragedModel.update_parameters` would do the same, but it reads a counter from the device and waits for it.

    Args:
        model: the model that is trained.
        decay: how much of the average remains at every update.
    """

    def __init__(self, model: LatentVariableModel, decay: float) -> None:
        self._average = AveragedModel(model, use_buffers=True)
        self._move = get_ema_multi_avg_fn(decay)
        self._started = False
        self.module: LatentVariableModel = self._average.module  # type: ignore[assignment]

    @torch.no_grad()
    def update(self, model: LatentVariableModel) -> None:
        """Moves the average towards `model`; the first update copies it."""
        old = [*self.module.parameters(), *self.module.buffers()]
        new = [*model.parameters(), *model.buffers()]
        if self._started:
            self._move(old, new, self._average.n_averaged)
            return
        for average, value in zip(old, new, strict=True):
            average.copy_(value)
        self._average.n_averaged.fill_(1)
        self._started = True

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights and buffers, and whether there was an update."""
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        self._average.load_state_dict(state)
        self._started = bool(self._average.n_averaged > 0)
