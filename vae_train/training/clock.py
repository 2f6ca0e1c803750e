"""How fast a training runs."""

from __future__ import annotations

import time

from vae_train.data.stream import Stream


class Clock:
    """Measures training images per second, and the share of the time that was spent waiting for data.

    Validation, previews and checkpoints do not count.

    Args:
        stream: the training batches, which know how long they were waited for.
    """

    def __init__(self, stream: Stream) -> None:
        self.images, self._stream, self._waited = 0, stream, 0.0
        self._epoch = (0, 0.0, 0.0)  # images, seconds, seconds spent waiting
        self._start = time.perf_counter()

    def lap(self) -> dict[str, float]:
        """The metrics since the last lap."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        waited = self._stream.waited - self._waited
        metrics = _pace(self.images, seconds, waited)
        images, total, waits = self._epoch
        self._epoch = (images + self.images, total + seconds, waits + waited)
        self.restart()
        return metrics

    def epoch(self) -> dict[str, float]:
        """The metrics since the last epoch."""
        self.lap()
        metrics, self._epoch = _pace(*self._epoch), (0, 0.0, 0.0)
        return metrics

    def restart(self) -> None:
        """Excludes the time since the last lap."""
        self.images, self._waited, self._start = 0, self._stream.waited, time.perf_counter()


def _pace(images: int, seconds: float, waited: float) -> dict[str, float]:
    return {"images_per_second": images / seconds, "data_wait": waited / seconds}
