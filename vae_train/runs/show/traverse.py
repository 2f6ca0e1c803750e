"""Traversals of single latents."""

import torch
from typing_extensions import override

from vae_train.evaluation.encodings import encode
from vae_train.evaluation.metrics.latent_activity import latent_activity
from vae_train.evaluation.subject import Noise, Subset
from vae_train.evaluation.traversals import TRAVERSAL_LIMIT, LatentRange, mean_rates, traverse
from vae_train.plotting.sheet import Sheet, centered
from vae_train.runs.show.base import ANIMATION_FRAMES, LABELED_SIDE, Plot, PlotContents, animation, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.errors import ErrorDetail

MAX_IMAGES = 2_000
"""Number of images, evenly spaced within the split, that measure latents."""

BATCH_SIZE = 256


class Traversal(Plot):
    """A row for each latent, the most informative first: an image for different values of this latent.

    The values cover the aggregate posterior. Latents with height and width are traversed by channel.
    """

    reads = ("checkpoint", "num", "frames", "label", "split", "images")
    num, frames = 10, 9

    @override
    def problem(self, opened: OpenedRun) -> str | None:
        return opened.lacks_support("real")

    @override
    def data_errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        return opened.image_errors(1, 1)

    @override
    def __call__(self, opened: OpenedRun) -> PlotContents:
        num, frames = num_and_frames(self, opened)
        model, count = opened.single_latent, opened.latent_shape[0]
        index = opened.candidates[:1] if opened.options.images is None else torch.tensor(opened.options.images)
        order, texts, reach = _measure(opened)
        order = order[:num]
        (z,), y = opened.encoded(index)[0], opened.labels(index)
        rows = [opened.pixels(row) for row in traverse(model, z, order, reach, frames, y)]
        moving = [opened.pixels(row) for row in traverse(model, z, order, reach, ANIMATION_FRAMES, y)]
        texts = [texts[latent] for latent in order]
        reach_text = f"{TRAVERSAL_LIMIT:g} sd"
        above = [(f"\N{MINUS SIGN}{reach_text}", 0.5), ("mean", frames / 2), (reach_text, frames - 0.5)]
        kind = "latents" if len(opened.latent_shape) == 1 else "channels of z"
        about = f"{len(order)} of {count} {kind} of {opened.split} image {int(index[0])}"
        return PlotContents(
            about,
            Sheet(torch.cat(rows), frames, centered(texts), above, min_side=LABELED_SIDE),
            animation(moving, texts),
        )


def _measure(opened: OpenedRun) -> tuple[list[int], list[str], LatentRange]:
    """The latents in order, their labels, and their aggregate posterior."""
    noise, images, count = Noise(0, "judge", opened.split), Subset(opened.images, MAX_IMAGES), opened.latent_shape[0]
    encodings = encode(opened.single_latent, images, noise=noise, batch_size=BATCH_SIZE)
    rates = mean_rates(opened.single_latent, images, noise=noise, batch_size=BATCH_SIZE)
    name, form = "z" if len(opened.latent_shape) == 1 else "channel ", "{:.1f} nats"
    if rates is None:
        form, rates = "variance {:.2g}", latent_activity(encodings).variance.view(count, -1).mean(1).cpu()
    values = rates.tolist()
    order = sorted(range(count), key=lambda latent: -values[latent])
    texts = [f"{name}{1 + latent} · {form.format(value)}" for latent, value in enumerate(values)]
    return order, texts, LatentRange.of(encodings, count)
