"""Writes plots to files."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from vae_train.plotting.gif import write_frames
from vae_train.plotting.grid import as_strips, is_lines, plot_lines
from vae_train.plotting.png import PlotFormat, write_png
from vae_train.plotting.sheet import render, write_sheet
from vae_train.runs.show.base import PlotContents
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import RunError
from vae_train.util.files import replacing
from vae_train.util.folders import results_folder


@dataclass(frozen=True)
class Writer:
    """Writes the files of plots.

    Args:
        folder: receives the files.
        formats: file formats of image grids.
        overwrite: replace existing files; otherwise a number is added to the name.
        save_each: also write every sample as a PNG, in a folder.
        npz: also write the samples as an array.
        parents: create the folder above `folder`, if it does not exist.
    """

    folder: Path
    formats: Sequence[PlotFormat] = ("png",)
    overwrite: bool = False
    save_each: bool = False
    npz: bool = False
    parents: bool = True

    def write(self, contents: PlotContents, name: str, model: TrainedModel | None = None) -> list[Path]:
        """Writes the files of a plot, and returns their paths.

        Args:
            contents: what the plot shows.
            name: name of the files without suffix.
            model: converts samples; needed for those.

        Raises:
            RunError: a file cannot be written.
        """
        writers = dict(self._writers(contents, model))
        try:
            self.folder.mkdir(parents=self.parents, exist_ok=True)
            free = self._free(name, list(writers))
            for suffix, write in writers.items():
                write(self.folder / f"{free}{suffix}")
        except OSError as error:
            raise RunError(f"could not write to {error.filename or self.folder}: {error.strerror or error}") from error
        return [self.folder / f"{free}{suffix}" for suffix in writers]

    def _writers(
        self, contents: PlotContents, model: TrainedModel | None
    ) -> Iterator[tuple[str, Callable[[Path], None]]]:
        """Yields the suffix of every file, and the function that writes it."""
        if contents.sheet is not None:
            yield from ((f".{kind}", partial(write_sheet, sheet=contents.sheet)) for kind in self.formats)
        if contents.animation:
            yield ".gif", partial(_write_animation, contents=contents)
        if contents.samples is not None and model is not None and self.npz:
            yield ".npz", partial(_write_array, samples=contents.samples, model=model)
        if contents.samples is not None and model is not None and self.save_each:
            yield "", partial(self._write_each, images=model.to_pixels(contents.samples))

    def _free(self, name: str, suffixes: Sequence[str]) -> str:
        """The name, or with the first number that makes all files new."""
        number, free = 1, name
        while not self.overwrite and any(os.path.lexists(self.folder / f"{free}{suffix}") for suffix in suffixes):
            number += 1
            free = f"{name}-{number}"
        return free

    def _write_each(self, folder: Path, images: Tensor) -> None:
        """Writes every image as a PNG; signals and vectors as plots."""
        if folder.is_symlink():
            folder.unlink()  # the link, not what it leads to
        if folder.is_dir() and not all(re.fullmatch(r"\d{5,}\.png", path.name) for path in folder.iterdir()):
            raise RunError(
                f"{folder} has other files than single images; remove it, or choose another folder with out="
            )
        with results_folder(folder, overwrite=self.overwrite, numbered=False) as results:
            for number, image in enumerate(images.split(1)):
                plot = plot_lines(image, 1) if is_lines(image) else as_strips(image)[0]
                write_png(results.temporary / f"{number:05d}.png", plot)


def _write_animation(path: Path, contents: PlotContents) -> None:
    write_frames(path, map(render, contents.animation), contents.seconds_per_frame, contents.there_and_back)


def _write_array(path: Path, samples: Tensor, model: TrainedModel) -> None:
    """Writes samples in the units and layout of an array file; images as `(N, H, W, C)`."""
    array = (samples.permute(0, 2, 3, 1) if model.facts.layout is None else samples).numpy()
    with replacing(path) as file:
        np.savez_compressed(file, images=array)
