"""Reads audio files as clips of the same length, number of channels and sample rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_train.util.errors import raise_out_of_memory
from vae_train.util.extras import import_extra
from vae_train.util.text import first_line

EXTRA = "audio"
"""The extra that installs soundfile, which decodes, and soxr, which resamples."""


class AudioHeader(NamedTuple):
    """Facts about an audio file that are known without decoding it."""

    frames: int
    """Number of samples per channel; 0 for a file that cannot be read."""
    rate: int
    """Samples per second."""
    channels: int
    problem: str = ""
    """Why it cannot be read; empty if it can."""
    transient: bool = False
    """Whether reading may succeed the next time, because the disk failed."""


class BadAudio(Exception):
    """Raised for a file that is not usable audio.

    Args:
        why: the reason.
        transient: whether reading may succeed the next time.
    """

    def __init__(self, why: str, transient: bool = False) -> None:
        super().__init__(why)
        self.transient = transient


@dataclass(frozen=True)
class Clips:
    """How audio files become clips; part of the key of a cache.

    Files of another sample rate are resampled by soxr ("HQ"), the resampler of librosa. Short files are padded with
    silence, and long ones are cut into clips without overlap.

    Args:
        rate: samples per second.
        length: samples per clip.
        channels: channels of a clip: 1 averages the channels of a file; mono files are repeated.
        whole: whether the rest of a long file becomes a padded clip; otherwise it is left out.
    """

    rate: int
    length: int
    channels: int
    whole: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(C, T)."""
        return (self.channels, self.length)

    def samples(self, header: AudioHeader) -> int:
        """Number of samples of a file at the sample rate of the clips."""
        return round(header.frames * self.rate / header.rate) if header.rate else 0

    def count(self, header: AudioHeader) -> int:
        """Number of clips of a file; 1 for a bad one."""
        samples = self.samples(header)
        return max(1, -(-samples // self.length) if self.whole else samples // self.length)


class FileClips(NamedTuple):
    """The clips of a file."""

    samples: np.ndarray
    """float32 `(N, C, T)` in [-1, 1]."""
    is_clipped: bool
    """Whether the file has samples beyond [-1, 1], which floating-point files may have."""


def read_header(path: Path) -> AudioHeader:
    """Reads the header of an audio file; a problem is in the header, not raised.

    Raises:
        UsageError: the package is missing.
    """
    soundfile = import_extra("soundfile", EXTRA)
    try:
        with _opened(path, soundfile) as file:
            if not file.frames:
                return AudioHeader(0, 0, 0, "has no samples")
            return AudioHeader(file.frames, file.samplerate, file.channels)
    except BadAudio as error:
        return AudioHeader(0, 0, 0, str(error), error.transient)


def read_clips(path: Path, header: AudioHeader, how: Clips) -> FileClips:
    """Decodes an audio file.

    Integers are divided by the largest one that their type can hold, as everywhere: 16-bit samples by 32,768.

    Raises:
        BadAudio: it cannot be decoded, or has samples that are not finite.
        UsageError: the package is missing.
    """
    soundfile = import_extra("soundfile", EXTRA)
    with _opened(path, soundfile) as file:
        samples = file.read(dtype="float32", always_2d=True)
    if len(samples) < header.frames:
        raise BadAudio(f"ends after {len(samples):,} of {header.frames:,} samples")
    if not np.isfinite(samples).all():
        raise BadAudio("has samples that are not finite (NaN or infinity)")
    is_clipped = bool(np.abs(samples).max() > 1)
    if samples.shape[1] != how.channels:
        samples = _mixed(samples, how.channels)
    if header.rate != how.rate:
        samples = import_extra("soxr", EXTRA).resample(samples, header.rate, how.rate)
    count = how.count(header)
    padded = np.zeros((count * how.length, how.channels), np.float32)
    used = min(len(samples), how.samples(header), len(padded))
    padded[:used] = samples[:used].clip(-1, 1)
    clips = padded.reshape(count, how.length, how.channels).transpose(0, 2, 1)
    return FileClips(np.ascontiguousarray(clips), is_clipped)


@contextmanager
def _opened(path: Path, soundfile: Any) -> Iterator[Any]:
    """Opens an audio file, and converts errors to `BadAudio`."""
    try:
        with path.open("rb") as stream, soundfile.SoundFile(stream) as file:
            yield file
    except BadAudio:
        raise
    except OSError as error:
        raise BadAudio(first_line(error), transient=True) from error
    except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
        raise_out_of_memory(error)
        reason = str(error).rpartition(": ")[2].rstrip(".")
        raise BadAudio("is not an audio file" if reason == "Format not recognised" else reason) from error


def _mixed(samples: np.ndarray, channels: int) -> np.ndarray:
    """Samples `(T, C)` with another number of channels."""
    if channels == 1:
        return samples.mean(1, keepdims=True)
    if samples.shape[1] == 1:
        return np.repeat(samples, channels, 1)
    raise BadAudio(f"has {samples.shape[1]} channels, not {channels}; data.channels=1 averages them")
