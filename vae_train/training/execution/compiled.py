"""Gradients compiled as one pure function, and the runner of steps that use them.

Everything that changes between steps is an argument of the compiled function: parameters, buffers, images, noise and
the step. Its guards are therefore skipped. Each function has its own code object, since PyTorch caches
compilations by code object and, without guards, would confuse the functions of different learners.
"""

from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Raw
from vae_train.rng import FixedNoise, Rng
from vae_train.training.execution.base import Rows, Runner, stacked
from vae_train.training.gradients import EagerGradients, Tensors, functional_gradients
from vae_train.training.signals import preserve_signal_handlers
from vae_train.training.step import Gradients, Reports, StepInputs, StepModule, StoredBatch, Targets

PureStep = Callable[[Tensors, Tensors, Raw, Tensors, Tensor, Tensors], Reports]
"""(parameters, buffers, images, their noise, step, noise) -> (gradients, scalars, statistics)."""


class NotCompilable(Exception):
    """The compiler failed; `EagerGradients` computes the gradients from now on."""


def torch_compile(function: PureStep) -> PureStep:
    """Compiles a pure function of tensors, without guards."""
    # available since PyTorch 2.10
    skip = getattr(torch.compiler, "skip_all_guards_unsafe", lambda entries: [False] * len(entries))
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()  # a copy, see the module's docstring
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    return torch.compile(own, fullgraph=True, dynamic=False, options={"guard_filter_fn": skip})


class CompiledGradients:
    """The gradients of `EagerGradients`, compiled as soon as the noise consists of tensors.

    Args:
        module: model and objective.
        compiler: compiles a pure function.
    """

    def __init__(self, module: StepModule, compiler: Callable[[PureStep], PureStep] = torch_compile) -> None:
        self.module, self.compiler, self.supported = module, compiler, True
        self._eager = EagerGradients(module)
        self._targets: Targets = {}
        """The optimisation targets, without parameters that have no gradient; set by the first eager step."""
        self._state: tuple[Tensors, Tensors] = ((), ())
        """Parameters and buffers."""
        self._compiled: dict[Any, PureStep] = {}

    def __call__(self, inputs: StepInputs, share: float) -> Reports:
        """See `GradientFunction`.

        Raises:
            NotCompilable: the compiler failed.
        """
        batch, step, _, rng = inputs
        if not (self.supported and self._targets and isinstance(batch, StoredBatch) and isinstance(rng, FixedNoise)):
            reports = self._eager(inputs, share)
            if not self._targets:
                self._observe(reports.gradients)
            return reports
        raw, data_noise, finish = batch
        arguments: tuple[Any, ...] = (*self._state, raw, cast(FixedNoise, data_noise).all(), step, rng.all())
        # Shapes are not guarded, so every microbatch size has its own function.
        key = (finish, len(raw.pixels), share)
        if key not in self._compiled:
            self._compiled[key] = self._compile(finish, share, arguments)
        return self._compiled[key](*arguments)

    def _observe(self, gradients: Gradients) -> None:
        """Records which parameters have a gradient."""
        present = {number for number, gradient in enumerate(gradients) if gradient is not None}
        targets = {name: [n for n in numbers if n in present] for name, numbers in self._eager.targets.items()}
        self._targets = {name: numbers for name, numbers in targets.items() if numbers}
        self._state = (tuple(p.detach() for p in self.module.parameters()), tuple(self.module.buffers()))

    def _compile(self, finish: Callable[[Raw, Rng], Batch], share: float, arguments: tuple[Any, ...]) -> PureStep:
        """Compiles the function, and calls it once with `arguments`."""
        gradients = functional_gradients(self.module, self._targets, share)

        def pure_step(
            parameters: Tensors, buffers: Tensors, raw: Raw, data_noise: Tensors, step: Tensor, noise: Tensors
        ) -> Reports:
            batch = StoredBatch(raw, FixedNoise(data_noise), finish)
            return gradients(parameters, buffers, StepInputs(batch, step, (), FixedNoise(noise)))

        try:
            with preserve_signal_handlers():
                compiled = self.compiler(pure_step)
                compiled(*arguments)
                return compiled
        except Exception as error:
            self.supported = False
            raise NotCompilable(str(error)) from error


class Compiled(Runner):
    """Takes steps with compiled gradients. The first step is eager and records the requested noise."""

    @override
    def __call__(self, step: int, limit: int) -> Rows:
        if self.mode == "compile":
            try:
                self.buffers.fill(step)
                # Optimisers that are not captured need learning rates as numbers.
                return stacked([self.step(self.buffers.inputs(0)._replace(rates=self.feed.rates(step)))])
            except NotCompilable as error:
                self.fall_back("eager", error)
        return super().__call__(step, limit)
