"""Modes of executing steps: eager, compiled, or captured as a CUDA graph.

A runner calls a step function with the inputs of a feed. The modes differ only in rounding: a schedule that is
computed from a tensor is rounded to float32 (on CUDA the learning rate too), and a compiler adds in another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from vae_train.training.execution.base import Feed, Mode, Runner, Step
from vae_train.training.execution.compiled import Compiled, CompiledGradients
from vae_train.training.execution.cuda_graph import CudaGraph, CudaRecorder, steps_per_launch

__all__ = ["CompiledGradients", "Feed", "Mode", "Runner", "is_captured", "resolve", "runner", "steps_per_launch"]


def resolve(mode: Mode, device: torch.device) -> Mode:
    """Resolves "auto": "graph" on CUDA, where launches dominate the time of small networks, "eager" elsewhere."""
    if mode != "auto":
        return mode
    return "graph" if device.type == "cuda" else "eager"


def is_captured(mode: Mode, device: torch.device) -> bool:
    """Whether the optimiser's step becomes part of a CUDA graph."""
    return device.type == "cuda" and resolve(mode, device) != "eager"


def runner(
    mode: Mode, step: Step, feed: Feed, gradient_norm: Callable[[], Tensor], steps_per_launch: int = 1
) -> Runner:
    """Builds the runner of a mode.

    Args:
        mode: how steps are executed; "auto" is resolved. For "compile" the step function calls `CompiledGradients`.
        step: takes one step.
        feed: supplies the inputs.
        gradient_norm: the L2 norm of the gradient of the last step, with shape `()`.
        steps_per_launch: steps that one CUDA graph contains.
    """
    mode = resolve(mode, feed.device)
    if is_captured(mode, feed.device):
        return CudaGraph(step, feed, gradient_norm, mode, CudaRecorder(feed.device), steps_per_launch)
    if mode == "graph":
        raise ValueError(f"execution={mode} needs CUDA, not {feed.device.type}")
    return (Compiled if mode == "compile" else Runner)(step, feed, gradient_norm, mode)
