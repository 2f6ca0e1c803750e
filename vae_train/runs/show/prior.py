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
        options, classes = opened.options, opened.class_names
        columns, by_class = options.columns, opened.conditions == "label" and options.label is None
        has_rows = by_class and options.num is None and len(classes) <= MAX_ROWS
        num = self.count(opened)
        samples = opened.samples(num)
        left = centered(classes) if has_rows else ()
        if has_rows:  # from cycling through the classes to a row for each
            samples = samples[torch.arange(num).view(columns, -1).T.flatten()]
        captions = [classes[number % len(classes)] for number in range(num)] if by_class and not has_rows else []
        sheet = Sheet(opened.trained.to_pixels(samples), columns, left, captions=captions)
        return Picture(f"{num} samples", sheet, samples=samples)

    def count(self, opened: OpenedRun) -> int:
        """Number of samples."""
        options, classes = opened.options, opened.class_names
        by_class = opened.conditions == "label" and options.label is None and len(classes) <= MAX_ROWS
        return options.num or (options.columns * len(classes) if by_class else self.num)
