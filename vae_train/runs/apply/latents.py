"""A file of latents as the input of a decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Fetched, Shape
from vae_train.data.storage.array_files import open_file, read_array
from vae_train.evaluation.latents import layer_names
from vae_train.rng import Rng
from vae_train.runs.apply.arrays import form_of_data
from vae_train.runs.apply.inputs import Inputs, Request
from vae_train.runs.apply.labels import given_labels
from vae_train.runs.apply.recordings import single_clips
from vae_train.runs.config import Config
from vae_train.runs.fitted_priors import fingerprint
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError, collecting

MEAN, CONDITION = "mean", "condition"


class StoredLatents(Fetched):
    """Latents of arrays as batches, with z as `Batch.x`; those of several layers flattened and side by side.

    Args:
        z: one array `(N, *shape)` per layer, the topmost first.
        y: the condition of every latent, int64 `(N, F)`; None for a model without one.
        device: the device of the batches.
    """

    def __init__(self, z: Sequence[np.ndarray], y: Tensor | None, device: torch.device) -> None:
        self.z, self.y, self.device = z, y, device

    @override
    def __len__(self) -> int:
        return len(self.z[0])

    @override
    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        rows = index.cpu()
        layers = [torch.from_numpy(np.asarray(layer[rows.numpy()], np.float32)) for layer in self.z]
        z = layers[0] if len(layers) == 1 else torch.cat([layer.flatten(1) for layer in layers], 1)
        return Batch(z.to(self.device), None if self.y is None else self.y[rows].to(self.device))


def split_layers(z: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The latents of every layer, `(B, *shape)` each, of a batch of `StoredLatents`."""
    if len(shapes) == 1:
        return [z]
    parts = z.split([math.prod(shape) for shape in shapes], 1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


def open_latents(request: Request, model: TrainedModel, config: Config) -> Inputs:
    """Opens a file that `vae apply task=encode` wrote with the same model.

    Args:
        request: what to open; `key` is "mean" or "sample".
        model: the model.
        config: the run's configuration.

    Raises:
        UsageError: the file is not one of latents, or belongs to another model.
    """
    if request.kind != "array":
        raise UsageError([ErrorDetail(f"input={','.join(request.paths)}", "is no file of latents; name a latents.npz")])
    path, errors = request.paths[0], list[ErrorDetail]()
    with collecting(errors, f"input={path}"):
        arrays, _ = open_file(path)
        z = _latents(arrays, request.key or MEAN, model)
        names = read_array(arrays, "files").tolist() if "files" in arrays else []
        if outside := [name for name in names if not _is_inside(name)]:
            raise UsageError(f"has {outside[0]!r} as the name of a file, which is not below the folder of the results")
        count = len(z[0])
        if len(names) != count:
            raise UsageError(f"has {count:,} latents and {len(names):,} names of files")
        labels = read_array(arrays, "labels").tolist() if "labels" in arrays else None
        stored = read_array(arrays, CONDITION) if CONDITION in arrays else None
        y, classes = given_labels(request.label, labels if stored is None else stored, count, model)
    if errors:
        raise UsageError(errors)
    return Inputs(
        StoredLatents(z, y, model.device),
        names,
        classes,
        title=Path(path).stem,
        noise=request.noise(),
        form=form_of_data(model.facts, config),
        recordings=single_clips(names, model.facts),
    )


def _latents(arrays: Mapping[str, np.ndarray], key: str, model: TrainedModel) -> list[np.ndarray]:
    """The latents of every layer, the topmost first."""
    if "model" not in arrays:
        raise UsageError("is not a file of latents; vae apply task=encode writes one")
    if str(read_array(arrays, "model")) != fingerprint(model.model):
        raise UsageError("has latents of another model, or of other weights; encode the images with this one")
    shapes, layers = model.model.latent_shapes, list[np.ndarray]()
    for name, shape in zip(layer_names(key, len(shapes)), shapes, strict=True):
        if name not in arrays:
            raise UsageError([ErrorDetail(f"key={key}", f"no array {name}; the file has {', '.join(arrays)}")])
        z = read_array(arrays, name)
        count = len(layers[0]) if layers else None
        if z.shape[1:] != shape or z.dtype.kind != "f" or len(z) != (count or len(z)):
            wanted = ", ".join(map(str, (count or "N", *shape)))
            raise UsageError(f"{name} has shape {z.shape}, but latents are ({wanted})")
        layers.append(z)
    return layers


def _is_inside(name: Any) -> bool:
    """Whether the name of a file, which is not trusted, is a path below any folder."""
    parts = str(name).replace("\\", "/").split("/")
    return isinstance(name, str) and all(part not in ("", ".", "..") and ":" not in part for part in parts)
