"""Runs whole steps as captured CUDA graphs."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.training.execution.base import Buffers, Rows, Runner, stacked
from vae_train.training.execution.compiled import NotCompilable

WARMUP_STEPS = 3
"""Steps before a capture, in which libraries choose kernels and the optimiser creates its state."""

MAX_SMALL_WORK = 2**27
"""Parameters times batch size below which a launch contains several steps, since launching takes as long as a step."""

STEPS_PER_LAUNCH = 10


def steps_per_launch(num_parameters: int, batch_size: int, num_images: int) -> int:
    """Number of steps per launch: several for small networks, but at most one pass over the images."""
    is_small = num_parameters * batch_size < MAX_SMALL_WORK
    return min(STEPS_PER_LAUNCH, num_images // batch_size) if is_small else 1


class CudaRecorder:
    """Records CUDA graphs.

    Args:
        device: the CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def warm(self) -> Iterator[None]:
        """The context in which a function must run before it is recorded."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def record(self, body: Callable[[], None]) -> Callable[[], None]:
        """Records an in-place function of tensors, without executing it.

        Returns:
            A function that replays the recording on the same tensors.
        """
        graph = torch.cuda.CUDAGraph()
        # "thread_local", since the thread that writes checkpoints may use the device meanwhile.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            body()
        return graph.replay


@dataclass
class CudaGraph(Runner):
    """Whole steps captured once and replayed: images, forward, backward, clipping, optimiser, average, scalars.

    The first `WARMUP_STEPS` steps are not captured.

    Args:
        step: takes one step; its optimiser is capturable.
        feed: supplies the inputs.
        norm: the L2 norm of the gradient of the last step, with shape `()`.
        mode: "graph", or "compile" if the step function calls `CompiledGradients`.
        recorder: records a launch.
        steps_per_launch: steps that one graph contains.
    """

    recorder: CudaRecorder
    steps_per_launch: int

    def __post_init__(self) -> None:
        self._warmed = 0
        self._launches: dict[int, Launch] = {}
        self._last: Launch | None = None

    @override
    def __call__(self, step: int, limit: int) -> Rows:
        if self._warmed < WARMUP_STEPS:
            return self._warm(step)
        if self.mode == "eager":
            return super().__call__(step, limit)
        count = self.steps_per_launch if limit >= self.steps_per_launch else 1
        if count not in self._launches:
            try:
                self._launches[count] = Launch(self, Buffers(self.feed, count, like=self.buffers), self.recorder)
            except Exception as error:
                self.fall_back("eager", error)
                self._last = None
                return self(step, limit)
        self._last = self._launches[count]
        return self._last(step)

    @override
    def gradient_norm(self) -> float:
        return super().gradient_norm() if self._last is None else float(self._last.norm)

    def _warm(self, step: int) -> Rows:
        """Takes a step that is not captured."""
        buffers = self.buffers  # allocated on the stream that later steps use
        with self.recorder.warm(), warnings.catch_warnings():
            # PyTorch warns about capturable optimisers outside of a capture, which is intended here.
            warnings.filterwarnings("ignore", "This instance was constructed with capturable=True")
            buffers.fill(step)
            try:
                rows = stacked([self.step(buffers.inputs(0))])
            except NotCompilable as error:
                self.fall_back("graph", error)
                rows = stacked([self.step(buffers.inputs(0))])
        self._warmed += 1
        return rows


class Launch:
    """Some consecutive steps as one graph.

    Args:
        runner: takes the steps.
        buffers: their inputs, which are filled before every replay.
        recorder: captures the steps without taking them.
    """

    norm: Tensor
    """The L2 norm of the last step's gradient."""

    def __init__(self, runner: Runner, buffers: Buffers, recorder: CudaRecorder) -> None:
        self.runner, self.buffers = runner, buffers
        buffers.seek(0)
        self._rows: Rows
        self._replay = recorder.record(self._body)

    def __call__(self, step: int) -> Rows:
        """Takes steps `step`, `step` + 1, …; returns their scalars."""
        self.buffers.fill(step)
        self._replay()
        return Rows(self._rows.names, self._rows.values.clone())

    def _body(self) -> None:
        self._rows = stacked([self.runner.step(self.buffers.inputs(number)) for number in range(self.buffers.count)])
        self.norm = self.runner.norm()
