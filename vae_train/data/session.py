"""What one command has inspected and read, so that no data is read twice."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property

import torch

from vae_train.batch import DataFacts
from vae_train.data.dataset import Contents, Dataset, Source, check_contents, checksum
from vae_train.data.storage.loader import Loader
from vae_train.data.storage.stored import Splits
from vae_train.data.transforms.pipeline import Transforms

MAX_SOURCES = 2
"""Sources that are remembered: a run's own, and the one that it is compared with."""


class DataSession:
    """Inspects and loads sources, and remembers the last ones.

    The check of a configuration, the training after it and the next job of a sweep mostly need the same data. A source
    is recognised by its settings and the working directory.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def inspect(self, source: Source) -> DataFacts:
        """The facts of a source, see `Source.inspect`."""
        return self._entry(source).facts

    def load(
        self,
        source: Source,
        transforms: Transforms | None = None,
        loader: Loader | None = None,
        device: torch.device | str = "cpu",
    ) -> Dataset:
        """Reads a source, checks it against its facts and places its images for `device`.

        Args:
            source: where the images come from.
            transforms: what happens to them on their way to a model; None for nothing.
            loader: where they are kept; None for `Loader.default`.
            device: the training device.

        Raises:
            UsageError: the data is missing, cannot be read, or is not what the settings say.
        """
        entry, loader = self._entry(source), loader or Loader.default()
        device = torch.empty(0, device=device).device  # "cuda" becomes cuda:0
        splits, storage = entry.place(loader, device)
        return Dataset(
            stored_facts=entry.facts._replace(num_train=len(splits["train"] or ())),
            splits=splits,
            device=device,
            loader=loader,
            storage=storage,
            transforms=(transforms or Transforms()).active(),
            checksum=entry.checksum,
            bad_files=entry.contents.bad_files,
            binarization=source.binarization,
            resolved=entry.source.resolved(),
        )

    def _entry(self, source: Source) -> _Entry:
        """The entry of a source, which becomes the most recent one."""
        folder = os.getcwd()
        known = [entry for entry in self._entries if entry.source == source and entry.folder == folder]
        entry = known[0] if known else _Entry(source, folder)
        self._entries = [entry, *(other for other in self._entries if other is not entry)][:MAX_SOURCES]
        return entry


@dataclass(eq=False)
class _Entry:
    """What is known of one source."""

    source: Source
    folder: str
    placed: tuple[Loader, torch.device, tuple[Splits, str]] | None = None
    """The last placement, after what it was made for."""

    @cached_property
    def facts(self) -> DataFacts:
        return self.source.inspect()

    @cached_property
    def contents(self) -> Contents:
        facts, contents = self.facts, self.source.read()
        check_contents(type(self.source).__name__, contents, facts)
        return contents

    @cached_property
    def checksum(self) -> str:
        return checksum(self.contents.splits)

    def place(self, loader: Loader, device: torch.device) -> tuple[Splits, str]:
        """The images for `device`, and where they are; copied again only for another device or loader."""
        if self.placed is None or self.placed[:2] != (loader, device):
            self.placed = (loader, device, loader.place(self.contents.splits, device))
        return self.placed[2]
