"""Traces graphs, writes them as ONNX models or PyTorch programs, and runs the written files."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from vae_train.runs.export.graphs import Graph
from vae_train.util.errors import RunError, raise_out_of_memory
from vae_train.util.text import first_line

ProgramFormat = Literal["onnx", "pt2"]

PACKAGES: Mapping[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": ()}
"""Format -> the packages that writing and reading it needs besides PyTorch."""

MAX_ONNX_BYTES = 2**31 - 2**24
"""Weights above this size are in a second file, since an ONNX model has at most 2 GiB."""

Call = Callable[[Sequence[Tensor]], Sequence[Tensor]]
"""Runs a program on a batch."""


def trace(graph: Graph) -> ExportedProgram:
    """Traces a graph for batches of any size, without the weights that it does not use.

    Raises:
        RunError: an operation of the model cannot be traced.
    """
    program = _traced(graph)
    unused = {node.name for node in program.graph.nodes if node.op == "placeholder" and not node.users}
    sources = program.graph_signature.inputs_to_parameters | program.graph_signature.inputs_to_buffers
    if names := [name for placeholder, name in sources.items() if placeholder in unused]:
        graph.drop(names)
        program = _traced(graph)
    return program


def _traced(graph: Graph) -> ExportedProgram:
    example = tuple(torch.cat([port.zeros()] * 2) for port in graph.inputs)
    batch = Dim("batch")
    try:
        with torch.no_grad(), _quiet():
            shapes = (tuple({0: batch} for _ in example),)  # one tuple: forward takes *inputs
            return torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # the tracer raises errors of many kinds
        raise_out_of_memory(error)
        raise RunError(f"the {graph.name} cannot be traced by PyTorch: {first_line(error)}") from error


def write_onnx(program: ExportedProgram, graph: Graph, path: Path) -> None:
    """Writes an ONNX model.

    Args:
        program: the traced graph.
        graph: names the inputs and outputs.
        path: the file.

    Raises:
        RunError: an operation of the model has no counterpart in ONNX.
    """
    from onnxscript import optimizer

    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    names = {"input_names": [p.name for p in graph.inputs], "output_names": [p.name for p in graph.outputs]}
    try:
        with torch.no_grad(), _quiet():
            model = torch.onnx.export(program, (), dynamo=True, verbose=False, optimize=False, **names)  # type: ignore[arg-type]
            assert model is not None
            # The other optimisations take numbers such as 1 - 2e-6 for 1, and drop the factor.
            optimizer.fold_constants(model.model)
            optimizer.remove_unused_nodes(model.model)
            model.save(path, external_data=size > MAX_ONNX_BYTES)
    except OSError:
        raise
    except Exception as error:  # the converter raises errors of many kinds
        raise_out_of_memory(error)
        raise RunError(f"the {graph.name} cannot be written as ONNX: {first_line(error)}") from error


def write_pt2(program: ExportedProgram, graph: Graph, path: Path) -> None:
    """Writes a PyTorch program, which `torch.export.load` reads.

    Args:
        program: the traced graph.
        graph: not used.
        path: the file.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with path.open("wb") as file, _quiet():
            torch.export.save(program, file)
    except RuntimeError as error:  # the writer of archives reports a full disk as one
        raise_out_of_memory(error)
        raise RunError(f"could not write {path.name}: {first_line(error)}") from error


def read_onnx(path: Path) -> Call:
    """Opens an ONNX model in ONNX Runtime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()]

    def call(inputs: Sequence[Tensor]) -> list[Tensor]:
        arrays = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, arrays)]

    return call


def read_pt2(path: Path) -> Call:
    """Opens a PyTorch program."""
    with _quiet():
        module = torch.export.load(path).module()
    return lambda inputs: module(*inputs)


WRITERS: Mapping[ProgramFormat, Callable[[ExportedProgram, Graph, Path], None]] = {"onnx": write_onnx, "pt2": write_pt2}
READERS: Mapping[ProgramFormat, Callable[[Path], Call]] = {"onnx": read_onnx, "pt2": read_pt2}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences warnings and log messages of PyTorch and ONNX, which are about their own code."""
    names = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
