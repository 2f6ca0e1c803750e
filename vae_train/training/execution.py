"""How steps are executed: one operation after the other, compiled, or captured once and replayed as a CUDA graph.

All of them run `Learner.take`, which says what a step is. They differ in rounding at most: where a learning rate is
a tensor it has float32's 24 bits, and a compiled network adds in another order.
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

from vae_train.data.base import Raw
from vae_train.draws import Draw, Given, Noise
from vae_train.training.stopping import handlers_kept

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vae_train.data.base import Batch, Stream
    from vae_train.training.learner import Calls, Differentiated, Gradients, Learner, Scalars

Mode = Literal["auto", "eager", "compile", "graph"]

log = logging.getLogger("vae_train")

WARM_STEPS = 3
"""Steps before a capture: libraries choose their kernels, and the optimiser makes its state."""

COMPILED_FROM = 2
"""The first step that is compiled; the one before shows the shapes of the noise."""

TINY = 2**27
"""Parameters times images per step below which one launch holds several steps: launching then takes as long."""

STEPS_PER_LAUNCH = 10


def resolve(mode: Mode, device: torch.device) -> Mode:
    """What "auto" stands for: "graph" on CUDA, where launches cost more than a small network; "eager" elsewhere.

    Compiling is never chosen unasked: it needs a C++ compiler and up to half a minute, which short runs never win back.
    """
    if mode != "auto":
        return mode
    return "graph" if device.type == "cuda" else "eager"


def execution(mode: Mode, learner: Learner) -> Execution:
    """The execution called `mode`; on CUDA what is compiled is captured too."""
    if mode == "compile" and learner.device.type == "cuda":
        return CompiledGraph(learner)
    return {"eager": Eager, "compile": Compiled, "graph": Graph}[mode](learner)


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
        """See `Learner.advance`."""


class Eager(Execution):
    """One operation after the other."""

    mode: Mode = "eager"

    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        """See `Learner.advance`."""
        return self.learner.row(self.learner.update(stream.batch(step), step))[None]


class Compiled(Execution):
    """Forward and backward pass compiled by torch.compile, after a first step that shows the shapes of the noise.

    Args:
        learner: whose steps.
    """

    mode: Mode = "compile"

    def __init__(self, learner: Learner) -> None:
        super().__init__(learner)
        self._noise = Noise(learner.seed, "train", learner.device)
        self._step = torch.zeros((), dtype=torch.int64, device=learner.device)
        self._calls = learner.calls._replace(differentiated=compiled(learner))
        self._steps = 0

    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        """See `Learner.advance`."""
        learner = self.learner
        learner.set_rates(step)
        self._noise.seek(step)
        self._step.fill_(step)
        self._steps += 1
        batch = stream.batch(step)
        if self._steps == 1:
            return learner.row(learner.take(batch, self._step, self._noise.draw()))[None]
        try:
            return learner.row(learner.take(batch, self._step, self._noise.draw(), self._calls))[None]
        except Exception as error:
            if self._steps != COMPILED_FROM:
                raise
            return learner.fall_back(error).advance(stream, step, limit)


def compiled(learner: Learner) -> Differentiated:
    """`Learner.differentiated` compiled, for noise that is `Given`: a compiler cannot seed generators."""
    whole = backward_too(learner.device)
    if whole:
        torch._dynamo.config.trace_autograd_ops = True

    def given(batch: Batch, step: int | Tensor, noise: tuple[Tensor, ...], share: float) -> tuple[Any, Scalars]:
        losses, scalars = learner.forward(batch, step, Given(noise))
        return learner.gradients(losses, share) if whole else losses, scalars

    run = torch.compile(given, fullgraph=True, dynamic=False)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA, on a CPU too

    def differentiated(batch: Batch, step: int | Tensor, draw: Draw, share: float) -> tuple[Gradients, Scalars]:
        assert isinstance(draw, Given)
        found, scalars = run(batch, step, draw.all(), share)
        return found if whole else learner.gradients(found, share), scalars

    return differentiated


def backward_too(device: torch.device) -> bool:
    """Whether forward and backward pass become one compiled function.

    What autograd does between two is a seventh of a small step on a CPU, and nothing of a captured step. Older versions
    of PyTorch cannot.
    """
    return device.type != "cuda" and hasattr(torch._dynamo.config, "trace_autograd_ops")


class Recorder(Protocol):
    """What turns a function that works in place on tensors into one that repeats this work on the same tensors."""

    def warm(self) -> AbstractContextManager[None]:
        """Where the function runs before it is recorded."""
        ...

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """The repetition; nothing is executed by recording."""
        ...


class CudaGraphs:
    """CUDA's own recorder.

    Args:
        device: whose work is recorded.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def warm(self) -> Iterator[None]:
        """See `Recorder.warm`."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """See `Recorder.record`."""
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

    def advance(self, stream: Stream, step: int, limit: int) -> Tensor:
        """See `Learner.advance`."""
        self._recorder = self._recorder or CudaGraphs(self.learner.device)
        if self._first is None or self._first.stream is not stream:
            self._first, self._warmed, self._launches = Launch(self.learner, stream, 1, self._calls), 0, {}
        if self._warmed < WARM_STEPS:
            return self._warm(self._first, self._recorder, step)
        many = steps_per_launch(self.learner, stream)
        count = many if limit >= many else 1
        if count not in self._launches:
            launch = Launch(self.learner, stream, count, self._calls, like=self._first)
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
        super().__init__(learner, recorder, learner.calls._replace(differentiated=compiled(learner), apply=apply))

    def _warm(self, first: Launch, recorder: Recorder, step: int) -> Tensor:
        try:
            with handlers_kept():
                return super()._warm(first, recorder, step)
        except Exception as error:
            if self._warmed != COMPILED_FROM:
                raise
            return self.learner.fall_back(error).advance(first.stream, step, 1)


def steps_per_launch(learner: Learner, stream: Stream) -> int:
    """Steps of one replay: several where the model is `TINY`, but never more than one pass over the images."""
    work = sum(p.numel() for p in learner.parameters) * stream.batch_size
    return min(STEPS_PER_LAUNCH, len(stream.images) // stream.batch_size) if work < TINY else 1


class Launch:
    """Some consecutive steps as a function of tensors that stay where they are.

    Which images, which step, which learning rate and which noise are read from tensors that are filled before every
    replay. A Python number would be frozen into the graph.

    Args:
        learner: whose steps.
        stream: where the images come from.
        count: how many steps.
        calls: see `Graph`.
        like: a launch that has run and knows which noise is asked for.
    """

    def __init__(
        self,
        learner: Learner,
        stream: Stream,
        count: int,
        calls: Calls | None = None,
        like: Launch | None = None,
    ) -> None:
        device, groups = learner.device, len(learner.base_rates)
        self.learner, self.stream, self.count, self._calls = learner, stream, count, calls
        self._index = torch.zeros(count, stream.batch_size, dtype=torch.int64, device=stream.device)
        self._raw: list[Raw] = []
        """Images that are not on the device are copied to where the step finds them."""
        self._steps = torch.zeros(count, dtype=torch.int64, device=device)
        self._rates = torch.zeros(count, groups, device=device)
        self._filled: list[list[float]] = []
        self._rows: Tensor | None = None
        if like is None:
            self._noise = [(Noise(learner.seed, "data", stream.device), Noise(learner.seed, "train", device))]
        else:
            assert like._rows is not None
            ((data, train),) = like._noise
            self._noise = [(data.like(), train.like()) for _ in range(count)]
            self._rows = torch.zeros_like(like._rows).repeat(count, 1)
            self._raw = [_empty_like(raw) for raw in like._raw for _ in range(count)]
        self._last: Any = None
        self._replay: Callable[[], None] | None = None

    def warm(self, step: int) -> Tensor:
        """Takes the steps without a graph; returns their rows."""
        self._fill(step)
        self._body()
        assert self._rows is not None
        return self._rows.clone()

    def record(self, recorder: Recorder) -> None:
        """Captures the steps without taking them."""
        for number, (data, train) in enumerate(self._noise):
            data.seek(number)
            train.seek(number)
        for p in self.learner.parameters:
            p.grad = None  # what the capture makes stays in the graph's own memory
        self._replay = recorder.record(self._body)
        self._last = self.learner.last

    def __call__(self, step: int) -> Tensor:
        """Takes steps `step`, `step` + 1, …; returns their rows, with shape `(count, F)`."""
        assert self._replay is not None
        assert self._rows is not None
        self._fill(step)
        self._replay()
        self.learner.last = self._last
        return self._rows.clone()

    def _fill(self, step: int) -> None:
        """Sets the inputs; all of it is queued on the device, which is not waited for."""
        if self.stream.images.resident:
            self._index.view(-1).copy_(self.stream.index(step, self.count))
        else:
            self._feed(step)
        torch.arange(step, step + self.count, out=self._steps)
        rates = [self.learner.rates(step + number) for number in range(self.count)]
        if rates != self._filled:
            pinned = self._rates.is_cuda  # or the copy would wait for the device
            self._rates.copy_(torch.tensor(rates, pin_memory=pinned), non_blocking=True)
            self._filled = rates
        for number, (data, train) in enumerate(self._noise):
            data.seek(step + number)
            train.seek(step + number)

    def _feed(self, step: int) -> None:
        """Copies the images of all steps to tensors that stay where they are."""
        for number in range(self.count):
            raw = self.stream.raw(step + number)
            if len(self._raw) <= number:
                self._raw.append(_empty_like(raw))
            for mine, theirs in zip(self._raw[number], raw, strict=True):
                if mine is not None and theirs is not None:
                    mine.copy_(theirs, non_blocking=True)

    def _images(self, number: int) -> Raw:
        """The stored images of one step, on the device."""
        return self._raw[number] if self._raw else self.stream.images.gather(self._index[number])

    def _body(self) -> None:
        learner = self.learner
        for number, (data, train) in enumerate(self._noise):
            for group, rate in zip(learner.optimizer.param_groups, self._rates[number].unbind(), strict=True):
                group["lr"] = rate
            batch, draw = self.stream.images.finish(self._images(number), data.draw()), train.draw()
            calls = self._calls if isinstance(draw, Given) else None
            row = learner.row(learner.take(batch, self._steps[number], draw, calls))
            if self._rows is None:
                self._rows = torch.zeros_like(row)[None]
            self._rows[number].copy_(row)


def _empty_like(raw: Raw) -> Raw:
    return Raw(torch.empty_like(raw.pixels), None if raw.y is None else torch.empty_like(raw.y))
