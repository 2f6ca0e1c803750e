"""The optimiser with its learning-rate schedule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vae_train.objective.base import Objective
from vae_train.training.lr import LearningRate

IMPLEMENTATION = ("fused", "foreach", "capturable")
"""Settings of an optimiser that decide how it computes, not what."""


class ScheduledOptimizer:
    """An optimiser whose learning rates follow a schedule.

    Args:
        optimizer: an optimiser of `torch.optim` over all parameters.
        schedule: a factor on the optimiser's learning rates as a function of the step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, schedule: LearningRate) -> None:
        self.optimizer, self.schedule = optimizer, schedule
        self.base_rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._implementation = [{k: group[k] for k in IMPLEMENTATION if k in group} for group in optimizer.param_groups]
        self._step = plain_step(optimizer)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimiser's parameter groups."""
        return self.optimizer.param_groups

    def rates(self, step: int) -> list[float]:
        """The learning rate of update `step` for every parameter group."""
        factor = float(self.schedule(step))
        return [rate * factor for rate in self.base_rates]

    def step(self, rates: Sequence[float | Tensor]) -> None:
        """Updates the parameters by their gradients.

        Args:
            rates: the learning rate of every parameter group; tensors with shape `()` where the step is captured.
        """
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._step()

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, with the learning rates that the schedule multiplies."""
        state = self.optimizer.state_dict()
        groups = [group | {"lr": lr} for group, lr in zip(state["param_groups"], self.base_rates, strict=True)]
        return state | {"param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state; how this optimiser computes stays as it was constructed."""
        # PyTorch reads these settings while it loads: a capturable optimiser counts its steps on the device.
        groups = [g | own for g, own in zip(state["param_groups"], self._implementation, strict=True)]
        self.optimizer.load_state_dict(state | {"param_groups": groups})


def parameter_groups(model: nn.Module, objective: Objective) -> list[Any]:
    """The parameters that an optimiser receives; a critic with its own learning rate is a group of its own."""
    critic = list(objective.parameters())
    if not critic or objective.critic_lr is None:
        return [*model.parameters(), *critic]
    return [{"params": list(model.parameters())}, {"params": critic, "lr": objective.critic_lr}]


def capturable(constructor: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """A constructor whose optimiser can be part of a CUDA graph: it counts its steps on the device."""
    return (
        partial(constructor, capturable=True)
        if "capturable" in inspect.signature(constructor).parameters
        else constructor
    )


def plain_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """`optimizer.step` without PyTorch's wrappers around it: hooks for profilers, and the import of its compiler.

    That import takes as long as that of PyTorch, and a step of a small network is 1 % faster without the wrappers.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return optimizer.step
    step = inspect.unwrap(type(optimizer).step)
    return torch.no_grad()(partial(step, optimizer))
