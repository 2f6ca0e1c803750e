"""Gradients of one microbatch, by autograd or as a pure function of parameters, buffers and inputs."""

# PyTorch's compiler does not evaluate the annotations of nested functions.
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vae_train.training.step import Gradients, Reports, Scalars, Statistics, StepInputs, StepModule, Targets

Tensors = Sequence[Tensor]


class EagerGradients:
    """Runs a module and calls `torch.autograd.grad` once for every optimisation target.

    Args:
        module: model and objective.
    """

    def __init__(self, module: StepModule) -> None:
        self.module, self.parameters = module, list(module.parameters())
        self.targets: Targets = {}
        """The optimisation targets of the last call."""

    def __call__(self, inputs: StepInputs, share: float) -> Reports:
        """See `GradientFunction`."""
        losses, scalars, statistics = self.module(inputs)
        self.targets = targets = self.module.targets(losses)
        gradients: Gradients = [None] * len(self.parameters)
        for name, numbers in targets.items():
            loss = losses[name] if share == 1 else share * losses[name]
            if not loss.requires_grad:
                continue  # a critic that has not started
            parameters = [self.parameters[number] for number in numbers]
            computed = torch.autograd.grad(loss, parameters, retain_graph=len(targets) > 1, allow_unused=True)
            for number, p, gradient in zip(numbers, parameters, computed, strict=True):
                gradients[number] = None if gradient is None else with_layout_of(p, gradient)
        return Reports(gradients, scalars, statistics)


def functional_gradients(
    module: StepModule, targets: Targets, share: float
) -> Callable[[Tensors, Tensors, StepInputs], Reports]:
    """Builds a pure function with the same results as `EagerGradients`, using `torch.func`.

    Args:
        module: model and objective; its own parameters and buffers are not used.
        targets: the optimisation targets, without parameters that their losses do not depend on.
        share: the factor on every loss.

    Returns:
        A function of parameters, buffers and inputs.
    """
    names = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    trained = sorted(number for numbers in targets.values() for number in numbers)

    def gradients(parameters: Tensors, buffers: Tensors, inputs: StepInputs) -> Reports:
        state = dict(zip(names, (*parameters, *buffers), strict=True))

        def losses_of(values: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Scalars, Statistics]]:
            moved = {names[number]: value for number, value in zip(trained, values, strict=True)}
            losses, scalars, statistics = torch.func.functional_call(module, state | moved, (inputs,))
            return tuple(losses[name] for name in targets), (scalars, statistics)

        values = tuple(parameters[number] for number in trained)
        losses, pullback, reports = torch.func.vjp(losses_of, values, has_aux=True)  # type: ignore[misc]
        computed: dict[int, Tensor] = {}
        for target, numbers in enumerate(targets.values()):
            (pulled,) = pullback(tuple(torch.full_like(loss, share * (i == target)) for i, loss in enumerate(losses)))
            own = dict(zip(trained, pulled, strict=True))
            computed |= {number: with_layout_of(parameters[number], own[number]) for number in numbers}
        return Reports([computed.get(number) for number in range(len(parameters))], *reports)

    return gradients


def accumulate(total: Reports | None, part: Reports, share: float) -> Reports:
    """Adds the reports of a microbatch, whose gradients (but not its means) are already weighted by its share."""
    before = total or Reports([None] * len(part.gradients), {}, Statistics({}, {}))
    gradients = [
        b if a is None else a if b is None else a + b for a, b in zip(before.gradients, part.gradients, strict=True)
    ]
    statistics = (_plus(a, b, share) for a, b in zip(before.statistics, part.statistics, strict=True))
    return Reports(gradients, _plus(before.scalars, part.scalars, share), Statistics(*statistics))


def _plus(total: Scalars, part: Scalars, share: float) -> Scalars:
    return {name: total[name] + share * x if name in total else share * x for name, x in part.items()}


def with_layout_of(p: Tensor, gradient: Tensor) -> Tensor:
    """Converts a gradient to the memory layout of its parameter, which fused optimisers assume.

    `Tensor.backward` does the same, but `torch.autograd.grad` does not: the gradient of an expanded parameter may
    store one number where the parameter stores many.
    """
    if gradient.stride() == p.stride():
        return gradient
    strides = zip(gradient.shape, gradient.stride(), p.stride(), strict=True)
    if all(own == other for size, own, other in strides if size > 1):
        return gradient
    return torch.empty_like(p).copy_(gradient)
