"""The optimiser with its learning-rate schedule, and a moving average of the weights."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from vae_train.model.base import LatentVariableModel
from vae_train.objective.base import Objective
from vae_train.training.lr import LearningRate

IMPLEMENTATION = ("fused", "foreach", "capturable")
"""Settings that affect how an optimiser computes, but not what."""


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

    def rates(self, step: int) -> list[float]:
        """The learning rate of update `step` for every parameter group."""
        factor = float(self.schedule(step))
        return [rate * factor for rate in self.base_rates]

    def step(self, rates: Sequence[float | Tensor]) -> None:
        """Updates the parameters with their gradients.

        Args:
            rates: the learning rate of every parameter group; tensors with shape `()` if the step is captured.
        """
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._step()

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's state, with the base learning rates."""
        state = self.optimizer.state_dict()
        groups = [group | {"lr": lr} for group, lr in zip(state["param_groups"], self.base_rates, strict=True)]
        return state | {"param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state, but keeps this optimiser's `IMPLEMENTATION` settings."""
        # PyTorch uses these settings while loading: a capturable optimiser counts its steps on the device.
        groups = [g | own for g, own in zip(state["param_groups"], self._implementation, strict=True)]
        self.optimizer.load_state_dict(state | {"param_groups": groups})


class MovingAverage(AveragedModel):
    """A copy of a model with the exponential moving averages of its weights and buffers.

    Args:
        model: the model that is trained.
        decay: fraction of the average that remains at every update.
    """

    module: LatentVariableModel

    def __init__(self, model: LatentVariableModel, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self._move, self._started = get_ema_multi_avg_fn(decay), False

    @override
    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        old, new = ([*each.parameters(), *each.buffers()] for each in (self.module, model))
        # PyTorch's own method reads the counter at every update, which waits for the device.
        if not self._started and self.n_averaged == 0:
            for average, value in zip(old, new, strict=True):
                average.copy_(value)
            self.n_averaged.fill_(1)
        else:
            self._move(old, new, self.n_averaged)
        self._started = True


def parameter_groups(model: nn.Module, objective: Objective) -> list[Any]:
    """The parameter groups of the optimiser; a critic with its own learning rate is a separate group."""
    critic = list(objective.parameters())
    if not critic or objective.critic_lr is None:
        return [*model.parameters(), *critic]
    return [{"params": list(model.parameters())}, {"params": critic, "lr": objective.critic_lr}]


def capturable(constructor: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """Makes a constructor's optimiser capturable in a CUDA graph: it then counts its steps on the device."""
    settings = inspect.signature(constructor).parameters
    return partial(constructor, capturable=True) if "capturable" in settings else constructor


def plain_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """`optimizer.step` without PyTorch's wrappers, which add profiler hooks and import the compiler.

    The import takes as long as that of PyTorch, and a step of a small network is 1 % faster without the wrappers.
    """
    if not type(optimizer).__module__.startswith("torch.optim"):
        return optimizer.step
    step = inspect.unwrap(type(optimizer).step)
    return torch.no_grad()(partial(step, optimizer))
