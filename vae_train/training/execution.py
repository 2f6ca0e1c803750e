"""How steps are executed: as Python says them, captured as a CUDA graph, or traced to their operations and compiled.

`Learner.take` says what a step is, for all of them. They differ in rounding at most: a schedule that is computed from a
tensor has float32's 24 bits (on CUDA the learning rate too), and a compiler adds in another order.
"""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.rng import FixedNoise, Rng
from vae_train.training.counts import lay_side_by_side
from vae_train.training.inputs import Inputs
from vae_train.training.signals import handlers_kept
from vae_train.training.step import Calls, Differentiated, Gradients, Last, Losses, Scalars
from vae_train.training.traced import compiled, repeated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vae_train.batch import Batch
    from vae_train.data.stream import Stream
    from vae_train.training.learner import Learner

Mode = Literal["auto", "eager", "compile", "graph"]

log = logging.getLogger("vae_train")

WARM_STEPS = 3
"""Steps before a capture: libraries choose their kernels, and the optimiser makes its state."""

COMPILED_FROM = 2
"""The first step on CUDA that is compiled; the one before shows the shapes of the noise."""

MANY = 5_000
"""Steps from which a run on a CPU wins back the second or two that tracing takes, and more."""

TINY = 2**27
"""Parameters times images per step below which one launch holds several steps: launching then takes as long."""

STEPS_PER_LAUNCH = 10


def resolve(mode: Mode, device: torch.device, steps: float) -> Mode:
    """What "auto" stands for.

    "graph" on CUDA, where launches cost more than a small network, and on a CPU for runs of at least `MANY` steps;
    "eager" elsewhere. Compiling is never chosen unasked, since it needs a C++ compiler.

    Args:
        mode: what was asked for.
        device: where the steps are taken.
        steps: how many steps the run will take.
    """
    if mode != "auto":
        return mode
    return "graph" if device.type == "cuda" or (device.type == "cpu" and steps >= MANY) else "eager"


def execution(mode: Mode, learner: Learner) -> Execution:
    """The execution called `mode`; on CUDA what is compiled is captured too."""
    cuda = learner.device.type == "cuda"
    kinds = {"eager": Eager, "graph": Graph if cuda else Repeated, "compile": CompiledGraph if cuda else Compiled}
    return kinds[mode](learner)


