"""Decoded images in a file of pixels: made once, in parallel, and mapped into memory by every later start."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from vae_train.data.storage.decoding import BadImage, Decoding, decode, quiet
from vae_train.data.storage.listing import Entry
from vae_train.data.storage.workers import results
from vae_train.util.errors import UsageError
from vae_train.util.runtime import cores

VERSION = 1
"""Raised where `decode` changes what it makes of a file."""

CHUNK = 64
"""Files that a worker decodes at a time; fewer where they are large."""

FEW = 512
"""Files below which starting workers takes longer than they save."""

PIXELS, INDEX = "pixels.npy", "index.json"

Bad = dict[int, str]
"""Numbers of the files that could not be decoded, each with the reason."""

Index = dict[str, tuple[str, bool]]
"""What stands in index.json of each of them: the reason, and whether it may pass."""


def cache_folder(given: str | None) -> Path:
    """Where caches are: `given`, else where programs keep theirs."""
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vae_train"


def decoded(root: Path, entries: Sequence[Entry], how: Decoding, folder: Path) -> tuple[np.ndarray, Bad]:
    """All images of a folder as a uint8 array `(N, C, H, W)` that is mapped from a file, and those that are bad.

    The cache's name is a hash of the names, sizes and times of all files and of `how`; it is put in its place in one
    go when it is complete, so that what a crash leaves behind is never used.

    Args:
        root: the folder.
        entries: its files; row i of the array is that of file i, all zeros for a bad one.
        how: what the pixels become.
        folder: where caches are.

    Raises:
        UsageError: no file is an image, or the cache cannot be written.
        RunError: a process that decodes died.
    """
    place = folder / f"images-{_key(root, entries, how)}"
    found = _opened(place, len(entries), how)
    if found is not None:
        pixels, index = found
        return pixels, _bad(_tried_again(place, root, entries, how, index))
    try:
        _make(place, root, entries, how)
    except OSError as error:
        raise UsageError(
            f"the decoded images could not be written to {folder} ({error.strerror or error}); "
            "data.cache= names another folder"
        ) from error
    made = _opened(place, len(entries), how)
    if made is None:
        raise UsageError(f"the decoded images in {place} disappeared while they were written: start again")
    pixels, index = made
    return pixels, _bad(index)


def _key(root: Path, entries: Sequence[Entry], how: Decoding) -> str:
    digest = hashlib.sha256(json.dumps([VERSION, str(root.resolve()), asdict(how)]).encode())
    for entry in entries:
        digest.update(json.dumps([entry.name, entry.size, entry.changed]).encode())
    return digest.hexdigest()[:24]


def _opened(place: Path, count: int, how: Decoding) -> tuple[np.ndarray, Index] | None:
    """The pixels and the index of a cache that is whole; None where there is none."""
    try:
        index = json.loads((place / INDEX).read_text())
        pixels = np.load(place / PIXELS, mmap_mode="r")
        _bad(index)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = pixels.shape == (count, *how.shape) and pixels.dtype == np.uint8
    return (pixels, index) if whole else None


def _bad(index: Index) -> Bad:
    return {int(number): why for number, (why, _) in index.items()}


def _tried_again(place: Path, root: Path, entries: Sequence[Entry], how: Decoding, index: Index) -> Index:
    """The index after another look at the files that the disk refused, which it may give by now."""
    mended = dict(index)
    for number in [number for number, (_, passing) in index.items() if passing]:
        try:
            pixels = decode(root / entries[int(number)].name, how)
            np.load(place / PIXELS, mmap_mode="r+")[int(number)] = pixels
            del mended[number]
        except (BadImage, OSError):
            continue
    if mended != index:
        temporary = place / f"{INDEX}.{os.getpid()}"
        temporary.write_text(json.dumps(mended))
        temporary.replace(place / INDEX)
    return mended


def _make(place: Path, root: Path, entries: Sequence[Entry], how: Decoding) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    _sweep(place)
    temporary.mkdir()
    try:
        pixels = _reserved(temporary / PIXELS, (len(entries), *how.shape))
        index = _decode_all(root, entries, how, pixels)
        if len(index) == len(entries):  # nothing that is worth keeping
            some = "; ".join(f"{entry.name}: {index[str(i)][0]}" for i, entry in enumerate(entries[:3]))
            raise UsageError(f"none of its {len(entries):,} files is an image that can be read ({some}; …)")
        pixels.flush()
        with (temporary / INDEX).open("w") as file:
            json.dump(index, file)
            file.flush()
            os.fsync(file.fileno())
        _put(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _reserved(path: Path, shape: tuple[int, ...]) -> Any:
    """An array in a new file whose space on the disk is taken.

    Writing to a mapped file on a disk that is full ends the process without an exception.
    """
    pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return pixels


def _decode_all(root: Path, entries: Sequence[Entry], how: Decoding, pixels: np.ndarray) -> Index:
    """Decodes every file into its row; returns the index."""
    size = max(1, min(CHUNK, 2**23 // math.prod(how.shape)))
    chunks = [range(start, min(start + size, len(entries))) for start in range(0, len(entries), size)]
    workers = min(cores(), len(chunks)) if len(entries) >= FEW else 0
    loader = DataLoader(_Files(root, entries, how), batch_size=None, sampler=chunks, num_workers=workers)  # type: ignore[arg-type]
    index: Index = {}
    bar = tqdm(total=len(entries), desc="Decoding images", unit="", disable=not sys.stderr.isatty())
    with bar:
        for chunk, (found, bad) in zip(chunks, results(loader), strict=True):
            pixels[chunk.start : chunk.stop] = found.numpy()
            index.update({str(number): why for number, why in bad.items()})
            bar.update(len(chunk))
    return index


class _Files(Dataset):
    """Files by the numbers of a chunk, decoded in the worker processes: threads would wait for each other's Python."""

    def __init__(self, root: Path, entries: Sequence[Entry], how: Decoding) -> None:
        self.root, self.entries, self.how = root, entries, how

    def __getitem__(self, chunk: range) -> tuple[Tensor, dict[int, tuple[str, bool]]]:
        found, bad = np.zeros((len(chunk), *self.how.shape), np.uint8), {}
        with quiet():
            for row, number in enumerate(chunk):
                try:
                    found[row] = self._decoded(self.entries[number])
                except BadImage as error:
                    bad[number] = (str(error), error.passing)
        return torch.from_numpy(found), bad

    def _decoded(self, entry: Entry) -> np.ndarray:
        if entry.problem is not None:
            raise BadImage(entry.problem)  # for good: another listing makes another cache
        return decode(self.root / entry.name, self.how)


def _put(temporary: Path, place: Path) -> None:
    """Renames; what stands there already is a cache of the same files, whole or not."""
    if place.exists():
        aside = place.with_name(f"{temporary.name}-old")
        place.rename(aside)
        temporary.rename(place)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        temporary.rename(place)


def _sweep(place: Path) -> None:
    """Removes what processes that are no more left unfinished."""
    for left in place.parent.glob(f"{place.name}.*.tmp*"):
        process = left.name.removeprefix(f"{place.name}.").partition(".")[0]
        if not (process.isdigit() and _runs(int(process))):
            shutil.rmtree(left, ignore_errors=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere, asking would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return process != os.getpid()
