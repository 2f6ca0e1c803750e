"""The gradients of one microbatch: by autograd, or as a pure function of parameters, buffers and inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch
from vae_train.rng import Rng
from vae_train.training.module import StepModule, Targets
from vae_train.training.step import GradientFunction, Gradients, Losses, Reports, Scalars, Statistics, StoredBatch

FunctionalGradients = Callable[
    [Sequence[Tensor], Sequence[Tensor], Batch | StoredBatch, int | Tensor, Rng],
    tuple[list[Tensor], Scalars, Statistics],
]
"""(parameters, buffers, batch, step, rng) -> (gradients of the parameters that have one, scalars, statistics)."""


class EagerGradients(GradientFunction):
    """Runs a module and calls `torch.autograd.grad` once for every optimisation target.

    Args:
        module: model and objective.
    """

    def __init__(self, module: StepModule) -> None:
        self.module, self.parameters = module, list(module.parameters())
        self.targets: Targets = {}
        """The optimisation targets of the last call."""

    @override
    def __call__(self, batch: Batch | StoredBatch, step: int | Tensor, rng: Rng, share: float) -> Reports:
        losses, scalars, statistics = self.module(batch, step, rng)
        self.targets = targets = self.module.targets(losses)
        gradients: Gradients = [None] * len(self.parameters)
        for name, numbers in targets.items():
            loss: Tensor = getattr(losses, name)
            parameters = [self.parameters[number] for number in numbers]
            weighted = loss if share == 1 else share * loss
            several = len(targets) > 1
            computed = torch.autograd.grad(weighted, parameters, retain_graph=several, allow_unused=True)
            for number, p, gradient in zip(numbers, parameters, computed, strict=True):
                gradients[number] = None if gradient is None else with_layout_of(p, gradient)
        return Reports(gradients, scalars, statistics)


def functional_gradients(module: StepModule, targets: Targets, share: float) -> FunctionalGradients:
    """A pure function with the results of `EagerGradients`, on the public interfaces of `torch.func`.

    Args:
        module: model and objective; called with other parameters and buffers than its own.
        targets: the optimisation targets, without the parameters that their losses do not depend on.
        share: the factor on every loss.
    """
    names, buffer_names = [n for n, _ in module.named_parameters()], [n for n, _ in module.named_buffers()]
    trained = sorted(number for numbers in targets.values() for number in numbers)
    place = {number: index for index, number in enumerate(trained)}

    def gradients(
        parameters: Sequence[Tensor],
        buffers: Sequence[Tensor],
        batch: Batch | StoredBatch,
        step: int | Tensor,
        rng: Rng,
    ) -> tuple[list[Tensor], Scalars, Statistics]:
        state = dict(zip(names, parameters, strict=True)) | dict(zip(buffer_names, buffers, strict=True))

        def losses_of(values: tuple[Tensor, ...]) -> tuple[Losses, tuple[Scalars, Statistics]]:
            state.update({names[number]: value for number, value in zip(trained, values, strict=True)})
            losses, scalars, statistics = torch.func.functional_call(module, state, (batch, step, rng))
            return losses, (scalars, statistics)

        def weighted(values: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Scalars, Statistics]]:
            losses, reports = losses_of(values)
            return share * losses.loss, reports

        def several(values: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Scalars, Statistics]]:
            losses, reports = losses_of(values)
            return tuple(getattr(losses, name) for name in targets), reports

        values = tuple(parameters[number] for number in trained)
        if tuple(targets) == ("loss",):
            computed, reports = torch.func.grad(weighted, has_aux=True)(values)
        else:
            losses, pullback, reports = torch.func.vjp(several, values, has_aux=True)  # type: ignore[misc]
            computed = [None] * len(trained)
            for target, numbers in enumerate(targets.values()):
                weights = [torch.full_like(loss, share * (i == target)) for i, loss in enumerate(losses)]
                (pulled,) = pullback(tuple(weights))
                for number in numbers:
                    computed[place[number]] = pulled[place[number]]
        laid_out = [with_layout_of(p, gradient) for p, gradient in zip(values, computed, strict=True)]
        scalars, statistics = reports
        return laid_out, scalars, statistics

    return gradients


def accumulate(total: Reports | None, part: Reports, share: float) -> Reports:
    """Adds the reports of a microbatch: its gradients, which contain its share already, and its share of the means."""
    model, objective = part.statistics
    weighted = Reports(
        part.gradients, _times(part.scalars, share), Statistics(_times(model, share), _times(objective, share))
    )
    if total is None:
        return weighted
    gradients = [
        b if a is None else a if b is None else a + b for a, b in zip(total.gradients, part.gradients, strict=True)
    ]
    statistics = Statistics(*map(_plus, total.statistics, weighted.statistics))
    return Reports(gradients, _plus(total.scalars, weighted.scalars), statistics)


def _times(scalars: Scalars, share: float) -> Scalars:
    return {name: share * value for name, value in scalars.items()}


def _plus(a: Scalars, b: Scalars) -> Scalars:
    return {name: value + b[name] for name, value in a.items()}


def with_layout_of(p: Tensor, gradient: Tensor) -> Tensor:
    """A gradient in the memory layout of its parameter, which fused optimisers take for granted.

    `Tensor.backward` does the same, `torch.autograd.grad` does not: the gradient of a parameter that was expanded may
    store one number where the parameter stores many.
    """
    if gradient.stride() == p.stride():
        return gradient
    strides = zip(gradient.shape, gradient.stride(), p.stride(), strict=True)
    if all(own == other for size, own, other in strides if size > 1):
        return gradient
    return torch.empty_like(p).copy_(gradient)


def without_aliases(gradients: Gradients) -> Gradients:
    """The gradients, each in memory of its own, so that they can be changed in place.

    `torch.autograd.grad` returns the same tensor for both terms of a sum.
    """
    seen: set[int] = set()
    separate: Gradients = []
    for gradient in gradients:
        if gradient is not None:
            address = gradient.untyped_storage().data_ptr()
            gradient = gradient.clone() if address in seen else gradient
            seen.add(address)
        separate.append(gradient)
    return separate