class Execution(ABC):
    """Takes steps.

    Args:
        learner: whose steps.
    """

    mode: Mode
    captured = False
    """Whether the optimiser's steps become part of a CUDA graph."""
    fuses = False
    """Whether a compiler makes few kernels of the optimiser's operations."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    @abstractmethod
    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        """Runs some steps; see `Learner.advance`."""


class Eager(Execution):
    """One operation after the other."""

    mode: Mode = "eager"

    @override
    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        return self.learner.row(self.learner.update(stream.batch(step), step))[None]


class Traced(Execution):
    """Steps without the Python around their operations; the first one, which shows what noise is asked for, with it.

    Args:
        learner: whose steps.
    """

    make: Callable[[Callable[[], list[Tensor]]], Callable[[], list[Tensor]]]
    """What makes a function of operations from a function; see `vae_train.training.traced`."""

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        self._inputs: Inputs | None = None
        self._program: Program | None = None

    @override
    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        if self._inputs is None or self._inputs.stream is not stream:
            return self._first(stream, step)
        if self._program is None:
            try:
                self._program = Program(self._inputs, self.make)
            except Exception as error:
                return self.learner.fall_back(error).advance(stream, step, limit)
        return self._program(step)

    def _first(self, stream: Stream, step: int) -> Tensor:
        """Takes a step as it is."""
        learner, inputs = self.learner, Inputs(self.learner, stream)
        inputs.fill(step)
        learner.set_rates(learner.rates(step))
        row = learner.row(learner.take(*inputs.of(0)))
        self._inputs, self._program = inputs, None
        return row[None]


class Repeated(Traced):
    """The operations of a step, one after the other: what a CUDA graph is, for a CPU."""

    mode: Mode = "graph"
    make = staticmethod(repeated)

    @override
    def _first(self, stream: Stream, step: int) -> Tensor:
        row = super()._first(stream, step)
        lay_side_by_side(self.learner.optimizer)
        return row


class Compiled(Traced):
    """The operations of a step as one compiled function."""

    mode: Mode = "compile"
    make = staticmethod(compiled)


class Program:
    """A step as a function of its `Inputs`, made of operations alone.

    An optimiser that is not one of PyTorch's fused kernels is called as it is: it may count in Python.

    Args:
        inputs: of a step that was taken.
        make: see `Traced`.
    """

    def __init__(self, inputs: Inputs, make: Callable[..., Callable[[], list[Tensor]]]) -> None:
        self.inputs, self.learner, self._fused = inputs, inputs.learner, inputs.learner.fused
        inputs.seek(0)  # from the second time on the noise is in tensors
        try:
            self._run = make(self._take)
            self._trained = [p for p in self.learner.parameters if p.grad is not None]
            self._clips = self.learner.last.norm is not None
        finally:
            # What tracing leaves behind has shapes and no numbers.
            self.learner.forget_gradients()
            self.learner.set_rates(self.learner.base_rates)

    def __call__(self, step: int) -> Tensor:
        """Takes step `step`; returns its row, with shape `(1, F)`."""
        learner = self.learner
        self.inputs.fill(step)
        rows, *found = self._run()
        norm = found.pop() if self._clips else None
        if not self._fused:
            for p, gradient in zip(self._trained, found, strict=True):
                p.grad = gradient
            learner.set_rates(learner.rates(step))
            learner.calls.apply()
        learner.last = Last(found, norm)
        learner.update_average()
        return rows

    def _take(self) -> list[Tensor]:
        """What is traced: returns the row, the gradients and, where they are clipped, their norm."""
        learner = self.learner
        row = learner.row(learner.differentiate(*self.inputs.of(0)))
        gradients, norm = learner.last
        if self._fused:
            learner.set_rates(self.inputs.rates(0))
            learner.calls.apply()
        return [row[None], *gradients, *([] if norm is None else [norm])]


class Recorder(Protocol):
    """What turns a function that works in place on tensors into one that repeats this work on the same tensors."""

    def warm(self) -> AbstractContextManager[None]:
        """Where the function runs before it is recorded."""
        ...

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """The repetition; nothing is executed by recording."""
        ...


class CudaGraphs(Recorder):
    """CUDA's own recorder.

    Args:
        device: whose work is recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    @override
    def warm(self) -> Iterator[None]:
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    @override
    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # "thread_local": the thread that writes checkpoints may talk to the device meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            body()
        return graph.replay


class Graph(Execution):
    """Whole steps captured once and replayed: gather, forward, backward, clip, optimiser, average, scalars.

    The first `WARM_STEPS` steps run uncaptured. Small models have `STEPS_PER_LAUNCH` steps in one launch.

    Args:
        learner: whose steps; its optimiser is made capturable.
        recorder: see `Recorder`; None for CUDA's own.
        calls: what is called instead of `Learner.calls` as soon as the noise is known.
    """

    mode: Mode = "graph"
    captured = True

    def __init__(self, learner: Learner, recorder: Recorder | None = None, calls: Calls | None = None) -> None:
        super().__init__(learner)
        self._recorder, self._calls = recorder, calls
        self._first: Launch | None = None
        self._warmed = 0
        self._launches: dict[int, Launch] = {}

    @override
    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        self._recorder = self._recorder or CudaGraphs(self.learner.device)
        if self._first is None or self._first.inputs.stream is not stream:
            inputs = Inputs(self.learner, stream)
            self._first, self._warmed, self._launches = Launch(inputs, self._calls), 0, {}
        if self._warmed < WARM_STEPS:
            return self._warm(self._first, self._recorder, step)
        many = steps_per_launch(self.learner, stream)
        count = many if limit >= many else 1
        if count not in self._launches:
            inputs = Inputs(self.learner, stream, count, like=self._first.inputs)
            launch = Launch(inputs, self._calls, like=self._first)
            try:
                launch.record(self._recorder)
            except Exception as error:
                return self.learner.fall_back(error).advance(stream, step, limit)
            self._launches[count] = launch
        return self._launches[count](step)

    def _warm(self, first: Launch, recorder: Recorder, step: int) -> Tensor:
        """Takes a step that is not captured."""
        self._warmed += 1
        with recorder.warm(), warnings.catch_warnings():
            # PyTorch warns of a capturable optimiser that is not captured: these steps are what it asks for.
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            return first.warm(step)


