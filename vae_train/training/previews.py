"""Reconstructions, samples and the latent manifold of a model, as images of shape (N, C, H, W)."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from vae_train.batch import Batch, evenly_spaced
from vae_train.data.dataset import Dataset
from vae_train.distributions.kl import kl_elementwise
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.model.trace import Trace
from vae_train.plotting.grid import grey_out, plot_grid
from vae_train.plotting.sheet import plane_sheet, plot_rows, render
from vae_train.rng import BlockRng, Rng
from vae_train.training.background import Output

MANIFOLD_SIDE, MANIFOLD_LIMIT = 20, 2.0
"""Images on each side of a manifold, and the largest z1 and z2, in standard deviations of a standard normal prior."""

PREVIEW_IMAGES, MAX_COLUMNS = 64, 8
"""Number of images in a grid, and in a row of it."""

MAX_PREVIEW_VALUES = PREVIEW_IMAGES * 128 * 128 * 3
"""Values of the images of a grid: there are fewer of larger images, but at least a row."""

MAX_LAYER_ROWS = 12
"""Rows of a grid of samples by layer."""


@torch.no_grad()
def write_previews(output: Output, model: LatentVariableModel, data: Dataset, seed: int, step: int, name: str) -> None:
    """Writes image grids and the KL of every latent dimension, with the same images and noise every time.

    Args:
        output: writes them.
        model: the model.
        data: the data set.
        seed: seed of the noise.
        step: number of updates so far.
        name: name of the grids; "final" adds a manifold, or samples by layer, if the model has them.
    """
    device, images = model.device, data.preview()
    count = min(PREVIEW_IMAGES, max(MAX_COLUMNS, MAX_PREVIEW_VALUES // math.prod(model.data_shape)))
    index = evenly_spaced(len(images), count // 2).to(device)
    batch = images.fetch(index, Rng(seed, "pictures", device=device))
    shown, kl = reconstructions(model, batch, seed, data.to_pixels)
    sampled = data.to_pixels(model.sample(count, Rng(seed, "samples", device=device)).mean)
    output.image_grid("reconstructions", name, step, partial(plot_rows, shown, min(MAX_COLUMNS, len(batch.x))))
    output.image_grid("samples", name, step, partial(plot_grid, sampled, MAX_COLUMNS))
    if kl is not None:
        output.latents(step, kl)
    if name == "final" and is_planar(model):
        low, high = [-MANIFOLD_LIMIT] * 2, [MANIFOLD_LIMIT] * 2
        sheet = plane_sheet(data.to_pixels(manifold(model, low, high, MANIFOLD_SIDE)), MANIFOLD_SIDE, low, high)
        output.image_grid("samples", "manifold", step, partial(render, sheet))
    if name == "final" and len(model.latent_shapes) > 1:
        rows = {caption: data.to_pixels(images) for caption, images in layer_samples(model, MAX_COLUMNS, seed).items()}
        output.image_grid("samples", "layers", step, partial(plot_rows, rows, MAX_COLUMNS))


class Reconstructions(NamedTuple):
    """Reconstructions of N images, and the KL of their latents."""

    images: dict[str, Tensor]
    """The encoder's input and the reconstruction by caption, `(N, C, H, W)` in [0, 1] each; also the image
    if it differs from the input. Values that are hidden from the encoder are grey."""
    kl: Tensor | None
    """(D,) KL(q(z_d | x) || p(z_d)) in nats, averaged over images; None unless a single latent has normal q and p."""


@torch.no_grad()
def reconstructions(
    model: LatentVariableModel, batch: Batch, seed: int, to_pixels: Callable[[Tensor], Tensor]
) -> Reconstructions:
    """Reconstructs a batch: means of p(x | z) for one z ~ q(z | x).

    Args:
        model: the model.
        batch: N images.
        seed: seed of z.
        to_pixels: maps images from the model's scale to [0, 1].
    """
    rng = BlockRng(seed, "pictures", 0, device=batch.x.device)
    trace = model(batch, rng)
    reconstruction = to_pixels(trace.px.mean[0])
    if batch.encoder_input is None:
        shown = {"input": grey_out(to_pixels(batch.x), batch.mask), "reconstruction": reconstruction}
    else:
        seen = grey_out(to_pixels(batch.encoder_input), batch.mask)
        shown = {"image": to_pixels(batch.x), "input": seen, "reconstruction": reconstruction}
    return Reconstructions(shown, _kl_per_dimension(trace))


def _kl_per_dimension(trace: Trace) -> Tensor | None:
    latent = trace.latents[0]
    kl = kl_elementwise(latent.q, latent.p) if len(trace.latents) == 1 else None
    return None if kl is None else kl.reshape(-1, *latent.q.event_shape).mean(0).flatten()


@torch.no_grad()
def layer_samples(model: LatentVariableModel, num: int, seed: int) -> dict[str, Tensor]:
    """Means of p(x | z) by caption, `(num, C, H, W)`: the topmost layers sampled, and the others at their mean.

    Samples of the same number have the same noise in every layer that is sampled.
    """
    rows = dict[str, Tensor]()
    for caption, temperatures in layer_rows([1.0] * len(model.latent_shapes)).items():
        rows[caption] = model.sample(num, Rng(seed, "samples", device=model.device), temperatures).mean
    return rows


def layer_rows(temperatures: Sequence[float]) -> dict[str, list[float]]:
    """Caption -> a temperature per layer: that of the topmost layers, and 0 for the others, which takes their mean.

    Args:
        temperatures: temperature of every layer that is sampled, the topmost first.

    Returns:
        A row for every layer, or `MAX_LAYER_ROWS` evenly spaced ones.
    """
    layers = len(temperatures)
    counts = (1 + evenly_spaced(layers, MAX_LAYER_ROWS)).tolist()
    return {
        f"top {count}" if count < layers else f"all {layers}": [*temperatures[:count], *[0.0] * (layers - count)]
        for count in counts
    }


@torch.no_grad()
def manifold(
    model: SingleLatent, low: Sequence[float], high: Sequence[float], side: int, y: Tensor | None = None
) -> Tensor:
    """Decodes a grid of two-dimensional z.

    Args:
        model: the model.
        low: the smallest z1 and z2.
        high: the largest z1 and z2.
        side: number of values of each, equally spaced.
        y: `(side², F)` the condition of a conditional model.

    Returns:
        Means of p(x | z), row by row, with `side` columns; the second latent increases upwards.
    """
    z1, z2 = (torch.linspace(*ends, side, device=model.device) for ends in zip(low, high, strict=True))
    z = torch.stack(torch.meshgrid(z1, z2.flip(0), indexing="xy"), -1).reshape(-1, 2)
    return model.decode(z, y).mean


def is_planar(model: LatentVariableModel) -> TypeGuard[SingleLatent]:
    """Returns whether the model has one two-dimensional latent and no condition, so that it has a manifold.

    Codes are points of the plane without anything between them.
    """
    is_quantized = getattr(getattr(model, "posterior", None), "is_quantized", False)
    is_plane = isinstance(model, SingleLatent) and tuple(model.latent_shape) == (2,)
    return is_plane and model.condition is None and not is_quantized
