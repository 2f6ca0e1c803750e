"""Counts what decoding drops from image files, with a message for each kind of content."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vae_train.data.storage.decoding import Dropped


class Count(NamedTuple):
    """The number of images from which one kind of content was dropped."""

    images: int
    total: float
    """Total amount, see `Decoded.dropped`; 0 for messages."""
    example: str
    """Name of the first file."""
    message: str = ""
    """The library's message about it."""


DroppedCounts = dict[Dropped, Count]

SENTENCES: Mapping[Dropped, tuple[str, str]] = {
    "frames": ("further frames or pages ({total:,.0f} in total), which are skipped", "data.frames=all reads them"),
    "colour": ("colours, which are converted to grey", "data.channels=3 keeps them"),
    "depth": ("more than 8 bits per colour, but only the upper 8 are used", "data=arrays uses all"),
    "transparency": ("transparent pixels, which become {background}", "data.background={other} changes it"),
    "edges": ("another aspect ratio than {size}: {share:.0%} of the area is cropped", "data.fit=pad keeps it"),
    "library": ("warnings of the image library, and the readable part is used: {message}", ""),
}
"""Kind of content -> what happens to it, and the setting of a data set that keeps it."""


def count(name: str, dropped: Mapping[Dropped, float | str]) -> DroppedCounts:
    """Counts what is dropped from one image."""
    return {
        kind: Count(1, 0.0, name, value) if isinstance(value, str) else Count(1, value, name)
        for kind, value in dropped.items()
    }


def merged(parts: Iterable[DroppedCounts]) -> DroppedCounts:
    """Adds the counts of several parts of a folder, in order."""
    total: DroppedCounts = {}
    for part in parts:
        for kind, own in part.items():
            first = total.get(kind, own._replace(images=0, total=0.0))
            total[kind] = first._replace(images=first.images + own.images, total=first.total + own.total)
    return total


def sentences(dropped: DroppedCounts, background: str, size: str | None = None) -> list[str]:
    """A message for every kind of dropped content.

    Args:
        dropped: what is dropped.
        background: the colour behind transparent pixels.
        size: the size to which a trained model needs its images, 28x28; None for a data set, all of whose settings the
            messages suggest.
    """
    lines, other = [], "black" if background == "white" else "white"
    for kind, own in dropped.items():
        images = f"{own.images:,} images (for instance {own.example}) have" if own.images > 1 else f"{own.example} has"
        what, advice = SENTENCES[kind]
        values = {"total": own.total, "share": own.total / own.images, "background": background, "other": other}
        text = f"{what}; {advice}" if advice and (size is None or kind == "frames") else what
        lines.append(f"{images} {text.format(**values, message=own.message, size=size or 'data.size')}")
    return lines
