"""What is dropped where image files become pixels: counted while decoding, and said in one sentence each."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vae_train.data.storage.decoding import Dropped


class Count(NamedTuple):
    """How many images one kind of content is dropped from."""

    images: int
    total: float
    """Sum of what is dropped, see `Decoded.dropped`; 0 for messages."""
    example: str
    """Name of the first of these files."""
    message: str = ""
    """The library's message about it."""


DroppedCounts = dict[Dropped, Count]

SENTENCES: Mapping[Dropped, str] = {
    "frames": "{images} further frames or pages, {total:,.0f} in all, which are left out; data.frames=all reads them",
    "colour": "{images} colours, which become grey; data.channels=3 keeps them",
    "depth": "{images} 16 bits per colour, of which the upper 8 are taken; data=arrays takes all",
    "transparency": "{images} transparent pixels, which become {background}; data.background={other} changes it",
    "edges": "{images} other proportions than data.size: {share:.0%} of their area is cut off; data.fit=pad keeps it",
    "library": "{images} made the image library warn, and are read as far as possible: {message}",
}


def count(name: str, dropped: Mapping[Dropped, float | str]) -> DroppedCounts:
    """What is dropped from one image."""
    return {
        kind: Count(1, 0.0, name, value) if isinstance(value, str) else Count(1, value, name)
        for kind, value in dropped.items()
    }


def merged(parts: Iterable[DroppedCounts]) -> DroppedCounts:
    """What is dropped from several parts of a folder, in their order."""
    total: DroppedCounts = {}
    for part in parts:
        for kind, own in part.items():
            first = total.get(kind, own._replace(images=0, total=0.0))
            total[kind] = first._replace(images=first.images + own.images, total=first.total + own.total)
    return total


def sentences(dropped: DroppedCounts, background: str) -> list[str]:
    """A line for every kind of dropped content, with the setting that changes it."""
    lines, other = [], "black" if background == "white" else "white"
    for kind, own in dropped.items():
        images = f"{own.images:,} images (for instance {own.example}) have" if own.images > 1 else f"{own.example} has"
        share = own.total / own.images
        lines.append(
            SENTENCES[kind].format(
                images=images, total=own.total, share=share, background=background, other=other, message=own.message
            )
        )
    return lines
