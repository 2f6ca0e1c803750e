"""Decodes the frames of video files in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from PIL import Image

from vae_train.data.storage.decoding import BadImage, Decoded, Decoding, Dropped, Header, decode_image
from vae_train.util.errors import raise_out_of_memory
from vae_train.util.extras import import_extra

EXTRA = "video"
"""The extra that installs PyAV."""

TURNS = {90: "ROTATE_90", 180: "ROTATE_180", 270: "ROTATE_270"}
"""Rotation of frames in degrees, counter-clockwise -> its name in `Image.Transpose`."""

BYTE_BITS = 8

DEFAULT_RATE = 25
"""Frames per second of a video that does not say it."""


def video_headers(path: Path, every_frame: bool = False) -> list[Header]:
    """Decodes the first frame of a video for its size, and counts the others by their packets.

    Args:
        path: the file.
        every_frame: whether a header for every frame is needed, instead of only for the first.

    Raises:
        BadImage: it cannot be read.
        UsageError: the package is missing.
    """
    with _opened(path) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise BadImage("has no frames")
        width, height = frame.width, frame.height
        size = (width, height) if _turn(frame) in (90, 270) else (height, width)
        header = Header(size, _is_grey(frame))
    return [header] * (count_frames(path) if every_frame else 1)


def count_frames(path: Path) -> int:
    """Number of frames of a video; its header need not say it.

    Raises:
        BadImage: it cannot be read.
        UsageError: the package is missing.
    """
    with _opened(path) as (container, stream):
        return sum(packet.size > 0 and not packet.is_discard for packet in container.demux(stream))


def video_rate(path: Path) -> Fraction:
    """Frames per second of a video, on average.

    Raises:
        BadImage: it cannot be read.
        UsageError: the package is missing.
    """
    with _opened(path) as (_, stream):
        return Fraction(stream.average_rate or DEFAULT_RATE)


def has_sound(path: Path) -> bool:
    """Whether a video has sound.

    Raises:
        BadImage: it cannot be read.
        UsageError: the package is missing.
    """
    with _opened(path) as (container, _):
        return bool(container.streams.audio)


class VideoReader:
    """Decodes frames of videos; frames in ascending order are decoded once, over several calls.

    The last video stays open, since a frame can only be decoded after those before it.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        self._frames: Iterator[Any] = iter(())
        self._next = 0

    def frames(self, path: Path, how: Decoding, numbers: Sequence[int]) -> list[Decoded | BadImage]:
        """Decodes some frames of a video, by ascending number; returns each, or why it cannot be decoded.

        Raises:
            UsageError: the package is missing.
        """
        if path != self._path or numbers[0] < self._next:
            self._path, self._frames, self._next = path, _decoded(path), 0
        results: list[Decoded | BadImage] = []
        for number in numbers:
            try:
                results.append(self._frame(number, how))
            except BadImage as error:
                self._frames = iter(())
                results.append(error)
        if not how.every_frame and isinstance(results[0], Decoded) and (further := count_frames(path) - 1) > 0:
            results[0].dropped["frames"] = float(further)
        return results

    def _frame(self, number: int, how: Decoding) -> Decoded:
        for frame in self._frames:
            self._next += 1
            if self._next > number:
                dropped: dict[Dropped, float | str] = {}
                if any(component.bits > BYTE_BITS for component in frame.format.components):
                    dropped["depth"] = 1.0
                decoded = decode_image(_image(frame), how)
                decoded.dropped.update(dropped)
                return decoded
        raise BadImage(f"cannot be decoded after frame {self._next:,}")


def _decoded(path: Path) -> Iterator[Any]:
    """Yields the frames of a video, which stays open until the last one."""
    with _opened(path) as (container, stream):
        yield from container.decode(stream)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Opens a video and its first stream of frames, and converts errors to `BadImage`."""
    av = import_extra("av", EXTRA)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadImage("has no frames, only sound" if container.streams.audio else "has no frames")
            yield container, container.streams.video[0]
    except av.error.InvalidDataError as error:
        raise BadImage("is not a video, or is damaged") from error
    except av.error.EOFError as error:
        raise BadImage("has no frames") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise_out_of_memory(error)
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(reason, isinstance(error, OSError)) from error


def _image(frame: Any) -> Image.Image:
    """A frame as an upright grey or RGB image."""
    image = Image.fromarray(frame.to_ndarray(format="gray")) if _is_grey(frame) else frame.to_image()
    turn = TURNS.get(_turn(frame))
    return image.transpose(Image.Transpose[turn]) if turn else image


def _is_grey(frame: Any) -> bool:
    return bool(frame.format.name.startswith("gray"))


def _turn(frame: Any) -> int:
    """The rotation with which a frame is shown, in degrees counter-clockwise, 0 to 359."""
    return int(frame.rotation) % 360
