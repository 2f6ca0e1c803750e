"""Samples of models with several layers of latents, of which more and more are random."""

import torch
from typing_extensions import override

from vae_train.plotting.sheet import Sheet, centered
from vae_train.runs.show.base import LABELED_SIDE, Plot, PlotContents, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.training.previews import layer_rows


class Layers(Plot):
    """A row for every layer of latents: samples of the layers from the topmost to this one, the others at their mean.

    The samples of a column have the same noise, so that a row shows what its layer adds.
    """

    reads = ("checkpoint", "num", "temperature", "use_mean", "label", "factors", "seed")
    num = 8

    @override
    def problem(self, opened: OpenedRun) -> str | None:
        if len(opened.layer_shapes) > 1:
            return None
        return "needs several layers of latents; this model has one"

    @override
    def count(self, opened: OpenedRun) -> int:
        return num_and_frames(self, opened)[0] * len(layer_rows([1.0] * len(opened.layer_shapes)))

    @override
    def __call__(self, opened: OpenedRun) -> PlotContents:
        num, layers = num_and_frames(self, opened)[0], len(opened.layer_shapes)
        rows = layer_rows(opened.trained.model.temperatures(opened.options.temperature))
        samples = [opened.samples(num, temperatures) for temperatures in rows.values()]
        pixels = opened.trained.to_pixels(torch.cat(samples))
        about = f"{num} samples of the topmost layers of {layers}, with the others at their mean"
        return PlotContents(about, Sheet(pixels, num, centered(list(rows)), min_side=LABELED_SIDE))
