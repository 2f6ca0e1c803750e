"""Lists the image or audio files of a folder with their classes and splits."""

import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_train.batch import SPLITS, Split
from vae_train.data.storage.stored import cut
from vae_train.util.errors import UsageError


class FileKind(NamedTuple):
    """A kind of files that a folder is searched for."""

    noun: str
    plural: str
    suffixes: tuple[str, ...]
    source: str = "folder"
    """The choice of `data=` that reads such files."""


IMAGES = FileKind(
    "image", "images", (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")
)
VIDEOS = FileKind("video", "videos", (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"))
AUDIO = FileKind("audio file", "audio files", (".wav", ".flac", ".ogg", ".mp3"), "audio")

MAX_SKIPPED = 10
"""Number of bad files that are always skipped."""

MAX_LISTED = 5
"""Number of suffixes that a message lists."""

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def kind_of(suffix: str) -> FileKind | None:
    """The kind of files with a suffix; None for a file that is none of them."""
    return next((kind for kind in (IMAGES, VIDEOS, AUDIO) if suffix.lower() in kind.suffixes), None)


@dataclass(frozen=True)
class Entry:
    """A file of the wanted kind by its suffix, or a folder that cannot be read."""

    name: str
    """Path relative to the root, with slashes."""
    size: int
    """Bytes; -1 if unknown."""
    changed: int
    """Time of modification in nanoseconds since 1970; -1 if unknown."""
    problem: str | None = None
    """Why it cannot be read, if this is already known."""
    frame: int = 0
    """Index of the frame or page."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder, sorted by name.

    Classes are the folders directly below the root or the folder of a split. There are no classes if an image
    is outside of such a folder.
    """

    root: Path
    entries: list[Entry]
    splits: list[Split]
    """The split of each entry's folder; "train" if folders are not splits."""
    labels: list[int] | None
    """Index of each entry's class."""
    class_names: list[str]
    notes: tuple[str, ...] = ()
    """Notes about splits and classes that may be unexpected."""
    left_out: tuple[str, ...] = ()
    """A note about other files, if there are any."""

    def rows(
        self, files: np.ndarray, fractions: Mapping[Split, float], seed: int
    ) -> tuple[dict[Split, np.ndarray], bool]:
        """Indices of the images of every split. Bad files are included, so that they do not change the split of others.

        Args:
            files: index of every image's file; a file may have several images, such as frames.
            fractions: fraction of the images for a split that has no folder.
            seed: seed of the random split.

        Returns:
            The rows, and whether images of the same file are in the same split: they are unless there are too few files
            for all splits.
        """
        splits = np.array(self.splits)
        by_file = cut({name: np.flatnonzero(splits == name) for name in SPLITS}, fractions, seed)
        if len(files) == len(splits) or all(len(by_file[name]) or not share for name, share in fractions.items()):
            return {name: np.flatnonzero(np.isin(files, own)) for name, own in by_file.items()}, True
        return cut({name: np.flatnonzero(splits[files] == name) for name in SPLITS}, fractions, seed), False

    def classes(self, files: Iterable[int]) -> list[str] | None:
        """The names of the classes of some entries, by their indices; None without classes."""
        return None if self.labels is None else [self.class_names[self.labels[file]] for file in files]


def check_bad_files(bad_files: Sequence[tuple[str, str]], total: int, max_bad: float) -> None:
    """Rejects a folder with too many bad files.

    Args:
        bad_files: files that cannot be read, each with the reason.
        total: number of files.
        max_bad: fraction of bad files that is accepted; up to `MAX_SKIPPED` always are.

    Raises:
        UsageError: there are more.
    """
    count = len(bad_files)
    if count <= MAX_SKIPPED or count <= max_bad * total:
        return
    examples = "; ".join(f"{name}: {why}" for name, why in bad_files[:3])
    raise UsageError(
        f"{count:,} of {total:,} files cannot be read ({examples}; …). Remove them, or allow more with "
        f"data.max_bad={math.ceil(100 * count / total) / 100:g}"
    )


def list_folder(root: str, kind: FileKind = IMAGES, otherwise: FileKind | None = None) -> Listing:
    """Lists a folder recursively; symbolic links are followed, but each folder is listed once.

    Args:
        root: the folder, or a single file of this kind.
        kind: the files to list.
        otherwise: the files to list if there are none of `kind`; None for none.

    Raises:
        UsageError: the folder does not exist, or contains no readable file of this kind.
    """
    place, kinds = Path(os.path.expanduser(root)), [kind, *([otherwise] if otherwise else [])]
    if place.is_file() and place.name.lower().endswith(sum((kind.suffixes for kind in kinds), ())):
        return list_files([place])
    nouns = " or ".join(kind.noun for kind in kinds)
    if place.is_file():
        known = kind_of(place.suffix)
        raise UsageError(f"is a file, and no {nouns}; use data={known.source if known else 'arrays'}")
    if not place.is_dir():
        raise UsageError("no such folder")
    found, others = _walk(place, kind.suffixes)
    if otherwise and not found:
        kind, (found, others) = otherwise, _walk(place, otherwise.suffixes)
    entries = sorted(found, key=lambda entry: entry.name)
    if entries and all(entry.problem for entry in entries):
        raise UsageError(f"has no readable {kind.noun} ({entries[0].name}: {entries[0].problem})")
    if not entries:
        wanted = " ".join(suffix[1:] for kind in kinds for suffix in kind.suffixes)
        found_kinds = [known for suffix in others if (known := kind_of(suffix)) is not None]
        advice = "".join(f"; for {known.plural} use data={known.source}" for known in dict.fromkeys(found_kinds))
        raise UsageError(f"has no {nouns} (files that end in {wanted}, also in sub-folders){advice}")
    parts = [entry.name.split("/") for entry in entries]
    tops = {part[0] if len(part) > 1 else "" for part in parts}
    by_folder = any(SPLIT_NAMES.get(t) == "train" for t in tops) and all(t in SPLIT_NAMES for t in tops)
    splits: list[Split] = [SPLIT_NAMES[part[0]] if by_folder else "train" for part in parts]
    folders = [part[by_folder] if len(part) > 1 + by_folder else None for part in parts]
    notes = (*_notes_on_splits(tops, by_folder, kind), *_notes_on_classes(place, entries, folders, by_folder, kind))
    left_out = _left_out(others, kind)
    names = sorted({folder for folder in folders if folder is not None})
    if None in folders or not names:
        return Listing(place, entries, splits, None, [], notes, left_out)
    numbers = {name: number for number, name in enumerate(names)}
    labels = [numbers[str(folder)] for folder in folders]
    return Listing(place, entries, splits, labels, names, notes, left_out)


def list_files(files: Sequence[Path]) -> Listing:
    """Lists image files in the given order, without classes; names are relative to their deepest common folder."""
    paths = [file.absolute() for file in files]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    entries = []
    for path in paths:
        status = path.stat()
        problem = None if path.is_file() else "is not a regular file"
        entries.append(Entry(path.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns, problem))
    return Listing(root, entries, ["train"] * len(entries), None, [])


def _left_out(others: Counter[str], kind: FileKind) -> tuple[str, ...]:
    """A note about files of other kinds."""
    listed = ", ".join(f"{number:,} {suffix}" for suffix, number in others.most_common(MAX_LISTED))
    return (f"files that are not {kind.plural}: {listed}{', …' if len(others) > MAX_LISTED else ''}",) if others else ()


def _notes_on_splits(tops: set[str], by_folder: bool, kind: FileKind) -> list[str]:
    """A note if folders have names of splits but are not used as splits."""
    named, others = (sorted(top for top in tops if (top in SPLIT_NAMES) == named) for named in (True, False))
    if by_folder or not named:
        return []
    why = (
        f"because of {others[0] or f'{kind.plural} outside of folders'}" if others else "without a folder called train"
    )
    return [f"{', '.join(named)}: not used as splits {why}"]


def _notes_on_classes(
    root: Path, entries: list[Entry], folders: list[str | None], by_folder: bool, kind: FileKind
) -> list[str]:
    """Notes if files outside of folders prevent classes, or if class folders have sub-folders."""
    outside = [entry.name for entry, folder in zip(entries, folders, strict=True) if folder is None]
    if 0 < len(outside) < len(entries):
        what = f"{len(outside):,} {kind.plural} are outside of class folders (for instance {outside[0]})"
        return [f"no classes, since {what}"]
    deep = [entry.name for entry in entries if entry.name.count("/") > 1 + by_folder]
    if outside or not deep:
        return []
    first, inner = deep[0].split("/")[by_folder : 2 + by_folder]
    note = f"{len(deep):,} {kind.plural} in sub-folders of class folders belong to the outer class"
    where = deep[0].rpartition(f"/{inner}/")[0]
    return [f"{note} (for instance {deep[0]} to {first}); data.root={root / where} makes {inner} a class"]


def _walk(root: Path, suffixes: tuple[str, ...]) -> tuple[list[Entry], Counter[str]]:
    """The files with some suffixes below a folder, and the number of other files by suffix."""
    entries: list[Entry] = []
    others: Counter[str] = Counter()
    waiting, seen = [("", root)], {_identity(os.stat(root))}
    while waiting:
        below, folder = waiting.pop()
        try:
            items = list(os.scandir(folder))
        except OSError as error:
            entries.append(Entry(below.rstrip("/") or ".", -1, -1, f"cannot be listed: {error.strerror}"))
            continue
        for item in items:
            if item.name.startswith("."):  # .DS_Store, ._photo.jpg
                continue
            try:
                status = item.stat()
            except OSError as error:  # a broken or circular link
                if item.name.lower().endswith(suffixes):
                    entries.append(Entry(below + item.name, -1, -1, error.strerror or type(error).__name__))
                continue
            if item.is_dir():
                if _identity(status) not in seen:
                    seen.add(_identity(status))
                    waiting.append((f"{below}{item.name}/", Path(item.path)))
            elif item.name.lower().endswith(suffixes):
                problem = None if item.is_file() else "is not a regular file"
                entries.append(Entry(below + item.name, status.st_size, status.st_mtime_ns, problem))
            else:
                others[Path(item.name).suffix.lower() or item.name] += 1
    return entries, others


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
