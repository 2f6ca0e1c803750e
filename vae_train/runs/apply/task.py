"""The interface of tasks, and what every task has: a model, its inputs, and a folder for the results."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from torch import Tensor

from vae_train.batch import Batch
from vae_train.data.stream import evaluation_batch, evaluation_batches
from vae_train.evaluation.latents import Latents, encoder_input, posteriors
from vae_train.plotting.grid import grey_out
from vae_train.rng import BlockRng
from vae_train.runs.apply.inputs import Inputs, Tiles
from vae_train.runs.fitted_priors import fingerprint
from vae_train.runs.run import Run
from vae_train.runs.trained import TrainedModel
from vae_train.util.progress import progress_bar

MAX_TILED_PIXELS = 2**18
"""Largest number of pixels in tiles per pass, whose activations take some hundred bytes each."""


@dataclass
class Application:
    """One application of a model.

    Args:
        run: the run of the model.
        model: the model.
        inputs: what it is applied to.
        folder: receives the results; a temporary one, see `results_folder`.
        batch_size: images per pass; only affects rounding.
    """

    run: Run
    model: TrainedModel
    inputs: Inputs
    folder: Path
    batch_size: int

    @cached_property
    def digest(self) -> str:
        """A digest of the model's weights."""
        return fingerprint(self.model.model)

    def batches(self, title: str) -> Iterator[tuple[int, Batch]]:
        """Yields all images in order, with the index of each batch's first image and a progress bar."""
        stream = self.inputs.noise.data
        with progress_bar(len(self.inputs), title) as bar:
            for start, batch in evaluation_batches(self.inputs.images, self.batch_size, self.model.device, stream):
                yield start, batch
                bar.update(len(batch.x))

    def encoded(self, batch: Batch, start: int) -> list[Latents]:
        """The posteriors of a batch, one per layer of latents, the topmost first, each given the means above."""
        return [Latents([(start, q)]) for q in posteriors(self.model.model, batch)]

    def means(self, batch: Batch, start: int) -> list[Tensor]:
        """The mean of every layer of latents given the means above, each `(B, *shape)`."""
        return [layer.mean for layer in self.encoded(batch, start)]

    def sampled(self, batch: Batch, start: int) -> list[Tensor]:
        """A sample of all layers of latents together, each `(B, *shape)`."""
        latents = self.model.model.infer(encoder_input(batch), batch.y, self.latent_noise(start))
        return [latent.z[0] for latent in latents]

    def decoded(self, z: Sequence[Tensor], y: Tensor | None) -> Tensor:
        """The means of p(x | z), `(B, C, H, W)` in the units of the data, for latents of every layer."""
        return self.model.to_units(self.model.model.decode_latents(z, y).mean)

    def tiles_per_pass(self, tiles: Tiles) -> int:
        """The number of tiles that have as many pixels as a batch of images, at least 1."""
        images = self.batch_size * math.prod(self.model.facts.data_shape[1:])
        return max(1, min(images, MAX_TILED_PIXELS) // math.prod(tiles.size))

    def latent_noise(self, start: int) -> BlockRng:
        """The noise of z for a batch that starts at image `start`."""
        return self.inputs.noise.latents(start, self.model.device)

    def noise(self, what: str, start: int) -> BlockRng:
        """Other noise of a batch that starts at image `start`."""
        noise = self.inputs.noise
        return BlockRng(noise.seed, f"{what} {noise.purpose} {noise.split}", start, device=self.model.device)

    def image(self, number: int) -> Batch:
        """One image as a batch, with the noise that it has in any batch."""
        return self.fetch(number, 1)

    def fetch(self, start: int, count: int) -> Batch:
        """Some consecutive images as a batch, with the noise that they have in any batch."""
        return evaluation_batch(self.inputs.images, start, count, self.model.device, self.inputs.noise.data)

    def pixels(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Images of the model as `(N, C, H, W)` in [0, 1], with unobserved pixels grey, for sheets."""
        return grey_out(self.unit(self.model.to_units(x)), mask)

    def unit(self, images: Tensor) -> Tensor:
        """Maps images `(N, C, H, W)` in the units of the data to [0, 1] on the CPU."""
        return self.model.to_pixels(images).float().cpu().clamp(0, 1)


class Task(ABC):
    """What `vae apply` does with a model and its inputs. The YAML file of a task names its class."""

    reads: ClassVar[Literal["images", "latents"]] = "images"
    """What it is applied to; latents are passed as `Batch.x`, see `StoredLatents`."""
    needs_single_latent: ClassVar[bool] = False
    """Whether the model must have a single layer of latents."""
    min_inputs: ClassVar[int] = 1
    """The least number of images."""

    tile: Literal["auto"] | int | None = None
    """Side of the tiles in which it is applied to images of any size; None for images of the model's size."""
    overlap: int | None = None
    """Pixels that neighbouring tiles share; None for a quarter of a tile."""

    @abstractmethod
    def __call__(self, application: Application) -> list[str]:
        """Writes the results to the application's folder.

        Returns:
            Sentences about the results.

        Raises:
            UsageError: the task does not fit the model or the inputs.
        """
