"""Gradients that are compiled as one pure function, and the runner of steps that use them.

Everything that changes between steps is an argument of the compiled function: parameters, buffers, images, noise and
the step. Its guards are therefore skipped, and each function has a code object of its own, since PyTorch keeps its
compilations by code object: without guards it could not tell one learner's from another's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Raw
from vae_train.rng import FixedNoise, Rng
from vae_train.training.execution.base import Mode, Rows, Runner, stacked
from vae_train.training.execution.feed import TensorFeed
from vae_train.training.gradients import EagerGradients, functional_gradients
from vae_train.training.module import StepModule, Targets
from vae_train.training.signals import handlers_kept
from vae_train.training.step import GradientFunction, Gradients, Reports, Scalars, Statistics, StoredBatch

PureStep = Callable[
    [Sequence[Tensor], Sequence[Tensor], Raw, Sequence[Tensor], Tensor, Sequence[Tensor]],
    tuple[list[Tensor], Scalars, Statistics],
]
"""(parameters, buffers, images, their noise, step, noise) -> (gradients, scalars, statistics)."""


class NotCompilable(Exception):
    """The compiler failed; the gradients are computed by `EagerGradients` from here on.

    Args:
        reason: what the compiler raised.
    """

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def torch_compile(function: PureStep) -> PureStep:
    """Compiles a pure function of tensors, without guards."""
    # PyTorch 2.10 brought the switch.
    skip = getattr(torch.compiler, "skip_all_guards_unsafe", lambda entries: [False] * len(entries))
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()  # a copy, see above
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False, options={"guard_filter_fn": skip})


class CompiledGradients(GradientFunction):
    """The gradients of `EagerGradients`, compiled as soon as the noise consists of tensors.

    Args:
        module: model and objective.
        compiler: turns a pure function into a faster one.
    """

    def __init__(self, module: StepModule, compiler: Callable[[PureStep], PureStep] = torch_compile) -> None:
        self.module, self.compiler, self.supported = module, compiler, True
        self._eager = EagerGradients(module)
        self._targets: Targets | None = None
        """The optimisation targets, without parameters that have no gradient; known after an eager step."""
        self._trained: list[int] = []
        self._parameters: tuple[Tensor, ...] = ()
        self._buffers: tuple[Tensor, ...] = ()
        self._compiled: dict[Any, PureStep] = {}

    @override
    def __call__(self, batch: Batch | StoredBatch, step: int | Tensor, rng: Rng, share: float) -> Reports:
        if not self._compiles(batch, rng):
            reports = self._eager(batch, step, rng, share)
            if self._targets is None:
                self._observe(reports.gradients)
            return reports
        raw, data_noise, finish = cast(StoredBatch, batch)
        noises = [cast(FixedNoise, noise).all() for noise in (data_noise, rng)]
        arguments = (self._parameters, self._buffers, raw, noises[0], cast(Tensor, step), noises[1])
        # Shapes are not guarded: every size of a microbatch has a function of its own.
        key = (finish, len(raw.pixels), share)
        if key not in self._compiled:
            self._compiled[key], results = self._compile(finish, share, arguments)
        else:
            results = self._compiled[key](*arguments)
        gradients: Gradients = [None] * len(self._parameters)
        for number, gradient in zip(self._trained, results[0], strict=True):
            gradients[number] = gradient
        return Reports(gradients, *results[1:])

    def _compiles(self, batch: Batch | StoredBatch, rng: Rng) -> bool:
        """Whether everything that changes is a tensor, after an eager step that showed which gradients exist."""
        if not self.supported or self._targets is None:
            return False
        return isinstance(batch, StoredBatch) and isinstance(rng, FixedNoise) and isinstance(batch.rng, FixedNoise)

    def _observe(self, gradients: Gradients) -> None:
        """Notes which parameters have a gradient."""
        absent = {number for number, gradient in enumerate(gradients) if gradient is None}
        targets = {name: [n for n in numbers if n not in absent] for name, numbers in self._eager.targets.items()}
        self._targets = {name: numbers for name, numbers in targets.items() if numbers}
        self._trained = sorted(number for numbers in targets.values() for number in numbers)
        self._parameters = tuple(p.detach() for p in self.module.parameters())
        self._buffers = tuple(self.module.buffers())

    def _compile(
        self, finish: Callable[[Raw, Rng], Batch], share: float, arguments: tuple[Any, ...]
    ) -> tuple[PureStep, tuple[list[Tensor], Scalars, Statistics]]:
        """The compiled function, and what it returns for `arguments`.

        Raises:
            NotCompilable: the compiler failed.
        """
        assert self._targets is not None
        gradients = functional_gradients(self.module, self._targets, share)

        def pure_step(
            parameters: Sequence[Tensor],
            buffers: Sequence[Tensor],
            raw: Raw,
            data_noise: Sequence[Tensor],
            step: Tensor,
            noise: Sequence[Tensor],
        ) -> tuple[list[Tensor], Scalars, Statistics]:
            batch = finish(raw, FixedNoise(data_noise))
            return gradients(parameters, buffers, batch, step, FixedNoise(noise))

        try:
            with handlers_kept():
                compiled = self.compiler(pure_step)
                return compiled, compiled(*arguments)
        except Exception as error:
            self.supported = False
            raise NotCompilable(error) from error


class Compiled(Runner):
    """Steps whose gradients are compiled; the first one, which shows what noise is requested, is not."""

    mode: Mode = "compile"

    @override
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._tensors = TensorFeed(self.feed)

    @override
    def __call__(self, step: int, limit: int) -> Rows:
        if self.mode == "compile":
            try:
                return stacked(self.step(self._tensors.inputs(step)))
            except NotCompilable as error:
                self.fall_back("eager", error.reason)
        return stacked(self.step(self.feed.inputs(step)))
