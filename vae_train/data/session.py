"""Caches the data that a command has inspected and read, so that nothing is read twice."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property

import torch

from vae_train.batch import SPLITS, DataFacts
from vae_train.data.dataset import Dataset, Transforms
from vae_train.data.sources.base import Contents, Source
from vae_train.data.storage.loader import DEFAULT_LOADER, Loader
from vae_train.data.storage.stored import Splits
from vae_train.util.errors import UsageError

MAX_SOURCES = 2
"""Number of cached sources: that of a run, and one to compare it with."""


class DataSession:
    """Inspects and loads sources, and caches the most recent ones.

    Checking a configuration, training it and the next job of a sweep usually need the same data. A source
    is identified by its settings and the working directory.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def inspect(self, source: Source) -> DataFacts:
        """Facts about a source, see `Source.inspect`."""
        return self._entry(source).facts

    def load(
        self,
        source: Source,
        transforms: Transforms | None = None,
        loader: Loader = DEFAULT_LOADER,
        device: torch.device | str = "cpu",
    ) -> Dataset:
        """Reads a source, checks it against its facts and places its images for `device`.

        Args:
            source: where the images come from.
            transforms: transforms between stored images and the model; None for none.
            loader: decides where they are stored.
            device: the training device.

        Raises:
            UsageError: the data is missing, cannot be read, or does not match the settings.
        """
        entry = self._entry(source)
        device = torch.empty(0, device=device).device  # "cuda" becomes cuda:0
        splits, storage = entry.place(loader, device)
        active = (transforms or Transforms()).active()
        return Dataset(
            stored_facts=entry.facts._replace(num_train=len(splits["train"])),
            splits=splits,
            device=device,
            loader=loader,
            storage=storage,
            transforms=active._replace(units=entry.facts.units, missing=entry.facts.missing),
            checksum=entry.checksum,
            bad_files=entry.contents.bad_files,
            notes=entry.contents.notes,
            binarization=getattr(source, "binarize", "none"),
            resolved=entry.source.resolved(),
        )

    def _entry(self, source: Source) -> _Entry:
        """The entry of a source, which is moved to the front."""
        folder = os.getcwd()
        known = [entry for entry in self._entries if entry.source == source and entry.folder == folder]
        entry = known[0] if known else _Entry(source, folder)
        self._entries = [entry, *(other for other in self._entries if other is not entry)][:MAX_SOURCES]
        return entry


@dataclass(eq=False)
class _Entry:
    """The cached results for one source."""

    source: Source
    folder: str
    placed: tuple[Loader, torch.device, tuple[Splits, str]] | None = None
    """The last placement, with its loader and device."""

    @property
    def facts(self) -> DataFacts:
        if isinstance(self._inspection, UsageError):
            raise self._inspection
        return self._inspection

    @cached_property
    def _inspection(self) -> DataFacts | UsageError:
        """The facts, or the error of inspecting; several checks ask, and an inspection may log messages."""
        try:
            return self.source.inspect()
        except UsageError as error:
            return error

    @cached_property
    def contents(self) -> Contents:
        """The contents of the source.

        Raises:
            UsageError: shapes or numbers of images or labels do not match the facts.
        """
        facts, contents = self.facts, self.source.read()
        for split, images in contents.splits.items():
            if images.labels is not None and len(images.labels) != len(images):
                raise UsageError(f"there are {len(images):,} {split} images and {len(images.labels):,} labels")
            if images.shape != facts.data_shape:
                raise UsageError(f"the {split} images are {images.shape}, not {facts.data_shape}")
        count = len(contents.splits.get("train", ()))
        if count != facts.num_train and not contents.bad_files:  # bad files do not count as images
            name = type(self.source).__name__
            raise UsageError(f"{name} has {count:,} training images here, not {facts.num_train:,}")
        return contents

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of the pixels of all splits, see `StoredImages.update`."""
        digest, splits = hashlib.sha256(), self.contents.splits
        for name in SPLITS:
            if name in splits:
                splits[name].update(digest)
        return "sha256:" + digest.hexdigest()

    def place(self, loader: Loader, device: torch.device) -> tuple[Splits, str]:
        """The images for `device`, and a description of where they are; cached for the last device and loader."""
        if self.placed is None or self.placed[:2] != (loader, device):
            self.placed = (loader, device, loader.place(self.contents.splits, device))
        return self.placed[2]
