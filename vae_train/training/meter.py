"""Running means of a training's scalars, and its speed."""

import time
from typing import Any, Literal

import torch
from torch import Tensor

from vae_train.data.stream import Stream

Scope = Literal["step", "epoch"]


class Meter:
    """Means since the last row of the log and since the start of the epoch, kept on the device until they are read.

    All batches of training are full, so a mean over steps is a mean over images.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self._window = torch.empty(0, 0, dtype=torch.float64)
        self._unread: list[Tensor] = []
        self._sum: Tensor | float = 0.0
        self._count = 0

    def add(self, names: list[str], rows: Tensor) -> None:
        """Adds the metrics `names` of some steps, with shape `(steps, F)`; does not wait for the device."""
        self.names = names
        self._unread.append(rows)

    def first_nonfinite(self) -> tuple[int, list[str]] | None:
        """The first step since the last row with a NaN or infinite metric: how many steps ago, and which metrics."""
        finite = self._read().isfinite()
        if finite.all():
            return None
        first = int((~finite.all(1)).nonzero()[0])
        return len(finite) - 1 - first, [n for n, good in zip(self.names, finite[first], strict=True) if not good]

    def window(self) -> dict[str, float]:
        """Means since the last call of `window`."""
        rows = self._read()
        self._sum = self._sum + rows.sum(0)
        self._count += len(rows)
        self._window = self._window[:0]
        return self._named(rows.mean(0))

    def epoch(self) -> dict[str, float]:
        """Means since the last call of `epoch`."""
        rows = self._read()
        means = self._named((self._sum + rows.sum(0)) / (self._count + len(rows)))
        # The open window will be added as a whole, but its steps so far belong to this epoch.
        self._sum, self._count = -rows.sum(0), -len(rows)
        return means

    def state_dict(self) -> dict[str, Any]:
        """The state as plain data and tensors."""
        return {"names": self.names, "window": self._read(), "sum": self._sum, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        self.names, self._window = list(state["names"]), state["window"]
        self._sum, self._count, self._unread = state["sum"], state["count"], []

    def _read(self) -> Tensor:
        """The window on the CPU, with shape `(steps, F)`. Waits for the device."""
        if self._unread:
            new = torch.cat(self._unread).cpu().double()
            self._window = torch.cat([self._window, new]) if len(self._window) else new
            self._unread = []
        return self._window

    def _named(self, values: Tensor) -> dict[str, float]:
        return dict(zip(self.names, values.tolist(), strict=True))


class Clock:
    """Measures training images per second, and the fraction of time spent waiting for data.

    Validation, previews and checkpoints between epochs do not count.

    Args:
        stream: the training batches, which measure the time spent waiting for them.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream, self._epoch = stream, (0, 0.0, 0.0)  # images, seconds, seconds spent waiting
        self.restart()

    def restart(self) -> None:
        """Excludes the time since the last call of `pace`."""
        self.images, self._waited, self._start = 0, self._stream.waited, time.perf_counter()

    def pace(self, scope: Scope) -> dict[str, float]:
        """The metrics since the last call, or since the start of the epoch."""
        images, total, waits = self._epoch
        seconds, waited = max(time.perf_counter() - self._start, 1e-9), self._stream.waited - self._waited
        lap, self._epoch = (self.images, seconds, waited), (images + self.images, total + seconds, waits + waited)
        if scope == "epoch":
            lap, self._epoch = self._epoch, (0, 0.0, 0.0)
        self.restart()
        return {"images_per_second": lap[0] / lap[1], "data_wait": lap[2] / lap[1]}
