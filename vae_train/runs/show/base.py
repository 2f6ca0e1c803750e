"""The interface of plots of a trained model, and the catalogue of all of them."""

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from vae_train.plotting.sheet import Sheet
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.classes import is_class
from vae_train.util.errors import ErrorDetail
from vae_train.util.runtime import memory_shortage

LABELED_SIDE, ANIMATION_SIDE = 84, 112
"""Sides in pixels to which small images are enlarged: with labels, and in a GIF."""

ANIMATION_FRAMES = 25
"""Frames of a GIF from one end of a path to the other."""

SHARED_FILES = ("base", "opened", "options", "writing")
"""Files of this folder that define no plot."""


@dataclass(frozen=True)
class PlotContents:
    """What a command shows of a model."""

    about: str
    """What it shows, in a few words."""
    sheet: Sheet | None = None
    animation: Iterable[Sheet] = ()
    """Frames of a GIF, all of one size, which are read once."""
    seconds_per_frame: float = 0.08
    there_and_back: bool = True
    """Whether the GIF also shows the frames backwards."""
    samples: Tensor | None = field(default=None, repr=False)
    """Images in the units of the data, for `npz=true` and `save_each=true`."""


class Plot(ABC):
    """A kind of plot of a trained model.

    A subclass in its own file in this folder is a choice of `vae sample show=`, with the name of the file.
    """

    reads: ClassVar[tuple[str, ...]]
    """Names of the options that it reads."""
    num: ClassVar[int] = 0
    """Default of the option of this name."""
    frames: ClassVar[int] = 0
    """Default of the option of this name."""
    needs_model: ClassVar[bool] = True
    """Whether it needs a checkpoint."""
    has_sheet: ClassVar[bool] = True
    """Whether `PlotContents.sheet` exists."""
    has_samples: ClassVar[bool] = False
    """Whether `PlotContents.samples` exists."""

    @classmethod
    def name(cls) -> str:
        """The choice of `show=`."""
        return cls.__module__.rpartition(".")[2]

    def needs_data(self, opened: OpenedRun) -> bool:
        """Whether it needs the images that the run was trained on."""
        return "split" in self.reads

    def problem(self, opened: OpenedRun) -> str | None:
        """Why there is no such plot of this model, without opening its weights or data; None if there is."""
        return None

    def errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        """Reports why there is no such plot, and options that do not fit it."""
        if problem := self.problem(opened):
            return [ErrorDetail(f"show={self.name()}", problem)]
        if not self.needs_model:
            return []
        errors = opened.top_k_errors() if "top_k" in self.reads else []
        option = "frames" if opened.options.frames and "frames" in self.reads else "num"
        shortage = memory_shortage(self.count(opened) * math.prod(opened.facts.data_shape) * 4)  # float32
        where = f"{option}={getattr(opened.options, option) or self.count(opened)}"
        errors += [ErrorDetail(where, shortage)] if shortage else []
        return errors + (opened.temperature_errors if "temperature" in self.reads else [])

    def count(self, opened: OpenedRun) -> int:
        """Number of images that are in memory at the same time."""
        num, frames = num_and_frames(self, opened)
        return max(1, num) * max(1, frames)

    def data_errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        """Options that do not fit the data, which is known to be valid."""
        return []

    @abstractmethod
    def __call__(self, opened: OpenedRun) -> PlotContents:
        """Computes what the plot of a run shows, for which no errors were reported."""

    def file_name(self, opened: OpenedRun) -> str:
        """Name of its files without suffix: its own, and that of its settings."""
        return self.name() + opened.options.described(self.reads)


def plot_names() -> list[str]:
    """The names of all plots."""
    package = importlib.import_module("vae_train.runs.show")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in SHARED_FILES)


def find_plot(name: str) -> Plot:
    """The plot of this name, one of `plot_names`."""
    module = importlib.import_module(f"vae_train.runs.show.{name}")
    return next(_plots(module))


def _plots(module: object) -> Iterator[Plot]:
    for value in vars(module).values():
        if is_class(value) and issubclass(value, Plot) and value.__module__ == module.__name__:  # type: ignore[attr-defined]
            yield value()


def num_and_frames(plot: Plot, opened: OpenedRun) -> tuple[int, int]:
    """The options `num` and `frames`, or the plot's own defaults."""
    return opened.options.num or plot.num, opened.options.frames or plot.frames


def animation(rows: Sequence[Tensor], captions: Sequence[str] = ()) -> Iterator[Sheet]:
    """Yields the frames of a GIF in which several images move at the same time.

    Args:
        rows: `(T, C, H, W)` the frames of every image.
        captions: a text below every image; empty for none.
    """
    least = math.ceil(math.sqrt(len(rows)))
    columns = min(range(least, least + 3), key=lambda columns: -len(rows) % columns)  # fills the last row
    for images in zip(*rows, strict=True):
        yield Sheet(torch.stack(images), columns, captions=captions, min_side=ANIMATION_SIDE)
