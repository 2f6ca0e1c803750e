"""The interface of an implementation that is measured: it trains a workload, some steps at a time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

import torch

from benchmarks.workload import Settings


class Unavailable(Exception):
    """An implementation cannot run on this machine; the message says why."""


class Implementation(ABC):
    """One way to train a workload.

    Args:
        settings: what is trained, and on what.
    """

    num_parameters: int

    def __init__(self, settings: Settings) -> None:
        self.settings, self.workload, self.device = settings, settings.workload, torch.device(settings.device)

    @abstractmethod
    def steps(self, count: int) -> float:
        """Takes optimiser steps and returns their mean loss in nats per image."""

    def epoch(self) -> None:
        """Trains for an epoch as users do, with validation and output files."""
        raise NotImplementedError

    def facts(self) -> dict[str, Any]:
        """Properties for the report; the number of parameters must be the same for all implementations."""
        return {"parameters": self.num_parameters}

    def timed_steps(self, count: int) -> dict[str, float]:
        """Takes steps; returns "seconds" and their mean "loss"."""
        self.synchronize()
        start = time.perf_counter()
        loss = self.steps(count)
        self.synchronize()
        return {"seconds": time.perf_counter() - start, "loss": loss}

    def timed_epoch(self) -> dict[str, float]:
        """Runs `epoch`; returns "seconds"."""
        self.synchronize()
        start = time.perf_counter()
        self.epoch()
        self.synchronize()
        return {"seconds": time.perf_counter() - start}

    def synchronize(self) -> None:
        """Waits for the kernels that were launched on a CUDA device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
