"""What a contender is: something that trains a work, a number of steps at a time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import torch

from benchmarks.work import Setting


class Missing(Exception):
    """A contender cannot be had here; says what would help."""


class Contender(ABC):
    """One way to train.

    Args:
        setting: what is trained and on what.
    """

    parameters: int
    """Numbers that are trained."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.work, self.device = setting, setting.work, torch.device(setting.device)

    @abstractmethod
    def steps(self, count: int) -> float:
        """Takes `count` optimiser steps; returns their mean loss in nats per image."""

    def epoch(self) -> None:
        """Trains for an epoch as its users do, with validation and with what is written on the way."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Facts that must be the same for all contenders, and some that need not be."""
        return {"parameters": self.parameters}

    def timed(self, count: int) -> dict[str, float]:
        """Takes steps; returns "seconds" and "loss"."""
        self.wait()
        start = time.perf_counter()
        loss = self.steps(count)
        self.wait()
        return {"seconds": time.perf_counter() - start, "loss": loss}

    def timed_epoch(self) -> dict[str, float]:
        """`epoch`; returns "seconds"."""
        self.wait()
        start = time.perf_counter()
        self.epoch()
        self.wait()
        return {"seconds": time.perf_counter() - start}

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def outside(self, count: int) -> tuple[float, float]:
        """The share of the time of `count` steps in which the CUDA device idles.

        The profiler makes what is between kernels longer. So there are two figures: with the time of these steps
        without a profiler, which is at most the truth, and with it, which is at least the truth.
        """
        bare = self.timed(count)["seconds"]
        kinds = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as profile:
            seconds = self.timed(count)["seconds"]
        inside = covered(device_spans(profile))
        return 1 - inside * 1e-6 / bare, 1 - inside * 1e-6 / seconds


def device_spans(profile: torch.profiler.profile) -> list[tuple[float, float]]:
    """Beginning and end of everything that ran on the CUDA device, in microseconds."""
    return [
        (event.time_range.start, event.time_range.end)
        for event in profile.events() or []
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]


def covered(spans: list[tuple[float, float]]) -> float:
    """The length of the union of some intervals: kernels that run side by side count once."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        if end > until:
            total += end - max(start, until)
            until = end
    return total
