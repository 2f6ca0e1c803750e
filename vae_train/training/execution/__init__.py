"""How steps are executed: operation by operation, compiled, or captured as a CUDA graph.

A runner calls a step function with the inputs of a feed. The modes differ in rounding at most: a schedule that is
computed from a tensor has float32's 24 bits (on CUDA the learning rate too), and a compiler adds in another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_train.training.execution.base import Feed, Mode, Runner, Step
from vae_train.training.execution.compiled import Compiled, CompiledGradients
from vae_train.training.execution.cuda_graph import CudaGraph, CudaRecorder, steps_per_launch

__all__ = ["CompiledGradients", "Feed", "Mode", "Runner", "is_captured", "resolve", "runner", "steps_per_launch"]


def resolve(mode: Mode, device: torch.device) -> Mode:
    """What "auto" stands for: "graph" on CUDA, where launches take longer than a small network, "eager" elsewhere."""
    if mode != "auto":
        return mode
    return "graph" if device.type == "cuda" else "eager"


def is_captured(mode: Mode, device: torch.device) -> bool:
    """Whether the optimiser's step becomes part of a CUDA graph."""
    return device.type == "cuda" and resolve(mode, device) != "eager"


def runner(
    mode: Mode, step: Step, feed: Feed, gradient_norm: Callable[[], Tensor], steps_per_launch: int = 1
) -> Runner:
    """The runner of a mode.

    Args:
        mode: how steps are executed; "auto" is resolved. For "compile" the step function calls `CompiledGradients`.
        step: takes one step.
        feed: where the inputs come from.
        gradient_norm: the L2 norm of the gradient of the last step, with shape `()`.
        steps_per_launch: steps that one CUDA graph contains.
    """
    mode = resolve(mode, feed.device)
    if is_captured(mode, feed.device):
        return CudaGraph(step, feed, gradient_norm, mode, CudaRecorder(feed.device), steps_per_launch)
    if mode == "graph":
        raise ValueError(f"execution={mode} needs CUDA, and this is {feed.device.type}")
    return (Compiled if mode == "compile" else Runner)(step, feed, gradient_norm, mode)
