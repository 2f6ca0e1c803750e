"""Samples from the prior."""

import torch
from typing_extensions import override

from vae_train.plotting.sheet import Sheet, centered
from vae_train.runs.show.base import Picture, Show
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.errors import ErrorDetail

MAX_ROWS = 20
"""Maximal number of classes with a row each."""


class PriorSamples(Show):
    """Samples from the prior. Those of a conditional model have a row for every class."""

    reads = ("checkpoint", "prior", "num", "columns", "temperature", "use_mean", "label", "factors", "seed")
    num = 64
    has_samples = True

    @override
    def errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        return opened.memory_errors(self.count(opened))

    @override
    def __call__(self, opened: OpenedRun) -> Picture:
        classes, columns, num = _classes(opened), opened.options.columns, self.count(opened)
        samples, left, captions = opened.samples(num), centered([]), list[str]()
        if self.has_rows(opened):
            left = centered(classes)
            samples = samples[torch.arange(num).view(columns, -1).T.flatten()]  # they cycle through the classes
        elif classes:
            captions = [classes[number % len(classes)] for number in range(num)]
        sheet = Sheet(opened.trained.to_pixels(samples), columns, left, captions=captions)
        return Picture(f"{num} samples", sheet, samples=samples)

    def count(self, opened: OpenedRun) -> int:
        """Number of samples."""
        by_class = opened.options.columns * len(_classes(opened)) if self.has_rows(opened) else self.num
        return opened.options.num or by_class

    def has_rows(self, opened: OpenedRun) -> bool:
        """Whether every class has a row."""
        return opened.options.num is None and 0 < len(_classes(opened)) <= MAX_ROWS


def _classes(opened: OpenedRun) -> list[str]:
    """The classes that samples cycle through; empty if they all have one condition or none."""
    return opened.class_names if opened.conditions == "label" and opened.options.label is None else []
