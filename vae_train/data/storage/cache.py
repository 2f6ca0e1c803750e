"""Caches decoded images in a file, which is written once, in parallel, and memory-mapped afterwards."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vae_train.data.storage.cache_place import cache_folder, new_cache, writing_cache
from vae_train.data.storage.decoding import BadImage, Decoded, Decoding
from vae_train.data.storage.depths import Depths, united
from vae_train.data.storage.dropped import Count, DroppedCounts, count, merged
from vae_train.data.storage.frames import FrameReader, is_video
from vae_train.data.storage.levels import Integers
from vae_train.data.storage.listing import Entry
from vae_train.data.storage.loader import results
from vae_train.util.errors import UsageError
from vae_train.util.files import SavedPath, replacing
from vae_train.util.progress import progress_bar
from vae_train.util.runtime import cores

VERSION = 4
"""Version of the cache; changes with the results of `FrameReader`."""

CHUNK_FILES = 64
"""Files per chunk of a worker; fewer if the images are large."""

MIN_PARALLEL_FILES = 512
"""Number of files below which starting workers is slower than decoding in this process."""

MAX_EXAMPLES = 3
"""Number of bad files that an error names."""

PIXELS, INDEX = "pixels.npy", "index.json"

log = logging.getLogger("vae_train")

BadFiles = dict[int, str]
"""Index of a file that could not be decoded -> the reason."""

BadIndex = dict[str, tuple[str, bool]]
"""Index of a bad file -> the reason, and whether it may be transient."""


class Index(NamedTuple):
    """The content of index.json."""

    bad: BadIndex
    dropped: DroppedCounts
    """What was dropped from the other files."""
    depths: Depths
    """Bit depths of their pixels."""


class _Chunk(NamedTuple):
    """The result of a worker for some files."""

    pixels: Tensor
    """uint8 `(B, C, H, W)`, or uint16 if a file has 16 bits; zeros for bad files."""
    bits: list[int]
    """Bits of every file, see `Decoded.bits`; 0 for bad files."""
    high: int
    """The largest pixel of 16-bit files."""
    bad: BadIndex
    dropped: DroppedCounts


class DecodedFolder(NamedTuple):
    """The images of a folder."""

    pixels: np.ndarray
    """uint8 or uint16 `(N, C, H, W)`, memory-mapped; zeros for bad files."""
    bad: BadFiles
    dropped: DroppedCounts
    depths: Depths


def decoded(root: Path, entries: Sequence[Entry], how: Decoding, cache: str | None) -> DecodedFolder:
    """Decodes all images of a folder, and counts what is dropped.

    The cache's name is a hash of the names, sizes and times of all files and of `how`. It is renamed to it when
    complete, so that an incomplete cache is never used after a crash.

    Args:
        root: the folder.
        entries: its files or their frames; row i of the array is entry i.
        how: how files become pixels.
        cache: the folder for caches, see `cache_folder`. That of a saved run is used if it has the images.

    Raises:
        UsageError: no file is an image, or the cache cannot be written.
        RunError: a worker process died.
    """
    folder, name = cache_folder(cache), f"images-{cache_key(root, entries, asdict(how))}"
    place, files = folder / name, _Files(root, entries, how)
    if isinstance(cache, SavedPath) and (saved := _opened(Path(os.path.expanduser(cache)) / name, files)) is not None:
        return _folder(*saved)
    if (cached := _opened(place, files)) is not None and (index := _retried(place, *cached, files)) is not None:
        return _folder(cached[0], index)
    if isinstance(cache, SavedPath) and cache_folder(str(cache)) != folder:
        log.info("decoding images to %s; data.cache=%s uses the folder that the run names", folder, cache)
    with writing_cache("the decoded images", folder):
        _write(place, files)
    if (written := _opened(place, files)) is None:
        raise UsageError(f"the decoded images in {place} disappeared during writing; try again")
    return _folder(*written)


def _folder(pixels: np.ndarray, index: Index) -> DecodedFolder:
    bad = {int(number): why for number, (why, _) in index.bad.items()}
    return DecodedFolder(pixels, bad, index.dropped, index.depths)


def cache_key(root: Path, entries: Sequence[Entry], how: Any) -> str:
    """A hash of the names, sizes and times of files, and of how they are decoded."""
    digest = hashlib.sha256(json.dumps([VERSION, str(root.resolve()), how]).encode())
    for entry in entries:
        digest.update(json.dumps([entry.name, entry.size, entry.changed, entry.frame]).encode())
    return digest.hexdigest()[:24]


class _Files(Dataset):
    """Decodes the files of a chunk, in worker processes since decoding holds the GIL."""

    def __init__(self, root: Path, entries: Sequence[Entry], how: Decoding) -> None:
        self.root, self.entries, self.how, self.reader = root, entries, how, FrameReader()

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, chunk: range) -> _Chunk:
        bad: BadIndex = {}
        good, dropped = dict[int, Decoded](), []
        for row, (number, result) in enumerate(zip(chunk, self.frames(chunk), strict=True)):
            if isinstance(result, BadImage):
                bad[str(number)] = (str(result), result.transient)
            else:
                good[row] = result
                dropped.append(count(self.entries[number].name, result.dropped))
        bits = [good[row].bits if row in good else 0 for row in range(len(chunk))]
        pixels = np.zeros((len(chunk), *self.how.shape), np.uint16 if 16 in bits else np.uint8)
        for row, image in good.items():
            pixels[row] = image.pixels
        high = max((image.high for image in good.values()), default=0)
        return _Chunk(torch.from_numpy(pixels), bits, high, bad, merged(dropped))

    def frames(self, chunk: Iterable[int]) -> Iterator[Decoded | BadImage]:
        """Yields the images of a chunk; a file is opened once for all of its frames."""
        for entry, group in groupby((self.entries[number] for number in chunk), lambda entry: replace(entry, frame=0)):
            numbers = [frame.frame for frame in group]
            if entry.problem is not None:  # not transient, since another listing has another cache
                yield from [BadImage(entry.problem)] * len(numbers)
            else:
                yield from self.reader.frames(self.root / entry.name, self.how, numbers)


def _opened(place: Path, files: _Files) -> tuple[np.ndarray, Index] | None:
    """The pixels and the index of a complete cache; None if there is none."""
    try:
        tree = json.loads((place / INDEX).read_text())
        pixels = np.load(place / PIXELS, mmap_mode="r")
        dropped: DroppedCounts = {kind: Count(*numbers) for kind, numbers in tree["dropped"].items()}
        bits, high, scaled, found = tree["depths"]
        index = Index(tree["bad"], dropped, Depths(bits, high, scaled, Integers(*found)))
        _folder(pixels, index)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    complete = pixels.shape == (len(files), *files.how.shape) and pixels.dtype in (np.uint8, np.uint16)
    return (pixels, index) if complete else None


def _retried(place: Path, pixels: np.ndarray, index: Index, files: _Files) -> Index | None:
    """Retries files that the disk failed to read, and returns the new index.

    None if all files must be decoded again, because a retried file changes the depth or there are 16-bit files.
    """
    bad, dropped, depths = dict(index.bad), index.dropped, index.depths
    for number in (number for number, (_, transient) in index.bad.items() if transient):
        (result,) = files.frames([int(number)])
        if isinstance(result, BadImage):
            continue
        if pixels.dtype != np.uint8 or depths.bits != result.bits:
            return None
        try:
            np.load(place / PIXELS, mmap_mode="r+")[int(number)] = result.pixels
        except OSError:
            continue
        del bad[number]
        dropped = merged([dropped, count(files.entries[int(number)].name, result.dropped)])
        depths = depths._replace(pixels=depths.pixels.joined(Integers.of(result.pixels)))
    updated = Index(bad, dropped, depths)
    if updated != index:
        _write_index(place, updated)
    return updated


def _write(place: Path, files: _Files) -> None:
    with new_cache(place) as temporary:
        tried = (_decode_all(files, temporary / PIXELS, dtype) for dtype in (np.uint8, np.uint16))
        _write_index(temporary, next(index for index in tried if index is not None))


def _write_index(folder: Path, index: Index) -> None:
    with replacing(folder / INDEX) as file:
        file.write(json.dumps(index._asdict()).encode())


def reserved(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Creates an array in a new file and reserves its disk space.

    Writing to a mapped file on a full disk would kill the process.
    """
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return pixels


