"""Samples beside the training images that they resemble most."""

import torch
from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.evaluation.neighbors import nearest_images
from vae_train.plotting.sheet import Sheet
from vae_train.runs.show.base import LABELED_SIDE, Plot, PlotContents, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.errors import ErrorDetail

COMPARED = 64
"""Number of samples, and of reconstructions of other images, whose distances are compared."""

TITLE = "samples and their nearest training images, root mean square distance"


class Neighbours(Plot):
    """Samples beside their nearest training images, in order of the distance, which shows memorisation.

    Samples are closer to training images than other images are, since means of p(x | z) are smooth. Reconstructions of
    images that the model has not seen are as smooth, so their distances are what to expect without memorisation.
    """

    reads = (
        "checkpoint",
        "prior",
        "num",
        "columns",
        "temperature",
        "top_k",
        "use_mean",
        "label",
        "factors",
        "split",
        "seed",
    )
    num = 8

    @override
    def errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        error = ErrorDetail("columns=1", "needs room for a sample and at least one training image")
        return [*super().errors(opened), *([error] if opened.options.columns == 1 else [])]

    @override
    def count(self, opened: OpenedRun) -> int:
        return max(COMPARED, opened.options.num or 0) * opened.options.columns

    @override
    def __call__(self, opened: OpenedRun) -> PlotContents:
        num, _ = num_and_frames(self, opened)
        samples = opened.trained.to_pixels(opened.samples(max(num, COMPARED)))
        train = opened.data.split("train")
        assert train is not None
        near = nearest_images(samples, train, opened.options.columns - 1, opened.pixels, opened.device)
        order = near.distance[:, 0].argsort(stable=True)[:num]
        images = torch.cat([samples[order][:, None], near.images[order]], 1)
        captions = [text for row in near.distance[order].tolist() for text in ["sample", *(f"{d:.3f}" for d in row)]]
        median = float(near.distance[:, 0].median())
        about = f"{num} of {len(samples)} samples with their nearest training images, median distance {median:.3f}"
        if opened.split != "train":
            about += f" ({opened.split} reconstructions: {_expected(opened):.3f})"
        sheet = Sheet(images.flatten(0, 1), images.shape[1], captions=captions, title=TITLE, min_side=LABELED_SIDE)
        return PlotContents(about, sheet)


def _expected(opened: OpenedRun) -> float:
    """Median distance of reconstructions of other images to their nearest training images."""
    index, train = evenly_spaced(len(opened.images), COMPARED), opened.data.split("train")
    assert train is not None
    layers, y = opened.encoded(index), opened.labels(index)
    rebuilt = torch.cat(
        [opened.decoded([z[i][None] for z in layers], None if y is None else y[i][None]) for i in range(len(index))]
    )
    return float(nearest_images(rebuilt, train, 1, opened.pixels, opened.device).distance.median())
