"""Paths between images."""

import torch
from typing_extensions import override

from vae_train.evaluation.bounds import has_equal_samples
from vae_train.evaluation.interpolation import NO_PATH, Interpolation, interpolate
from vae_train.plotting.gif import write_gif
from vae_train.plotting.grid import plot_grid
from vae_train.plotting.png import write_png
from vae_train.runs.apply.results import write_sequence
from vae_train.runs.apply.task import Application, Task
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import PositiveFloat, PositiveInt

MAX_ENDS = 64
"""The largest number of images on a path."""


class Interpolate(Task):
    """Decodes a path through the latents of two or more images, in all layers, as a strip and as a GIF.

    Args:
        frames: number of images on the whole path.
        interpolation: "linear" or "spherical", see `vae_train.evaluation.interpolation.interpolate`.
        seconds: seconds per frame of the GIF.
    """

    min_inputs = 2

    def __init__(self, frames: PositiveInt, interpolation: Interpolation, seconds: PositiveFloat) -> None:
        self.frames, self.interpolation, self.seconds = frames, interpolation, seconds

    @override
    def __call__(self, application: Application) -> list[str]:
        count = len(application.inputs)
        if has_equal_samples(application.model.model):
            raise UsageError([ErrorDetail("task=interpolate", NO_PATH)])
        if count > MAX_ENDS:
            raise UsageError([ErrorDetail("input=", f"has {count:,} images; name 2 to {MAX_ENDS} of them")])
        if self.frames < count:
            raise UsageError([ErrorDetail(f"frames={self.frames}", f"a path through {count} images needs more")])
        batches = list(application.batches("Encoding"))
        layers = zip(*(application.means(batch, start) for start, batch in batches), strict=True)
        paths = [interpolate(torch.cat(ends), self.frames, self.interpolation) for ends in layers]
        labels = [batch.y for _, batch in batches if batch.y is not None]
        y = torch.cat(labels)[:1].expand(self.frames, -1) if labels else None
        images = application.decoded(paths, y)
        pixels = application.unit(images)
        write_png(application.folder / "strip.png", plot_grid(pixels, len(pixels)))
        write_gif(application.folder / "path.gif", pixels, self.seconds)
        write_sequence(application, "path", images)
        is_mixed = labels and application.model.model.condition is not None and len(torch.cat(labels).unique(dim=0)) > 1
        return ["the images have several classes; the whole path has that of the first"] if is_mixed else []
