"""Writes results image by image in constant memory: PNG files, recordings, arrays, and contact sheets."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import IO, TextIO

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Shape, evenly_spaced
from vae_train.plotting.grid import as_strips, plot_lines
from vae_train.plotting.png import write_png
from vae_train.plotting.sheet import plot_rows
from vae_train.runs.apply.inputs import ArrayForm
from vae_train.runs.apply.names import result_names
from vae_train.runs.apply.recording_files import RecordingFiles
from vae_train.runs.apply.recordings import Recording
from vae_train.runs.apply.task import Application

SHEET = "sheet.png"

MAX_SHEET_IMAGES = 64
"""Number of images of a contact sheet."""

SHEET_COLUMNS = 16


class ArrayFile:
    """A .npy file of a known shape that is written row by row, in constant memory.

    A full disk raises an error, which writing to a mapped file would not.

    Args:
        path: the file.
        shape: the shape of the array.
        dtype: its type.
    """

    def __init__(self, path: Path, shape: Shape, dtype: np.dtype) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._file: IO[bytes] = path.open("xb")
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(self._file, header)

    def append(self, rows: np.ndarray) -> None:
        """Writes the next rows."""
        self._file.write(np.ascontiguousarray(rows, self.dtype).tobytes())

    def close(self) -> None:
        """Completes the file."""
        self._file.close()


class ImageResults:
    """Images that belong to the inputs: one PNG each, one file for each recording, or one array for an array file.

    Args:
        application: the application.
        name: name of the sub-folder for the files, or of the array's file.
        form: how an array is stored; None for as the inputs are.
    """

    def __init__(self, application: Application, name: str, form: ArrayForm | None = None) -> None:
        inputs, shape = application.inputs, application.model.facts.data_shape
        self.application, self.form = application, form or (None if inputs.recordings else inputs.form)
        self.folder = application.folder / name
        self._recordings = RecordingFiles(self.folder, () if form else inputs.recordings, application.model.facts)
        self._array: ArrayFile | None = None
        if self.form is not None:
            path = application.folder / f"{name}.npy"
            self._array = ArrayFile(path, self.form.shape(len(inputs), shape), self.form.dtype)

    @cached_property
    def names(self) -> Sequence[str]:
        """Names of the PNG files."""
        return result_names(self.application.inputs.names, [".png"] * len(self.application.inputs))

    def add(self, start: int, images: Tensor) -> None:
        """Writes the results `(B, C, H, W)` of images `start` to `start` + B, in the units of the data."""
        if self._array is not None:
            assert self.form is not None
            self._array.append(self.form.values(images))
            return
        for row, (values, pixels) in enumerate(zip(images, self.application.unit(images), strict=True), start):
            if not self._recordings.add(row, values, pixels):
                write_image(self.folder / self.names[row], pixels)

    def close(self) -> None:
        """Completes the array."""
        if self._array is not None:
            self._array.close()


class Sheet:
    """A contact sheet of evenly spaced inputs, with a row for each version of an image.

    Args:
        count: number of inputs.
    """

    def __init__(self, count: int) -> None:
        self.index = evenly_spaced(count, MAX_SHEET_IMAGES)
        self._kinds: dict[str, list[Tensor]] = {}

    def add(self, start: int, kinds: Mapping[str, Tensor]) -> None:
        """Keeps those images of a batch that the sheet shows.

        Args:
            start: index of the batch's first image.
            kinds: caption -> images `(B, C, H, W)` in [0, 1].
        """
        count = len(next(iter(kinds.values())))
        rows = self.index[(self.index >= start) & (self.index < start + count)] - start
        for caption, images in kinds.items():
            self._kinds.setdefault(caption, []).append(images[rows.to(images.device)].cpu())

    def write(self, path: Path) -> None:
        """Writes the sheet as a PNG."""
        kinds = {name: torch.cat(parts) for name, parts in self._kinds.items()}
        write_png(path, plot_rows(kinds, min(SHEET_COLUMNS, len(self.index))))


def write_image(path: Path, image: Tensor) -> None:
    """Writes an image `(C, H, W)` in [0, 1] as a PNG, pixel by pixel; a signal or a vector as a plot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_signal = image.shape[1] == 1 and image.shape[2] > 1
    write_png(path, plot_lines(image[None], 1) if is_signal else as_strips(image[None])[0])


def write_sequence(application: Application, name: str, images: Tensor) -> None:
    """Writes images `(N, C, H, W)` in the units of the data, which belong to no input, as the results of inputs are.

    That is one array for inputs from an array file, one recording for audio, and nothing for others.
    """
    facts, form = application.model.facts, application.inputs.form
    if application.inputs.recordings and facts.sample_rate is not None:
        recording = Recording(
            name, ".wav", 0, len(images), Fraction(facts.sample_rate), len(images) * facts.data_shape[-1]
        )
        files = RecordingFiles(application.folder, [recording], facts)
        for row, values in enumerate(images):
            files.add(row, values, application.unit(values[None])[0])
    elif form is not None:
        array = ArrayFile(application.folder / f"{name}.npy", form.shape(len(images), facts.data_shape), form.dtype)
        array.append(form.values(images))
        array.close()


def write_archive(path: Path, arrays: Mapping[str, np.ndarray | Path]) -> None:
    """Writes a .npz file; members that are .npy files are copied in parts, and removed.

    Args:
        path: the file.
        arrays: name -> an array, or the path of a .npy file.
    """
    with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, array in arrays.items():
            if isinstance(array, Path):
                archive.write(array, f"{name}.npy")
                array.unlink()
            else:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)


def new_table(path: Path) -> TextIO:
    """Opens a new CSV file for writing; names of files may be invalid Unicode."""
    return path.open("x", newline="", encoding="utf-8", errors="backslashreplace")
