"""The image files of a folder, with their classes and splits."""

import os
from dataclasses import dataclass
from pathlib import Path

from vae_train.batch import Split
from vae_train.util.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Entry:
    """A file with the name of an image, or a folder that cannot be read."""

    name: str
    """Its path below the root, with slashes."""
    size: int
    """Bytes; -1 if unknown."""
    changed: int
    """Time of the last change in nanoseconds since 1970; -1 if unknown."""
    problem: str | None = None
    """Why it cannot be read, if that is known already."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder in the order of their names.

    Classes are the folders directly below the root, or below the folder of a split. There are no classes if an image
    lies outside of such a folder.
    """

    root: Path
    entries: list[Entry]
    splits: list[Split]
    """The split of each entry's folder; "train" if folders are not splits."""
    labels: list[int] | None
    """Number of each entry's class."""
    class_names: list[str]


def list_folder(root: str) -> Listing:
    """Lists a folder and everything below it; links are followed, each folder once.

    Raises:
        UsageError: there is no such folder, or it contains no image.
    """
    place = Path(root).expanduser()
    if not place.is_dir():
        raise UsageError("there is no such folder" if not place.exists() else "is a file; use data=arrays")
    entries = sorted(_walk(place), key=lambda entry: entry.name)
    if entries and all(entry.problem for entry in entries):
        raise UsageError(f"holds no image that can be read: {entries[0].name}: {entries[0].problem}")
    if not entries:
        wanted = " ".join(suffix[1:] for suffix in SUFFIXES)
        raise UsageError(f"holds no image (files that end in {wanted}, also in folders below)")
    parts = [entry.name.split("/") for entry in entries]
    tops = {part[0] if len(part) > 1 else "" for part in parts}
    by_folder = any(SPLIT_NAMES.get(t) == "train" for t in tops) and all(t in SPLIT_NAMES for t in tops)
    splits: list[Split] = [SPLIT_NAMES[part[0]] if by_folder else "train" for part in parts]
    folders = [part[by_folder] if len(part) > 1 + by_folder else None for part in parts]
    names = sorted({folder for folder in folders if folder is not None})
    if None in folders or not names:
        return Listing(place, entries, splits, None, [])
    numbers = {name: number for number, name in enumerate(names)}
    return Listing(place, entries, splits, [numbers[str(folder)] for folder in folders], names)


def _walk(root: Path) -> list[Entry]:
    entries: list[Entry] = []
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
            except OSError as error:  # a link to nothing, or to itself
                if item.name.lower().endswith(SUFFIXES):
                    entries.append(Entry(below + item.name, -1, -1, error.strerror or type(error).__name__))
                continue
            if item.is_dir():
                if _identity(status) not in seen:
                    seen.add(_identity(status))
                    waiting.append((f"{below}{item.name}/", Path(item.path)))
            elif item.name.lower().endswith(SUFFIXES):
                problem = None if item.is_file() else "is not a regular file"
                entries.append(Entry(below + item.name, status.st_size, status.st_mtime_ns, problem))
    return entries


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