class CompiledGraph(Graph):
    """Forward pass, backward pass and optimiser compiled, and captured with the rest of the steps.

    Args:
        learner: whose steps.
        recorder: see `Recorder`.
    """

    mode: Mode = "compile"
    fuses = True

    def __init__(self, learner: Learner, recorder: Recorder | None = None) -> None:
        apply = torch.compile(learner.calls.apply, dynamic=False)
        super().__init__(learner, recorder, Calls(compiled_forward(learner), apply))

    def _warm(self, first: Launch, recorder: Recorder, step: int) -> Tensor:
        try:
            with handlers_kept():
                return super()._warm(first, recorder, step)
        except Exception as error:
            if self._warmed != COMPILED_FROM:
                raise
            return self.learner.fall_back(error).advance(first.inputs.stream, step, 1)


def compiled_forward(learner: Learner) -> Differentiated:
    """`Learner.differentiated` with the forward pass, and so its backward pass, compiled, for `FixedNoise`."""

    def given(batch: Batch, step: int | Tensor, noise: tuple[Tensor, ...]) -> tuple[Losses, Scalars]:
        return learner.forward(batch, step, FixedNoise(noise))

    forward = torch.compile(given, fullgraph=True, dynamic=False)

    def differentiated(batch: Batch, step: int | Tensor, rng: Rng, share: float) -> tuple[Gradients, Scalars]:
        assert isinstance(rng, FixedNoise)
        losses, scalars = forward(batch, step, rng.all())
        return learner.gradients(losses, share), scalars

    return differentiated


def steps_per_launch(learner: Learner, stream: Stream) -> int:
    """Steps of one replay: several where the model is `TINY`, but never more than one pass over the images."""
    work = sum(p.numel() for p in learner.parameters) * stream.batch_size
    return min(STEPS_PER_LAUNCH, len(stream.images) // stream.batch_size) if work < TINY else 1


class Launch:
    """Some consecutive steps as a function of their `Inputs`.

    Args:
        inputs: what is filled before every replay.
        calls: see `Graph`.
        like: a launch that has run.
    """

    def __init__(self, inputs: Inputs, calls: Calls | None = None, like: Launch | None = None) -> None:
        self.learner, self.inputs, self._calls = inputs.learner, inputs, calls
        self._rows: Tensor | None = None
        if like is not None:
            assert like._rows is not None
            self._rows = torch.zeros_like(like._rows).repeat(inputs.count, 1)
        self._last: Any = None
        self._replay: Callable[[], None] | None = None

    def warm(self, step: int) -> Tensor:
        """Takes the steps without a graph; returns their rows."""
        self.inputs.fill(step)
        self._body()
        assert self._rows is not None
        return self._rows.clone()

    def record(self, recorder: Recorder) -> None:
        """Captures the steps without taking them."""
        self.inputs.seek(0)
        for p in self.learner.parameters:
            p.grad = None  # what the capture makes stays in the graph's own memory
        self._replay = recorder.record(self._body)
        self._last = self.learner.last

    def __call__(self, step: int) -> Tensor:
        """Takes steps `step`, `step` + 1, …; returns their rows, with shape `(count, F)`."""
        assert self._replay is not None
        assert self._rows is not None
        self.inputs.fill(step)
        self._replay()
        self.learner.last = self._last
        return self._rows.clone()

    def _body(self) -> None:
        learner = self.learner
        for number in range(self.inputs.count):
            learner.set_rates(self.inputs.rates(number))
            batch, step, rng = self.inputs.of(number)
            calls = self._calls if isinstance(rng, FixedNoise) else None
            row = learner.row(learner.take(batch, step, rng, calls))
            if self._rows is None:
                self._rows = torch.zeros_like(row)[None]
            self._rows[number].copy_(row)
