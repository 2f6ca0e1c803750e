"""Writes results as recordings: WAV files of audio, and videos and animations of frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import DataFacts, Shape
from vae_train.data.storage.audio_files import EXTRA as AUDIO_EXTRA
from vae_train.data.storage.video_files import EXTRA as VIDEO_EXTRA
from vae_train.plotting.gif import write_frames
from vae_train.runs.apply.names import result_names
from vae_train.runs.apply.recordings import Recording
from vae_train.util.extras import import_extra

QUALITY = "10"
"""H.264's constant rate factor, 0 to 51: below 18 the loss is not visible."""


class RecordingFile(ABC):
    """A file that is written part by part, in constant memory."""

    @abstractmethod
    def __init__(self, path: Path, recording: Recording, shape: Shape) -> None:
        """Opens a new file for results with the shape `shape`."""

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
        self.names = result_names([recording.name for recording in recordings], [r.suffix for r in recordings])
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
            self._file = KINDS[recording.suffix](path, recording, self.shape)
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


class Mp4File(RecordingFile):
    """A video with H.264, almost without loss, and with the frame rate of the original.

    Args:
        path: the file.
        recording: its frame rate.
        shape: (C, H, W) of a frame; odd sizes are doubled, since H.264 needs even ones.
    """

    def __init__(self, path: Path, recording: Recording, shape: Shape) -> None:
        self._av = import_extra("av", VIDEO_EXTRA)
        self.factor = 2 if shape[1] % 2 or shape[2] % 2 else 1
        self._container = self._av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=recording.rate, options={"crf": QUALITY})
        self._stream.height, self._stream.width = self.factor * shape[1], self.factor * shape[2]
        self._stream.pix_fmt = "yuv420p"  # what every player takes

    @override
    def append(self, values: Tensor, pixels: Tensor) -> None:
        large = pixels.repeat_interleave(self.factor, -1).repeat_interleave(self.factor, -2)
        levels = (255 * large).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0)
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(levels.numpy()), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    @override
    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


class GifFile(RecordingFile):
    """An animated GIF with the average duration of the original's frames. Its frames are in memory.

    Args:
        path: the file.
        recording: its frame rate.
        shape: (C, H, W) of a frame.
    """

    def __init__(self, path: Path, recording: Recording, shape: Shape) -> None:
        self.path, self.seconds = path, float(1 / recording.rate)
        self._frames: list[Tensor] = []

    @override
    def append(self, values: Tensor, pixels: Tensor) -> None:
        self._frames.append(pixels)

    @override
    def close(self) -> None:
        write_frames(self.path, self._frames, self.seconds)


KINDS: Mapping[str, type[RecordingFile]] = {".wav": WavFile, ".mp4": Mp4File, ".gif": GifFile}
"""Suffix of a recording -> the class that writes it."""
