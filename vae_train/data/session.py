"""What one command has inspected and read, so that no data is read twice."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from vae_train.batch import DataFacts
from vae_train.data.dataset import Contents, Dataset, Source, check_contents, checksum
from vae_train.data.storage.loader import Loader, Placed
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

    def clear(self) -> None:
        """Forgets all sources."""
        self._entries = []

    def inspect(self, source: Source) -> DataFacts:
        """The facts of a source, see `Source.inspect`."""
        entry = self._entry(source)
        if entry.facts is None:
            entry.facts = entry.source.inspect()
        return entry.facts

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
        facts, entry = self.inspect(source), self._entry(source)
        if entry.contents is None:
            contents = entry.source.read()
            check_contents(type(source).__name__, contents, facts)
            entry.checksum, entry.contents = checksum(contents.splits), contents
        return Dataset(
            facts._replace(num_train=len(entry.contents.splits["train"] or ())),
            entry.place(loader or Loader.default(), torch.empty(0, device=device).device),  # "cuda" becomes cuda:0
            (transforms or Transforms()).active(),
            entry.checksum,
            entry.contents.bad_files,
            source.binarization,
            entry.source.resolved(),
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
    facts: DataFacts | None = None
    contents: Contents | None = None
    checksum: str = ""
    placed: tuple[Any, Placed] | None = None
    """The last placement, and what it was made for."""

    def place(self, loader: Loader, device: torch.device) -> Placed:
        """The images for `device`; copied again only for another device or loader."""
        assert self.contents is not None
        if self.placed is None or self.placed[0] != (loader, device):
            self.placed = (loader, device), loader.place(self.contents.splits, device)
        return self.placed[1]
