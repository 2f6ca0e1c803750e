"""The latents of images as a file."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.latents import layer_names
from vae_train.runs.apply.latents import CONDITION
from vae_train.runs.apply.results import ArrayFile, new_table, write_archive
from vae_train.runs.apply.task import Application, Task
from vae_train.util.text import counted

LATENTS = "latents.npz"


class Encode(Task):
    """Writes mean and standard deviation of every posterior, and what a family has instead.

    `latents.npz` has the arrays of `Distribution.summary`, the names of the files ("files"), their classes ("labels"),
    the condition of a conditional model, and the digest of the model ("model"). With spatial latents it also has the
    mean and standard deviation of every channel, so that it can serve another program as a cache. `latents.csv` has a
    row per file. For a model with several layers, names end with the number of the layer, from "mean_1" of the topmost
    on; the posterior of a layer is the one given the means above, and samples are those of all layers together.

    Args:
        sample: also write one sample of every posterior.
        csv: also write `latents.csv`, if all latents are vectors.
    """

    def __init__(self, sample: bool, csv: bool) -> None:
        self.sample, self.csv = sample, csv

    @override
    def __call__(self, application: Application) -> list[str]:
        shapes = application.model.model.latent_shapes
        files, moments, note = dict[str, ArrayFile](), [_ChannelMoments() for _ in shapes], None
        for start, batch in application.batches("Encoding"):
            layers = application.encoded(batch, start)
            arrays = _named([layer.arrays for layer in layers])
            if self.sample:
                arrays |= _named([{"sample": z} for z in application.sampled(batch, start)])
            if batch.y is not None and application.model.model.condition is not None:
                arrays[CONDITION] = batch.y
            note = layers[0].parts[0][1].summary_note
            for name, tensor in arrays.items():
                values = tensor.cpu().numpy()
                if name not in files:
                    shape = (len(application.inputs), *values.shape[1:])
                    files[name] = ArrayFile(application.folder / f"{name}.npy", shape, values.dtype)
                files[name].append(values)
            for part, layer in zip(moments, layers, strict=True):
                part.add(layer.mean)
        for file in files.values():
            file.close()
        lines = self._write(application, {name: file.path for name, file in files.items()}, moments)
        return [*lines, note] if note else lines

    def _write(self, application: Application, paths: dict[str, Path], moments: list[_ChannelMoments]) -> list[str]:
        inputs, shapes = application.inputs, application.model.model.latent_shapes
        if self.csv and all(len(shape) == 1 for shape in shapes):
            _write_csv(application, paths)
        others = {"files": np.array(list(inputs.names)), "model": np.array(application.digest)}
        if inputs.classes is not None:
            others["labels"] = np.array(list(inputs.classes))
        for number, (shape, part) in enumerate(zip(shapes, moments, strict=True)):
            if len(shape) > 1:
                mean, std = (layer_names(f"channel_{name}", len(shapes))[number] for name in ("mean", "std"))
                others |= {mean: part.mean, std: part.std}
        sizes = ", ".join("x".join(map(str, shape)) for shape in shapes)
        lines = [f"{LATENTS}: {', '.join(paths)} of {counted(len(inputs), 'image')}, latents {sizes}"]
        write_archive(application.folder / LATENTS, {**paths, **others})
        return lines


def _named(layers: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The arrays of all layers by name."""
    return {
        layer_names(key, len(layers))[n]: tensor for n, arrays in enumerate(layers) for key, tensor in arrays.items()
    }


class _ChannelMoments:
    """Mean and standard deviation of every channel of spatial latents, over all images and positions."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, np.zeros(1), np.zeros(1)

    def add(self, mean: Tensor) -> None:
        """Adds the means `(B, C, …)` of a batch."""
        values = mean.double().flatten(2) if mean.dim() > 2 else mean.double()[..., None]
        self._count += values.shape[0] * values.shape[2]
        self._sum = self._sum + values.sum((0, 2)).cpu().numpy()
        self._squares = self._squares + values.square().sum((0, 2)).cpu().numpy()

    @property
    def mean(self) -> np.ndarray:
        """The means, `(C,)`."""
        return self._sum / self._count

    @property
    def std(self) -> np.ndarray:
        """The standard deviations, `(C,)`."""
        return np.sqrt(np.maximum(self._squares / self._count - self.mean**2, 0))


def _write_csv(application: Application, paths: dict[str, Path]) -> None:
    """Writes a row per file with its class and all numbers that describe its posterior."""
    inputs, columns = application.inputs, {name: np.load(path, mmap_mode="r") for name, path in paths.items()}
    tables = {name: array.reshape(len(array), -1) for name, array in columns.items()}
    labels = [] if inputs.classes is None else ["label"]
    head = [f"{name}_{number}" for name, table in tables.items() for number in range(table.shape[1])]
    with new_table(application.folder / "latents.csv") as file:
        writer = csv.writer(file)
        writer.writerow(["file", *labels, *head])
        for row, name in enumerate(inputs.names):
            label = [] if inputs.classes is None else [inputs.classes[row]]
            numbers = [f"{value:.7g}" for table in tables.values() for value in table[row].tolist()]
            writer.writerow([name, *label, *numbers])
