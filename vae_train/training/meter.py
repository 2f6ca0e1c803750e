"""Running means of a training's scalars, kept on the device until they are asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """`x` in float64, where its device has that."""
    return x if x.device.type == "mps" else x.double()


class Meter:
    """Means since the last row of the log, and since the epoch began.

    All batches of training are full, so a mean over steps is a mean over images.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._window: list[Tensor] = []
        self._epoch: Tensor | None = None
        self._count = 0

    def add(self, scalars: dict[str, Tensor]) -> None:
        """Takes the scalars of one step; no synchronisation with the device."""
        self.names = list(scalars)
        values = wide(torch.stack(list(scalars.values())))
        self._window.append(values)
        self._epoch = values if self._epoch is None else self._epoch + values
        self._count += 1

    def first_bad(self) -> tuple[int, list[str]] | None:
        """The first step since the last row with a figure that is not finite: how many steps ago, and which figures."""
        if not self._window:
            return None
        finite = torch.stack(self._window).isfinite().cpu()
        if finite.all():
            return None
        first = int((~finite.all(1)).nonzero()[0])
        return len(self._window) - 1 - first, [n for n, good in zip(self.names, finite[first], strict=True) if not good]

    def window(self) -> dict[str, float]:
        """Means since the last call of `window`."""
        means = torch.stack(self._window).mean(0).tolist()
        self._window = []
        return dict(zip(self.names, means, strict=True))

    def epoch(self) -> dict[str, float]:
        """Means since the last call of `epoch`."""
        assert self._epoch is not None
        means = (self._epoch / self._count).tolist()
        self._epoch, self._count = None, 0
        return dict(zip(self.names, means, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything, as plain data and tensors."""
        return {"names": self.names, "window": self._window, "epoch": self._epoch, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.names, self._window = list(state["names"]), list(state["window"])
        self._epoch, self._count = state["epoch"], state["count"]
