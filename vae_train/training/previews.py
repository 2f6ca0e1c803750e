"""Reconstructions, samples and the latent manifold of a model, as images of shape (N, C, H, W)."""

from typing import TypeGuard

import torch
from torch import Tensor

from vae_train.batch import Batch
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.rng import BlockRng

MANIFOLD_SIDE = 20
"""Images on each side of a manifold."""

MAX_COLUMNS = 8


@torch.no_grad()
def reconstructions(model: LatentVariableModel, batch: Batch, seed: int) -> Tensor:
    """Reconstructs a batch: means of p(x | z) for one z ~ q(z | x), in rows below their originals.

    Args:
        model: the model.
        batch: N images.
        seed: decides z.

    Returns:
        `(2 N, C, H, W)` in the order of a grid with `num_columns(batch.x)` columns; `(3 N, C, H, W)` if the encoder's
        input differs from the originals: it then stands between both.
    """
    rng, x = BlockRng(seed, "pictures", 0, device=batch.x.device), batch.x
    kinds = [x, *([] if batch.encoder_input is None else [batch.encoder_input]), model(batch, rng).px.mean[0]]
    rows = zip(*(images.split(num_columns(x)) for images in kinds), strict=True)
    return torch.cat([row for group in rows for row in group])


def num_columns(x: Tensor) -> int:
    """Returns the columns of a grid of the images `x` and their reconstructions."""
    return min(MAX_COLUMNS, len(x))


@torch.no_grad()
def manifold(model: SingleLatent, device: torch.device, limit: float = 2.0) -> Tensor:
    """Decodes a grid of `MANIFOLD_SIDE`² two-dimensional z between -`limit` and `limit`.

    Returns:
        Means of p(x | z) in the order of a grid with `MANIFOLD_SIDE` columns, the second latent upwards.
    """
    axis = torch.linspace(-limit, limit, MANIFOLD_SIDE, device=device)
    z = torch.stack(torch.meshgrid(axis, axis.flip(0), indexing="xy"), -1).reshape(-1, 2)
    return model.decode(z).mean


def is_planar(model: LatentVariableModel) -> TypeGuard[SingleLatent]:
    """Returns whether the model has one two-dimensional latent and no condition, so that it has a manifold."""
    return isinstance(model, SingleLatent) and tuple(model.latent_shape) == (2,) and model.condition is None
