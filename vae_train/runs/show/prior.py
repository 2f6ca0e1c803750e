"""Samples from the prior."""

import torch
from typing_extensions import override

from vae_train.plotting.sheet import Sheet, centered
from vae_train.runs.show.base import Plot, PlotContents
from vae_train.runs.show.opened import OpenedRun

MAX_ROWS = 20
"""Maximal number of classes with a row each."""


class PriorSamples(Plot):
    """Samples from the prior. Those of a conditional model have a row for every class."""

    reads = ("checkpoint", "prior", "num", "columns", "temperature", "top_k", "use_mean", "label", "factors", "seed")
    num = 64
    has_samples = True

    @override
    def __call__(self, opened: OpenedRun) -> PlotContents:
        columns, num, cycled = opened.options.columns, self.count(opened), _cycled(opened)
        samples, left, captions = opened.samples(num), centered([]), list[str]()
        if self.has_rows(opened):
            left = centered([opened.class_name(number) for number in range(cycled)])
            samples = samples[torch.arange(num).view(columns, -1).T.flatten()]  # they cycle through the classes
        elif cycled:
            captions = [opened.class_name(number % cycled) for number in range(num)]
        sheet = Sheet(opened.trained.to_pixels(samples), columns, left, captions=captions)
        return PlotContents(f"{num:,} samples", sheet, samples=samples)

    @override
    def count(self, opened: OpenedRun) -> int:
        by_class = opened.options.columns * _cycled(opened) if self.has_rows(opened) else self.num
        return opened.options.num or by_class

    def has_rows(self, opened: OpenedRun) -> bool:
        """Whether every class has a row."""
        return opened.options.num is None and 0 < _cycled(opened) <= MAX_ROWS


def _cycled(opened: OpenedRun) -> int:
    """The number of classes that samples cycle through; 0 if they all have one condition or none."""
    return opened.num_classes if opened.conditions == "label" and opened.options.label is None else 0
