"""Reads the headers of all images of a folder, in parallel, and caches them next to the decoded images."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from vae_train.data.storage.cache import MIN_PARALLEL_FILES, cache_key, in_chunks
from vae_train.data.storage.cache_place import writing_cache
from vae_train.data.storage.decoding import BadImage, Header
from vae_train.data.storage.frames import frame_headers
from vae_train.data.storage.listing import Entry
from vae_train.util.files import replacing

CHUNK_FILES = 256
"""Files per chunk of a worker."""

FileHeaders = tuple[Header, ...]
"""The headers of the frames of a file; empty for a file that is not an image."""


def all_headers(root: Path, entries: Sequence[Entry], every_frame: bool, folder: Path) -> list[FileHeaders]:
    """Reads the headers of all files of a folder.

    Args:
        root: the folder.
        entries: its files.
        every_frame: read the headers of all frames.
        folder: the folder for caches.

    Raises:
        UsageError: the cache cannot be written.
        RunError: a worker process died.
    """
    place = folder / f"headers-{cache_key(root, entries, every_frame)}.json"
    if (known := _remembered(place, len(entries))) is not None:
        return known
    found: list[FileHeaders] = []
    transient = False
    for _, (some, failed) in in_chunks(_Files(root, entries, every_frame), CHUNK_FILES, "Reading headers"):
        found += some
        transient |= failed
    if len(entries) >= MIN_PARALLEL_FILES and not transient:
        with writing_cache("the headers of the images", folder), replacing(place) as file:
            kinds = {frames: number for number, frames in enumerate(dict.fromkeys(found))}
            file.write(json.dumps([list(kinds), [kinds[frames] for frames in found]]).encode())
    return found


def frame_entries(entries: Sequence[Entry], counts: Sequence[int]) -> tuple[list[Entry], np.ndarray]:
    """An entry for every frame, and the index of its file.

    Args:
        entries: the files.
        counts: number of frames of every file; 0 counts as 1, so that bad files are kept.
    """
    files = np.repeat(np.arange(len(entries)), np.maximum(counts, 1))
    first = np.searchsorted(files, files)
    frames = [replace(entries[file], frame=int(row - first[row])) for row, file in enumerate(files.tolist())]
    return frames, files


def _remembered(place: Path, count: int) -> list[FileHeaders] | None:
    """The cached headers of `all_headers`; None if the file is missing or damaged."""
    try:
        kinds, numbers = json.loads(place.read_text())
        frames = [
            tuple(Header((int(height), int(width)), bool(grey)) for (height, width), grey in kind) for kind in kinds
        ]
        found = [frames[number] for number in numbers]
    except (OSError, ValueError, TypeError, IndexError):
        return None
    return found if len(found) == count else None


class _Files(Dataset):
    """Reads the headers of the files of a chunk; also returns whether the disk failed to read one of them."""

    def __init__(self, root: Path, entries: Sequence[Entry], every_frame: bool) -> None:
        self.root, self.entries, self.every_frame = root, entries, every_frame

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, chunk: range) -> tuple[list[FileHeaders], bool]:
        found: list[FileHeaders] = []
        transient = False
        for entry in self.entries[chunk.start : chunk.stop]:
            try:
                # opening a pipe would block
                found.append(() if entry.problem else tuple(frame_headers(self.root / entry.name, self.every_frame)))
            except BadImage as error:
                found.append(())
                transient |= error.transient
        return found, transient
