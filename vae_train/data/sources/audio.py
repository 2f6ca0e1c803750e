"""A source of audio clips in any folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from typing_extensions import override

from vae_train.batch import DataFacts, Factor, Split, Units
from vae_train.data.sources.base import Contents, Source
from vae_train.data.storage.audio_files import AudioHeader, Clips
from vae_train.data.storage.clips import DecodedClips, audio_headers, clipped_notes, conversion_notes, decoded_clips
from vae_train.data.storage.columns import column_units
from vae_train.data.storage.listing import AUDIO, Listing, check_bad_files, list_folder
from vae_train.data.storage.stored import ArrayStore, StoredImages
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Fraction, PositiveFloat, PositiveInt, Seed

MIN_SAMPLES = 2
"""Number of samples of the shortest clip."""


class _Inspection(NamedTuple):
    """The result of inspecting a folder, before its audio is decoded."""

    listing: Listing
    headers: list[AudioHeader]
    how: Clips
    rows: dict[Split, np.ndarray]
    """Indices of the clips of every split."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AudioFolder(Source):
    """WAV, FLAC, OGG and MP3 files as signals (C, 1, T) of the same length.

    Files are in the folder itself or in one sub-folder per class, and sub-folders called train, valid and test define
    the splits, as in `Folder`. Samples are numbers in [-1, 1], which is where integers of any size are mapped to.
    They are continuous, and densities are reported for these numbers.

    Files shorter than a clip are padded with silence. Longer ones are cut into clips without overlap, which stay
    in the same split if there are enough files; the rest at their end is left out. Files of another sample rate
    are resampled.

    Args:
        root: the folder, or a single audio file.
        seconds: length of a clip; None if all files have the same length.
        rate: samples per second; None if all files have the same rate.
        channels: 1 averages the channels of a file, 2 repeats mono files; None for 1 if all files are mono, else 2.
        scaling: "standard" scales every channel to mean 0 and standard deviation 1 of the training clips, "range" maps
            [-1, 1] to [0, 1]; None for what the likelihood needs.
        units: the units of a run's training data, filled in when the run is opened.
        valid: fraction of the clips for validation, if there is no such folder.
        test: fraction of the clips for testing, likewise.
        split_seed: seed of the random split.
        max_bad: fraction of unreadable files that is accepted; up to ten always are.
        cache: folder for caches; None for the user's own (XDG_CACHE_HOME, else ~/.cache).
    """

    root: str | None
    seconds: PositiveFloat | None
    rate: PositiveInt | None
    channels: Literal[1, 2] | None
    scaling: Literal["standard", "range"] | None
    units: dict[str, Any] | None
    valid: Fraction
    test: Fraction
    split_seed: Seed
    max_bad: Fraction
    cache: str | None
    max_scanned_bytes: ClassVar[int] = 2**30
    """Of larger data, only evenly spaced clips are measured."""

    def __post_init__(self) -> None:
        if self.valid + self.test >= 1:
            raise ValueError(f"valid={self.valid:g} and test={self.test:g} leave no audio for training")
        if self.units is not None:
            Units.parse(self.units)

    @override
    def inspect(self) -> DataFacts:
        listing, _, how, rows, _ = self._inspection
        names = tuple(listing.class_names)
        factors = () if listing.labels is None else (Factor("class", len(names), names),)
        shape = (how.channels, 1, how.length)
        return DataFacts(shape, None, len(rows["train"]), factors, self._units, "NCT", sample_rate=how.rate)

    @override
    def resolved(self) -> dict[str, Any]:
        how = self._inspection.how
        return {"seconds": how.length / how.rate, "rate": how.rate, "channels": how.channels, "scaling": self.scaling,
                "units": None}  # fmt: skip

    @override
    def read(self) -> Contents:
        (samples, files, bad, clipped), (listing, headers, *_, notes) = self._decoded, self._inspection
        bad_files = tuple((listing.entries[number].name, why) for number, why in sorted(bad.items()))
        check_bad_files(bad_files, len(headers), self.max_bad)
        labels = None if listing.labels is None else torch.tensor(listing.labels)[files, None]
        splits = {
            name: StoredImages(
                ArrayStore(samples, own, "NCT", True, self._units), None, None if labels is None else labels[own]
            )
            for name, own in self._good_rows.items()
            if len(own)
        }
        return Contents(splits, bad_files, (*notes, *clipped_notes(clipped, [entry.name for entry in listing.entries])))

    @cached_property
    def _units(self) -> Units:
        """The scaling of every channel."""
        samples, known = self._decoded.samples, None if self.units is None else Units.parse(self.units)
        if self.scaling == "range":
            return Units((), (-1.0,), (2.0,), (-1.0,), (1.0,)).repeated((samples.shape[1], 1, 1))
        return column_units({"train": samples}, self._good_rows["train"], "NCT", False, known, self.max_scanned_bytes)

    @cached_property
    def _good_rows(self) -> dict[Split, np.ndarray]:
        """Indices of the clips of every split, without those of bad files."""
        decoded = self._decoded
        is_bad = np.isin(decoded.files, list(decoded.bad))
        rows = {name: own[~is_bad[own]] for name, own in self._inspection.rows.items()}
        if not len(rows["train"]):
            raise UsageError("no training audio could be read")
        return rows

    @cached_property
    def _decoded(self) -> DecodedClips:
        listing, headers, how, *_ = self._inspection
        return decoded_clips(listing.root, listing.entries, headers, how, self.cache)

    @cached_property
    def _inspection(self) -> _Inspection:
        """Lists the folder, and reads the headers of all files."""
        if self.root is None:
            raise UsageError([ErrorDetail("data.root=", "is needed: the folder of the audio files")])
        listing = list_folder(str(self.root), AUDIO)
        headers = audio_headers(listing.root, listing.entries, self.cache)
        known = [header for header in headers if not header.problem]
        rate = self.rate or _common_rate(known)
        channels = self.channels or (1 if all(header.channels == 1 for header in known) else 2)
        how = Clips(rate, self._length(known, rate), channels)
        files = np.repeat(np.arange(len(headers)), [how.count(header) for header in headers])
        rows, by_file = listing.rows(files, {"valid": self.valid, "test": self.test}, self.split_seed)
        notes = [
            *listing.notes,
            *listing.left_out,
            *conversion_notes(known, how, "data.channels"),
            *_length_notes(known, how),
        ]
        if not by_file:
            notes.append("clips of the same file are in several splits, since there are too few files")
        return _Inspection(listing, headers, how, rows, tuple(notes))

    def _length(self, headers: Sequence[AudioHeader], rate: int) -> int:
        """Samples of a clip."""
        if self.seconds is not None:
            length = round(self.seconds * rate)
            if length < MIN_SAMPLES:
                what = f"has less than {MIN_SAMPLES} samples at {rate:,} Hz"
                raise UsageError([ErrorDetail(f"data.seconds={self.seconds:g}", what)])
            return length
        lengths = {Clips(rate, 1, 1).samples(header) for header in headers}
        low, high = min(lengths), max(lengths)
        if low != high:
            found = f"the files are {low / rate:.3g} to {high / rate:.3g} s long"
            raise UsageError([ErrorDetail("data.seconds=", f"is needed: {found}; for instance {low / rate:.2g}")])
        return max(low, MIN_SAMPLES)


def _length_notes(headers: Sequence[AudioHeader], how: Clips) -> list[str]:
    """Notes on files that are padded or cut."""
    samples, seconds = np.array([how.samples(header) for header in headers]), how.length / how.rate
    total, notes = len(samples), list[str]()
    if short := int((samples < how.length).sum()):
        notes.append(f"{short:,} of {total:,} files are shorter than {seconds:g} s and are padded with silence")
    if len(long := samples[samples > how.length]):
        rest = int((long % how.length).sum()) / how.rate
        what = f"; {rest:.3g} s at their ends are left out" if rest else ""
        notes.append(f"{len(long):,} of {total:,} files are longer than {seconds:g} s and are cut into clips{what}")
    return notes


def _common_rate(headers: Sequence[AudioHeader]) -> int:
    """The sample rate of all files, which must be the same."""
    rates = sorted({header.rate for header in headers})
    if len(rates) == 1:
        return rates[0]
    found = f"the files have {rates[0]:,} to {rates[-1]:,} samples per second"
    raise UsageError([ErrorDetail("data.rate=", f"is needed: {found}; for instance {rates[0]}")])
