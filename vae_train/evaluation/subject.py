"""The subject of an evaluation: a model on a split of a data set, with results that several metrics share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeVar

import torch
from typing_extensions import override

from vae_train.batch import Batch, Fetched, Images, Split, evenly_spaced
from vae_train.data.dataset import Dataset
from vae_train.model.base import LatentVariableModel
from vae_train.plotting.png import PlotFormat, write_png
from vae_train.rng import BlockRng, Rng, SampleRng

P = ParamSpec("P")
T = TypeVar("T")

Purpose = Literal["fit", "probe", "judge"]
"""The purpose of noise: fitting a prior, training a probe, or judging a model."""


class Noise(NamedTuple):
    """The noise of one purpose and split.

    Fitting and judging use different noise: a prior that was fitted to the same
    samples of z would seem better than it is, and the rate could become negative.
    """

    seed: int
    purpose: Purpose
    split: str

    @property
    def data(self) -> str:
        """The stream of binarisation and dequantisation, which does not depend on the seed."""
        return f"data {self.purpose} {self.split}"

    def latents(self, start: int, device: torch.device) -> BlockRng:
        """The noise of z for a batch that starts at image `start`."""
        return BlockRng(self.seed, f"latents {self.purpose} {self.split}", start, device=device)

    def importance(self, start: int, first: int, device: torch.device) -> SampleRng:
        """The noise of many samples of z per image, from sample `first` on."""
        return SampleRng(self.seed, f"importance {self.purpose} {self.split}", start, first, device=device)


@dataclass
class Subject:
    """A model on a split of a data set.

    Args:
        model: the model.
        data: the data set, loaded for the model's device.
        split: the split to evaluate.
        folder: receives the plots.
        seed: seed of all noise.
        batch_size: images per pass; only affects rounding.
        prior: name of the fitted prior that has replaced the model's own; None for its own.
        beta: weight of the rate that the model was trained with; None without one.
        board: a parent folder of TensorBoard's event files, for the embedding projector.
        open_ood: opens another data set by name, with this one's size and binarisation.
        checkpoint: the checkpoint of the model.
        plot_format: file format of plots.
    """

    model: LatentVariableModel
    data: Dataset
    split: Split
    folder: Path
    seed: int
    batch_size: int
    prior: str | None
    beta: float | None
    board: Path
    open_ood: Callable[[str], Images]
    checkpoint: str = "best"
    plot_format: PlotFormat = "png"
    plots: list[str] = field(default_factory=list)
    """File names of the plots that metrics have written."""
    grids: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    """Image grids by name, for the run's logger."""
    results: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Results of `shared` functions, by function and arguments."""

    @property
    def images(self) -> Images:
        """The images of the split."""
        return self.images_of(None)

    def images_of(self, split: Split | None) -> Images:
        """The images of a split, by default the subject's."""
        images = self.data.split(split or self.split)
        assert images is not None
        return images

    def noise(self, purpose: Purpose, split: str | None = None) -> Noise:
        """The noise of a split, by default the subject's."""
        return Noise(self.seed, purpose, split or self.split)

    @property
    def name(self) -> str:
        """Stem of the evaluation's files: the split, "last" for the last checkpoint, and a fitted prior."""
        return "-".join([self.split, *(["last"] if self.checkpoint == "last" else []), *filter(None, [self.prior])])

    def to_pixels(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images `(N, C, H, W)` of the model to [0, 1] on the CPU; continuous values may exceed this range."""
        return self.data.to_shown(x)

    def plot_path(self, name: str) -> Path:
        """Returns the path of a new plot, and adds it to the report."""
        path = self.folder / f"{self.name}-{name}.{self.plot_format}"
        self.plots.append(path.name)
        return path

    def add_grid(self, name: str, grid: torch.Tensor) -> None:
        """Writes an image grid `(C, height, width)` in [0, 1] as a PNG, and adds it to the report."""
        path = self.folder / f"{self.name}-{name}.png"
        self.plots.append(path.name)
        self.grids[name] = grid
        write_png(path, grid)


def shared(function: Callable[Concatenate[Subject, P], T]) -> Callable[Concatenate[Subject, P], T]:
    """Decorates a function of a subject to cache its result by subject and arguments.

    Metrics that need the same intermediate result call the same function instead of passing the result around.
    """

    @wraps(function)
    def cached(subject: Subject, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (function, args, tuple(kwargs.items()))
        if key not in subject.results:
            subject.results[key] = function(subject, *args, **kwargs)
        return subject.results[key]

    return cached


class Subset(Fetched):
    """Evenly spaced images of a split.

    Args:
        images: the split.
        limit: maximal number of images.
    """

    def __init__(self, images: Images, limit: int) -> None:
        self.images, self.index = images, evenly_spaced(len(images), limit)

    def __len__(self) -> int:
        return len(self.index)

    @override
    def fetch(self, index: torch.Tensor, rng: Rng | None = None) -> Batch:
        return self.images.fetch(self.index.to(index.device)[index], rng)
