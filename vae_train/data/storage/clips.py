"""Caches the clips of a folder of audio files in a file, which is written once and memory-mapped afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset
from typing_extensions import override

from vae_train.data.storage.audio_files import EXTRA, AudioHeader, BadAudio, Clips, read_clips, read_header
from vae_train.data.storage.cache import MIN_PARALLEL_FILES, BadFiles, cache_key, in_chunks, reserved
from vae_train.data.storage.cache_place import cache_folder, new_cache, writing_cache
from vae_train.data.storage.listing import Entry
from vae_train.util.errors import UsageError
from vae_train.util.extras import import_extra
from vae_train.util.files import SavedPath, replacing
from vae_train.util.text import counted

VERSION = 1
"""Version of the cache; changes with the results of `read_clips`."""

CHUNK_FILES, CHUNK_BYTES = 64, 2**26
"""Files per chunk of a worker; fewer if the files are large."""

CLIPS, INDEX = "clips.npy", "index.json"


class DecodedClips(NamedTuple):
    """The clips of a folder."""

    samples: np.ndarray
    """float32 `(N, C, T)` in [-1, 1], memory-mapped; zeros for bad files."""
    files: np.ndarray
    """Index of every clip's file."""
    bad: BadFiles
    clipped: list[int]
    """Indices of the files with samples beyond [-1, 1]."""


class _Index(NamedTuple):
    """The content of index.json."""

    bad: BadFiles
    clipped: list[int]
    transient: bool
    """Whether a bad file may be read the next time."""


def audio_headers(root: Path, entries: Sequence[Entry], cache: str | None) -> list[AudioHeader]:
    """Reads the headers of all files of a folder, or those of a cache.

    Raises:
        UsageError: no file is audio, a package is missing, or the cache cannot be written.
        RunError: a worker process died.
    """
    folder = cache_folder(cache)
    place = folder / f"audio-headers-{cache_key(root, entries, VERSION)}.json"
    if (known := _remembered(place, len(entries))) is not None:
        return known
    import_extra("soundfile", EXTRA)  # here, since an error of a worker would not be the user's
    found: list[AudioHeader] = []
    for _, some in in_chunks(_Headers(root, entries), CHUNK_FILES, "Reading headers"):
        found += some
    if all(header.problem for header in found):
        examples = "; ".join(f"{e.name}: {h.problem}" for e, h in list(zip(entries, found, strict=True))[:3])
        more = "; …" if len(found) > 3 else ""
        raise UsageError(f"none of its {len(found):,} files is readable audio ({examples}{more})")
    if len(entries) >= MIN_PARALLEL_FILES and not any(header.transient for header in found):
        with writing_cache("the headers of the audio files", folder), replacing(place) as file:
            file.write(json.dumps(found).encode())
    return found


def decoded_clips(
    root: Path, entries: Sequence[Entry], headers: Sequence[AudioHeader], how: Clips, cache: str | None
) -> DecodedClips:
    """Decodes all audio files of a folder to clips.

    Args:
        root: the folder.
        entries: its files.
        headers: their headers.
        how: how files become clips.
        cache: the folder for caches, see `cache_folder`. That of a saved run is used if it has the clips.

    Raises:
        UsageError: no file can be decoded, a package is missing, or the cache cannot be written.
        RunError: a worker process died.
    """
    if any(header.rate not in (0, how.rate) for header in headers):
        import_extra("soxr", EXTRA)
    folder, name = cache_folder(cache), f"clips-{cache_key(root, entries, [VERSION, asdict(how)])}"
    counts = [how.count(header) for header in headers]
    files, shape = np.repeat(np.arange(len(entries)), counts), (sum(counts), *how.shape)
    saved = [Path(os.path.expanduser(cache)) / name] if isinstance(cache, SavedPath) else []
    for place in (*saved, folder / name):
        if (found := _opened(place, shape)) is not None:
            return DecodedClips(found[0], files, found[1].bad, found[1].clipped)
    with writing_cache("the decoded audio", folder), new_cache(folder / name) as temporary:
        index = _decode_all(_Files(root, entries, headers, how), temporary / CLIPS, shape, counts)
        (temporary / INDEX).write_text(json.dumps(index))
    found = _opened(folder / name, shape, final=True)
    if found is None:
        raise UsageError(f"the decoded audio in {folder / name} disappeared during writing; try again")
    return DecodedClips(found[0], files, found[1].bad, found[1].clipped)


