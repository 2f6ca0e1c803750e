"""Writes results as recordings: WAV files of audio."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor
from typing_extensions import override

from vae_train.batch import DataFacts, Shape
from vae_train.data.storage.audio_files import EXTRA as AUDIO_EXTRA
from vae_train.runs.apply.names import result_names
from vae_train.runs.apply.recordings import Recording
from vae_train.util.extras import import_extra


class RecordingFile(ABC):
    """A file that is written part by part, in constant memory."""

    @abstractmethod
    def append(self, values: Tensor, pixels: Tensor) -> None:
        """Writes the next part.

        Args:
            values: `(C, H, W)` in the units of the data.
            pixels: the same in [0, 1].
        """

    @abstractmethod
    def close(self) -> None:
        """Completes the file."""


class RecordingFiles:
    """Writes recordings, whose parts arrive in order.

    Args:
        folder: receives the files.
        recordings: the recordings.
        facts: facts about the data of the model.
    """

    def __init__(self, folder: Path, recordings: Sequence[Recording], facts: DataFacts) -> None:
        self.folder, self.recordings, self.shape = folder, recordings, facts.data_shape
        self.names = result_names([recording.name for recording in recordings], ".wav")
        self._number = 0
        self._file: RecordingFile | None = None

    def add(self, row: int, values: Tensor, pixels: Tensor) -> bool:
        """Writes the result of input `row`, see `RecordingFile.append`; returns False if it is in no recording."""
        if self._number == len(self.recordings) or row < self.recordings[self._number].start:
            return False
        recording = self.recordings[self._number]
        if row == recording.start:
            path = self.folder / self.names[self._number]
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = WavFile(path, recording, self.shape)
        assert self._file is not None
        self._file.append(values, pixels)
        if row == recording.stop - 1:
            self._file.close()
            self._number, self._file = self._number + 1, None
        return True


class WavFile(RecordingFile):
    """A WAV file of 32-bit floating-point numbers, which clip nothing.

    Args:
        path: the file.
        recording: its sample rate and length; samples beyond the length are left out.
        shape: (C, 1, T) of a clip.
    """

    def __init__(self, path: Path, recording: Recording, shape: Shape) -> None:
        soundfile = import_extra("soundfile", AUDIO_EXTRA)
        self.left = recording.length
        self._file = soundfile.SoundFile(path, "x", int(recording.rate), shape[0], "FLOAT", format="WAV")

    @override
    def append(self, values: Tensor, pixels: Tensor) -> None:
        samples = values[:, 0, : self.left].float().cpu().numpy().T
        self._file.write(samples)
        self.left -= len(samples)

    @override
    def close(self) -> None:
        self._file.close()
