"""The most and the least likely images of a split."""

import torch
from typing_extensions import override

from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.subject import Noise, Subset
from vae_train.plotting.sheet import Sheet
from vae_train.runs.show.base import LABELED_SIDE, Plot, PlotContents, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.errors import ErrorDetail

MAX_IMAGES = 10_000
"""Number of images that are scored, evenly spaced within the split."""


class Extremes(Plot):
    """The images with the highest and with the lowest ELBO, or distortion for a posterior without a density."""

    reads = ("checkpoint", "prior", "num", "columns", "split", "seed")
    num = 16

    @override
    def data_errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        return opened.image_errors(2)

    @override
    def __call__(self, opened: OpenedRun) -> PlotContents:
        num, _ = num_and_frames(self, opened)
        images, options = Subset(opened.images, MAX_IMAGES), opened.options
        bounds = image_bounds(opened.trained.model, images, noise=Noise(options.seed, "judge", opened.split))
        name = "ELBO" if "elbo" in bounds else "distortion"
        scores = bounds[name.lower()]
        order = scores.argsort(descending=name == "ELBO", stable=True).cpu()
        columns = min(num, options.columns, len(order) // 2)
        num = min(num, len(order) // 2) // columns * columns
        ends = order[:num], order[len(order) - num :].flip(0)
        pixels = [opened.originals(images.index[end]) for end in ends]
        captions = [f"{score:.1f}".replace("-", "\N{MINUS SIGN}") for end in ends for score in scores[end].tolist()]
        left = [("most likely", 0.5), ("least likely", num / columns + 0.5)]
        sheet = Sheet(
            torch.cat(pixels), columns, left, captions=captions, title=f"{name} in nats", min_side=LABELED_SIDE
        )
        about = f"the {num} most and least likely of {len(images):,} {opened.split} images by their {name}"
        return PlotContents(about, sheet)