def conversion_notes(headers: Sequence[AudioHeader], how: Clips, setting: str | None) -> list[str]:
    """Notes on files whose sample rate or channels are changed.

    Args:
        headers: the headers of the files.
        how: how they become clips.
        setting: name of the setting of the channels, which notes suggest; None for a trained model.
    """
    notes, total, known = [], len(headers), [header for header in headers if not header.problem]
    if other := [header.rate for header in known if header.rate != how.rate]:
        notes.append(f"{len(other):,} of {total:,} files are resampled to {how.rate:,} Hz (one from {other[0]:,} Hz)")
    if mixed := sum(header.channels > 1 for header in known) if how.channels == 1 else 0:
        advice = f"; {setting}=2 keeps two" if setting else ""
        notes.append(f"{mixed:,} of {total:,} files have several channels, which are averaged{advice}")
    if mono := sum(header.channels == 1 for header in known) if how.channels > 1 else 0:
        advice = f"; {setting}=1 makes all mono" if setting else ""
        notes.append(f"{mono:,} of {total:,} files are mono and fill both channels{advice}")
    return notes


def clipped_notes(clipped: Sequence[int], names: Sequence[str]) -> list[str]:
    """A note on files with samples beyond [-1, 1], see `DecodedClips`."""
    if not clipped:
        return []
    verb = "has" if len(clipped) == 1 else "have"
    example = f"(for instance {names[clipped[0]]})"
    return [f"{counted(len(clipped), 'file')} {verb} samples beyond [-1, 1], which are clipped {example}"]


class _Headers(Dataset):
    """Reads the headers of the files of a chunk."""

    def __init__(self, root: Path, entries: Sequence[Entry]) -> None:
        self.root, self.entries = root, entries

    def __len__(self) -> int:
        return len(self.entries)

    @override
    def __getitem__(self, chunk: range) -> list[AudioHeader]:
        some = self.entries[chunk.start : chunk.stop]
        return [AudioHeader(0, 0, 0, e.problem) if e.problem else read_header(self.root / e.name) for e in some]


class _Files(Dataset):
    """Decodes the files of a chunk; returns `FileClips`, or why a file cannot be decoded, for each."""

    def __init__(self, root: Path, entries: Sequence[Entry], headers: Sequence[AudioHeader], how: Clips) -> None:
        self.root, self.entries, self.headers, self.how = root, entries, headers, how

    def __len__(self) -> int:
        return len(self.entries)

    @override
    def __getitem__(self, chunk: range) -> list[Any]:
        return [self._file(number) for number in chunk]

    def _file(self, number: int) -> Any:
        header = self.headers[number]
        if header.problem:
            return header.problem, header.transient
        try:
            return read_clips(self.root / self.entries[number].name, header, self.how)
        except BadAudio as error:
            return str(error), error.transient


def _decode_all(files: _Files, path: Path, shape: tuple[int, ...], counts: Sequence[int]) -> _Index:
    """Decodes every file into its rows of an array in a new file."""
    clips, starts = reserved(path, shape, np.dtype(np.float32)), np.cumsum([0, *counts])
    size = max(1, min(CHUNK_FILES, CHUNK_BYTES * len(files) // clips.nbytes))
    bad, clipped, transient = BadFiles(), list[int](), False
    for chunk, results in in_chunks(files, size, "Decoding audio"):
        for number, result in zip(chunk, results, strict=True):
            if isinstance(result[0], str):
                bad[number], transient = result[0], transient or result[1]
                continue
            clips[starts[number] : starts[number + 1]] = result.samples
            clipped += [number] * result.is_clipped
    if len(bad) == len(files):  # not worth caching
        examples = "; ".join(f"{entry.name}: {bad[i]}" for i, entry in enumerate(files.entries[:3]))
        more = "; …" if len(bad) > 3 else ""
        raise UsageError(f"none of its {len(files):,} files is readable audio ({examples}{more})")
    clips.flush()
    return _Index(bad, clipped, transient)


def _opened(place: Path, shape: tuple[int, ...], final: bool = False) -> tuple[np.ndarray, _Index] | None:
    """The clips and the index of a complete cache; None if there is none, or if the disk failed to read some files."""
    try:
        bad, clipped, transient = json.loads((place / INDEX).read_text())
        clips = np.load(place / CLIPS, mmap_mode="r")
        index = _Index({int(number): str(why) for number, why in bad.items()}, list(map(int, clipped)), transient)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    is_complete = clips.shape == shape and clips.dtype == np.float32
    return (clips, index) if is_complete and (final or not index.transient) else None


def _remembered(place: Path, count: int) -> list[AudioHeader] | None:
    """The cached headers; None if the file is missing or damaged."""
    try:
        found = [
            AudioHeader(int(n), int(rate), int(c), str(why)) for n, rate, c, why, _ in json.loads(place.read_text())
        ]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == count else None
