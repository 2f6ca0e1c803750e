"""Picture grids of a model: reconstructions, samples, the manifold of two latents. Shape (3 or 1, height, width)."""

from __future__ import annotations

from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.data.base import Batch
from vae_train.draws import BlockDraw, Draw
from vae_train.model.base import LatentVariableModel, SingleLatent

GAP, GREY = 2, 0.5
"""Pixels between the images of a grid, and their colour."""

SIDE = 20
"""Images on each side of a manifold."""


def grid(images: Tensor, columns: int) -> Tensor:
    """Images `(N, C, H, W)` in [0, 1] side by side, with shape `(3 or 1, height, width)`; small ones are enlarged.

    (torchvision has such a function, and takes longer to import than a short training.)
    """
    factor = max(1, 56 // max(images.shape[-2:]))
    images = images.detach().float().cpu().clamp(0, 1)
    images = images.repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    framed = F.pad(images, (0, GAP, 0, GAP), value=GREY)
    framed = F.pad(framed, (0, 0, 0, 0, 0, 0, 0, rows * columns - len(images)), value=GREY)
    _, channels, height, width = framed.shape
    picture = framed.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return F.pad(picture.reshape(channels, rows * height, columns * width), (GAP, 0, GAP, 0), value=GREY)


@torch.no_grad()
def reconstructions(model: LatentVariableModel, batch: Batch, seed: int) -> Tensor:
    """Originals and reconstructions, which are means of p(x | z) for one z of q(z | x), with shape `(2 N, C, H, W)`.

    They are in the order of a grid with `columns` columns: a row of originals above its reconstructions. What the
    encoder saw stands between them where it is not the original; there are 3 N images then.

    Args:
        model: the model.
        batch: N images.
        seed: decides z.
    """
    draw, x = BlockDraw(seed, "pictures", 0, device=batch.x.device), batch.x
    kinds = [x, *([] if batch.seen is None else [batch.seen]), model(batch, draw).px.mean[0]]
    rows = zip(*(images.split(columns(x)) for images in kinds), strict=True)
    return torch.cat([row for group in rows for row in group])


def columns(x: Tensor) -> int:
    """Columns of a grid of the images `x` and their reconstructions."""
    return min(8, len(x))


@torch.no_grad()
def samples(model: LatentVariableModel, num: int, seed: int, device: torch.device, temperature: float = 1.0) -> Tensor:
    """Means of p(x | z) for `num` draws of z from the prior, with shape `(num, C, H, W)`."""
    return model.sample(num, Draw(seed, "samples", device=device), temperature).mean


@torch.no_grad()
def manifold(model: SingleLatent, device: torch.device, reach: float = 2.0) -> Tensor:
    """Means of p(x | z) for `SIDE`² values of a two-dimensional z between -`reach` and `reach`.

    They have the order of a grid with `SIDE` columns, the second latent upwards.
    """
    axis = torch.linspace(-reach, reach, SIDE, device=device)
    z = torch.stack(torch.meshgrid(axis, axis.flip(0), indexing="xy"), -1).reshape(-1, 2)
    return model.decode(z).mean


def is_planar(model: LatentVariableModel) -> TypeGuard[SingleLatent]:
    """Whether the model has one latent with two dimensions, whose manifold can be drawn."""
    return isinstance(model, SingleLatent) and tuple(model.latent_shape) == (2,)


def write(path: str, picture: Tensor) -> None:
    """Writes a grid `(C, height, width)` in [0, 1] as a PNG."""
    from PIL import Image

    levels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0)  # (height, width, C)
    Image.fromarray(levels.squeeze(-1).numpy()).save(path)
