"""Lists the image files of a folder with their classes and splits."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_train.batch import Split
from vae_train.util.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif")

MAX_LISTED = 5
"""Number of suffixes that a message lists."""

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Entry:
    """A file with an image suffix, or a folder that cannot be read."""

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


def list_folder(root: str) -> Listing:
    """Lists a folder recursively; symbolic links are followed, but each folder is listed once.

    Raises:
        UsageError: the folder does not exist, or contains no readable image.
    """
    place = Path(os.path.expanduser(root))
    if not place.is_dir():
        raise UsageError("no such folder" if not place.exists() else "is a file; use data=arrays")
    found, others = _walk(place)
    entries = sorted(found, key=lambda entry: entry.name)
    if entries and all(entry.problem for entry in entries):
        raise UsageError(f"has no readable image ({entries[0].name}: {entries[0].problem})")
    if not entries:
        wanted = " ".join(suffix[1:] for suffix in SUFFIXES)
        raise UsageError(f"has no image (files that end in {wanted}, also in sub-folders)")
    parts = [entry.name.split("/") for entry in entries]
    tops = {part[0] if len(part) > 1 else "" for part in parts}
    by_folder = any(SPLIT_NAMES.get(t) == "train" for t in tops) and all(t in SPLIT_NAMES for t in tops)
    splits: list[Split] = [SPLIT_NAMES[part[0]] if by_folder else "train" for part in parts]
    folders = [part[by_folder] if len(part) > 1 + by_folder else None for part in parts]
    notes = (*_notes_on_splits(tops, by_folder), *_notes_on_classes(place, entries, folders, by_folder))
    names = sorted({folder for folder in folders if folder is not None})
    if None in folders or not names:
        return Listing(place, entries, splits, None, [], notes, _left_out(others))
    numbers = {name: number for number, name in enumerate(names)}
    labels = [numbers[str(folder)] for folder in folders]
    return Listing(place, entries, splits, labels, names, notes, _left_out(others))


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


def _left_out(others: Counter[str]) -> tuple[str, ...]:
    """A note about files that are not images."""
    listed = ", ".join(f"{number:,} {suffix}" for suffix, number in others.most_common(MAX_LISTED))
    return (f"files that are not images: {listed}{', …' if len(others) > MAX_LISTED else ''}",) if others else ()


def _notes_on_splits(tops: set[str], by_folder: bool) -> list[str]:
    """A note if folders have names of splits but are not used as splits."""
    named, others = (sorted(top for top in tops if (top in SPLIT_NAMES) == named) for named in (True, False))
    if by_folder or not named:
        return []
    why = f"because of {others[0] or 'images outside of folders'}" if others else "without a folder called train"
    return [f"{', '.join(named)}: not used as splits {why}"]


def _notes_on_classes(root: Path, entries: list[Entry], folders: list[str | None], by_folder: bool) -> list[str]:
    """Notes if images outside of folders prevent classes, or if class folders have sub-folders."""
    outside = [entry.name for entry, folder in zip(entries, folders, strict=True) if folder is None]
    if 0 < len(outside) < len(entries):
        return [f"no classes, since {len(outside):,} images are outside of class folders (for instance {outside[0]})"]
    deep = [entry.name for entry in entries if entry.name.count("/") > 1 + by_folder]
    if outside or not deep:
        return []
    first, inner = deep[0].split("/")[by_folder : 2 + by_folder]
    note = f"{len(deep):,} images in sub-folders of class folders belong to the outer class"
    where = deep[0].rpartition(f"/{inner}/")[0]
    return [f"{note} (for instance {deep[0]} to {first}); data.root={root / where} makes {inner} a class"]


def _walk(root: Path) -> tuple[list[Entry], Counter[str]]:
    """The images below a folder, and the number of other files by suffix."""
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
            else:
                others[Path(item.name).suffix.lower() or item.name] += 1
    return entries, others


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
