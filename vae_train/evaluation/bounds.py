"""The evidence lower bound (ELBO) and its terms for single images."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vae_train.batch import Fetched, Split
from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.subject import Noise, Subject, Subset, shared
from vae_train.model.base import LatentVariableModel

POINT_MASS = "the posterior is a point mass, so there is no ELBO"
NO_MASS = "the likelihood is not a probability of discrete pixels"
"""Reasons why bounds, or their bits per dimension, are not available."""

EQUAL_SAMPLES = "equal to -ELBO: q(z | x) is a point mass on codes, so all samples have the same weight"
"""Why more samples give no tighter bound."""


def has_equal_samples(model: LatentVariableModel) -> bool:
    """Whether q(z | x) is a point mass on codes, so that all samples of z have the same importance weight."""
    return bool(getattr(getattr(model, "posterior", None), "is_quantized", False))


@torch.no_grad()
def image_bounds(
    model: LatentVariableModel,
    images: Fetched,
    *,
    noise: Noise,
    num_samples: int = 1,
    batch_size: int = 512,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, Tensor]:
    """Computes the ELBO, its terms and bits per dimension of every image, at beta = 1.

    Args:
        model: the model.
        images: N images.
        noise: noise of z and of the binarisation. It depends on the image's number; `batch_size` only affects rounding.
        num_samples: samples of z per image over which the distortion is averaged.
        batch_size: images per pass.
        progress: called with the number of images after every pass.

    Returns:
        "elbo", "rate", "distortion" (nats), "bits_per_dim", and "dims", the number of dimensions, each `(N,)`. For a
        point-mass posterior only the distortion exists. Without a probability of discrete data there are no
        bits per dimension. Models with several layers also have the rate of each, "rate_1" is that of the topmost.
    """
    columns = defaultdict[str, list[Tensor]](list)
    for start, batch in evaluation_batches(images, batch_size, model.device, noise.data):
        trace = model(batch, noise.latents(start, model.device), num_samples)
        columns["distortion"].append(trace.distortion())
        if trace.bounded:
            columns["elbo"].append(trace.elbo())
            columns["rate"].append(trace.rate())
            if len(trace.latents) > 1:
                for number, latent in enumerate(trace.latents, 1):
                    columns[f"rate_{number}"].append(latent.rate())
            if (bits := trace.bits_per_dim()) is not None:
                columns["bits_per_dim"].append(bits)
                columns["dims"].append(trace.num_observed())
        progress(len(batch.x))
    return {name: torch.cat(parts) for name, parts in columns.items()}


@shared
def subject_bounds(subject: Subject, num_samples: int, split: Split | None = None) -> dict[str, Tensor]:
    """Computes `image_bounds` of the subject's split, or of at most as many images of another."""
    subset = Subset(subject.images_of(split), len(subject.images))
    noise, size = subject.noise("judge", split), subject.batch_size
    return image_bounds(subject.model, subset, noise=noise, num_samples=num_samples, batch_size=size)


def bits_of_nats(log_p: Tensor, bounds: Mapping[str, Tensor]) -> Tensor:
    """Converts estimates of log p(x) to bits per dimension, with the constants of the bounds on the same images.

    Bits are an affine function of nats per image; its constant follows from the ELBO in both units.

    Args:
        log_p: (N,) in nats.
        bounds: a result of `image_bounds` with bits per dimension.

    Returns:
        (N,) float64 on the CPU.
    """
    dims = bounds["dims"].cpu().double()
    return bounds["bits_per_dim"].cpu() + (bounds["elbo"].cpu() - log_p.cpu()) / (dims * math.log(2))
