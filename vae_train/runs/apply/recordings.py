"""Inputs that are consecutive parts of one file: the clips of a recording, the frames of a video."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from vae_train.batch import DataFacts


class Recording(NamedTuple):
    """A file whose parts are consecutive inputs; results are written as one file of the same kind."""

    name: str
    """Path of the file relative to the folder, or the number of a clip within a split."""
    suffix: str
    """Suffix of the results: ".wav", ".mp4" or ".gif"."""
    start: int
    """Index of the first input."""
    stop: int
    """Index after the last input."""
    rate: Fraction
    """Samples or frames per second of the results."""
    length: int
    """Number of samples or frames; clips may have more, which are silence."""

    def first(self, count: int) -> Recording:
        """The part of the recording in the first `count` inputs."""
        return self._replace(stop=min(self.stop, count))


def single_clips(names: Sequence[str], facts: DataFacts) -> tuple[Recording, ...]:
    """A recording for each of several clips of audio; none for other data."""
    if facts.sample_rate is None:
        return ()
    rate, length = Fraction(facts.sample_rate), facts.data_shape[-1]
    return tuple(Recording(name, ".wav", number, number + 1, rate, length) for number, name in enumerate(names))
