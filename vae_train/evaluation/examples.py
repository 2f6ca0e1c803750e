"""Example images of a trained model: its worst and best reconstructions."""

from typing import NamedTuple

import torch
from torch import Tensor

from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.subject import Subject, Subset
from vae_train.plotting.grid import grey_out


class Example(NamedTuple):
    """An image of the split with its reconstruction."""

    number: int
    """Its index in the split."""
    distortion: float
    """In nats."""
    images: Tensor
    """(2, C, H, W) in [0, 1]: the image and its reconstruction; (3, C, H, W) with the encoder's input in between if
    that differs from the image."""


@torch.no_grad()
def rank_reconstructions(subject: Subject, limit: int, count: int) -> tuple[list[Example], list[Example]]:
    """Finds the images with the lowest and with the highest distortion.

    Args:
        subject: the subject.
        limit: maximal number of images to compare, evenly spaced within the split.
        count: maximal length of each list. No image is in both.

    Returns:
        The best reconstructions, best first, and the worst ones, worst first.
    """
    model, images, noise = subject.model, Subset(subject.images, limit), subject.noise("judge")
    count = min(count, len(images) // 2)
    examples = list[Example]()
    for start, batch in evaluation_batches(images, subject.batch_size, model.device, noise.data):
        trace = model(batch, noise.latents(start, model.device))
        distortion = trace.distortion()
        order = distortion.argsort().tolist()
        kinds = [batch.x, *([] if batch.encoder_input is None else [batch.encoder_input]), trace.px.mean[0]]
        pixels = [subject.to_pixels(kind) for kind in kinds]
        pixels = [*(grey_out(images, batch.mask) for images in pixels[:-1]), pixels[-1]]
        for row in dict.fromkeys([*order[:count], *order[len(order) - count :]]):
            shown = torch.stack([images[row] for images in pixels])
            examples.append(Example(int(images.index[start + row]), float(distortion[row]), shown))
        examples = sorted(examples, key=lambda example: example.distortion)
        examples = examples if len(examples) <= 2 * count else [*examples[:count], *examples[len(examples) - count :]]
    half = len(examples) // 2
    return examples[:half], examples[half:][::-1]