def _decode_all(files: _Files, path: Path, dtype: Any) -> Index | None:
    """Decodes every file into its row of an array in a new file, and returns the index.

    None at the first file whose pixels need a larger type than `dtype`.
    """
    size = max(1, min(CHUNK_FILES, 2**23 // math.prod(files.how.shape)))
    pixels = reserved(path, (len(files), *files.how.shape), np.dtype(dtype))
    bits, high, bad, dropped = np.zeros(len(files), np.uint8), 0, BadIndex(), DroppedCounts()
    for rows, chunk in in_chunks(files, size, "Decoding images"):
        images = chunk.pixels.numpy()
        if images.dtype.itemsize > pixels.dtype.itemsize:
            return None
        pixels[rows.start : rows.stop], bits[rows.start : rows.stop] = images, chunk.bits
        high, bad, dropped = max(high, chunk.high), bad | chunk.bad, merged([dropped, chunk.dropped])
    if len(bad) == len(files):  # not worth caching
        examples = "; ".join(f"{entry.name}: {bad[str(i)][0]}" for i, entry in enumerate(files.entries[:MAX_EXAMPLES]))
        more = "; …" if len(files) > MAX_EXAMPLES else ""
        noun = "video" if is_video(files.entries[0].name) else "image"
        raise UsageError(f"none of its {len(files):,} files is a readable {noun} ({examples}{more})")
    depths = united(pixels, bits, high)
    pixels.flush()
    return Index(bad, dropped, depths)


def in_chunks(files: Any, size: int, what: str) -> Iterator[tuple[range, Any]]:
    """Yields a data set's result for every chunk of its files, with a progress bar; uses workers if there are many.

    Args:
        files: has a length, and an item for every range of indices.
        size: files per chunk.
        what: title of the progress bar.
    """
    total = len(files)
    chunks = [range(start, min(start + size, total)) for start in range(0, total, size)]
    workers = min(cores(), len(chunks)) if total >= MIN_PARALLEL_FILES else 0
    loader = DataLoader(files, batch_size=None, sampler=chunks, num_workers=workers, collate_fn=_unchanged)  # type: ignore[arg-type]
    with progress_bar(total, what, keep=True) as bar:
        for chunk, result in zip(chunks, results(loader), strict=True):
            yield chunk, result
            bar.update(len(chunk))


def _unchanged(item: Any) -> Any:
    return item
