"""How good a model is on a split: the ELBO and its two terms, with their uncertainty."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Fetched, Images, evenly_spaced
from vae_train.data.stream import evaluation_batches
from vae_train.model.base import LatentVariableModel
from vae_train.rng import BlockRng, Rng

Figure = dict[str, float | int]


@torch.no_grad()
def evidence(
    model: LatentVariableModel,
    images: Fetched,
    *,
    seed: int = 0,
    num_samples: int = 1,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Means over all images of a split, each with its standard error over the images.

    Args:
        model: the model, on `device`.
        images: the split.
        seed: decides z. The noise of an image is a function of (seed, its number): `batch_size` changes rounding only.
        num_samples: draws of z per image that the distortion is averaged over.
        batch_size: images at a time.
        device: where the noise is made.

    Returns:
        "elbo", "rate", "distortion" (nats per image, beta = 1) and "bits_per_dim", each as `summary` has it; None where
        the model has no such figure: the posterior is a point mass, or the likelihood no mass. "images" and
        "num_samples" say what they were measured on.
    """
    found = per_image(model, images, seed=seed, num_samples=num_samples, batch_size=batch_size, device=device)
    figures: dict[str, Any] = {name: None if values is None else summary(values) for name, values in found.items()}
    return figures | {"images": len(images), "num_samples": num_samples}


@torch.no_grad()
def per_image(
    model: LatentVariableModel,
    images: Fetched,
    *,
    seed: int = 0,
    num_samples: int = 1,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
) -> dict[str, Tensor | None]:
    """What `evidence` has the means of, for every image: tensors with shape `(N,)`."""
    columns: dict[str, list[Tensor]] = {"elbo": [], "distortion": [], "rate": [], "bits_per_dim": []}
    for start, batch in evaluation_batches(images, batch_size, device):
        trace = model(batch, BlockRng(seed, "evaluation", start, device=device), num_samples)
        values: dict[str, Tensor | None] = {"distortion": trace.distortion()}
        if trace.bounded:
            values |= {"elbo": trace.elbo(), "rate": trace.rate(), "bits_per_dim": trace.bits_per_dim()}
        for name, value in values.items():
            if value is not None:
                columns[name].append(value)
    return {name: torch.cat(parts) if parts else None for name, parts in columns.items()}


def summary(values: Tensor) -> Figure:
    """Mean of values with shape `(N,)`, its standard error, and N."""
    values = values.cpu().double()
    spread = values.std().item() if len(values) > 1 else math.nan
    return {"value": values.mean().item(), "se": spread / math.sqrt(len(values)), "count": len(values)}


class Subset(Fetched):
    """Images of a split that are spread evenly over it.

    Args:
        images: the split.
        most: how many, at most.
    """

    def __init__(self, images: Images, most: int) -> None:
        self.images, self.index = images, evenly_spaced(len(images), most)

    def __len__(self) -> int:
        return len(self.index)

    @override
    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        return self.images.fetch(self.index.to(index.device)[index], rng)
