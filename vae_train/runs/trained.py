"""A trained model in the units of its data: what a notebook works with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_train.batch import Batch, DataFacts
from vae_train.data.dataset import Transforms
from vae_train.distributions.base import Distribution
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.objective.bounds import log_mean_exp
from vae_train.rng import BlockRng, Rng
from vae_train.runs.build import Builder, build_transforms, open_model
from vae_train.runs.run import Run

CHUNK = 256
"""Samples that are decoded at a time."""

Condition = int | Sequence[int] | Sequence[Sequence[int]] | Tensor | None


class TrainedModel:
    """A model in evaluation mode, and the way from the data to it and back.

    Images are in the units of the data. For pixels these are numbers in [0, 1], or uint8 from 0 to 255; they are
    rounded to the levels that the model was trained on, so that a model of binary images sees 0 and 1. For continuous
    arrays these are the numbers of the file. Preprocessing of the run (dequantisation, logit, normalisation) is applied
    and undone here, and `log_prob` contains its Jacobian. A conditional model needs `y`, others ignore it: labels with
    shape `(B,)`, labels or factors with shape `(B, F)`, or one number for all images.

    No method computes gradients; `model` is the `torch.nn.Module` itself, which sees preprocessed images.

    Args:
        model: the module.
        facts: facts about the images as they are stored.
        transforms: what happens to the images on their way to the model.

    Example:
        >>> import torch, vae_train
        >>> run = vae_train.train("data=digits", latent_dim=2, epochs=1)
        >>> model = vae_train.load(run.folder)
        >>> x = torch.rand(5, 1, 8, 8).round()
        >>> q = model.encode(x)
        >>> q.mean.shape, model.decode(q.mean).shape
        (torch.Size([5, 2]), torch.Size([5, 1, 8, 8]))
        >>> model.reconstruct(x).shape, model.sample(3, seed=1).shape
        (torch.Size([5, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
        >>> model.log_prob(x, num_samples=10).shape
        torch.Size([5])
    """

    def __init__(self, model: LatentVariableModel, facts: DataFacts, transforms: Transforms) -> None:
        self.model, self.facts, self.transforms = model.eval(), facts, transforms

    @classmethod
    def open(cls, run: Run, checkpoint: str, device: torch.device, builder: Builder) -> TrainedModel:
        """The trained model of a run.

        Args:
            run: the run.
            checkpoint: "best" by what `trainer.monitor` says, or "last".
            device: where the model is placed.
            builder: locates classes.

        Raises:
            UsageError, RunError: see `vae_train.runs.build.read_weights`.
        """
        facts, transforms = builder.build(run.config["data"]).stated(), build_transforms(run.config, builder).active()
        return cls(open_model(run, device, builder, checkpoint), facts, transforms)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> TrainedModel:
        """Moves the model to a device and returns it."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def encode(self, x: Any, y: Condition = None) -> Distribution:
        """The posterior q(z | x), a distribution with batch (B,) whose `mean` has shape `(B, *latent_shape)`.

        Args:
            x: images with shape `(B, C, H, W)`; a tensor or an array.
            y: the condition of a conditional model.
        """
        batch = self._batch(x, y)
        return self._single_latent().encode(batch.x, batch.y)

    @torch.no_grad()
    def decode(self, z: Any, y: Condition = None) -> Tensor:
        """The mean of p(x | z), images with shape `(N, C, H, W)`.

        Args:
            z: latents with shape `(N, *latent_shape)`; a tensor or an array.
            y: the condition of a conditional model.
        """
        z = torch.as_tensor(z, dtype=torch.float32, device=self.device)
        return self._images(self._single_latent().decode(z, self._condition(y, len(z))).mean)

    @torch.no_grad()
    def reconstruct(self, x: Any, y: Condition = None, seed: int = 0) -> Tensor:
        """Encodes images, samples one z for each and decodes it; returns means with shape `(B, C, H, W)`.

        Args:
            x: images with shape `(B, C, H, W)`; a tensor or an array.
            y: the condition of a conditional model.
            seed: decides z.
        """
        rng = BlockRng(seed, "reconstructions", 0, device=self.device)
        return self._images(self.model(self._batch(x, y), rng).px.mean[0])

    @torch.no_grad()
    def sample(
        self, num: int, temperature: float = 1.0, y: Condition = None, seed: int = 0, use_mean: bool = True
    ) -> Tensor:
        """Images from the prior, with shape `(num, C, H, W)`, on the CPU.

        Args:
            num: number of images.
            temperature: factor on the prior's standard deviation.
            y: the condition of a conditional model; None cycles through the classes.
            seed: decides z and the pixels.
            use_mean: return the means of p(x | z) instead of samples of it.
        """
        condition = None if y is None else self._condition(y, num)
        images = []
        for number, rows in enumerate(torch.arange(num, device=self.device).split(CHUNK)):
            rng = Rng(seed, "samples", number, device=self.device)
            px = self.model.sample(len(rows), rng, temperature, None if condition is None else condition[rows])
            images.append(self._images(px.mean if use_mean else px.sample(rng, 1)[0]).cpu())
        return torch.cat(images)

    @torch.no_grad()
    def log_prob(self, x: Any, y: Condition = None, num_samples: int = 100, seed: int = 0) -> Tensor:
        """A lower bound of log p(x) in nats, with shape `(B,)`, which rises with `num_samples` (Burda et al., 2016).

        It is the log of a probability for pixels with levels if the likelihood is one (or dequantises), and else the
        log-density in the units of the data.

        Args:
            x: images with shape `(B, C, H, W)`; a tensor or an array.
            y: the condition of a conditional model.
            num_samples: K, samples of z per image.
            seed: decides z, and the noise of dequantisation.
        """
        batch = self._batch(x, y, BlockRng(seed, "data", 0, device=self.device))
        trace = self.model(batch, BlockRng(seed, "importance", 0, device=self.device), num_samples)
        log_p = log_mean_exp(trace.log_weight(), 0)
        low, high = self._bounds
        bins = trace.px.log_bins if trace.log_bins is None else trace.log_bins
        per_value = math.log(high - low) if self.facts.levels is None else bins or 0.0
        return log_p - math.prod(self.facts.data_shape) * per_value

    def to_pixels(self, images: Tensor) -> Tensor:
        """Maps images in the units of the data to [0, 1], for plots."""
        low, high = self._bounds
        return (images - low) / (high - low)

    @property
    def _bounds(self) -> tuple[float, float]:
        """The numbers that 0 and 1 stand for."""
        return self.facts.bounds if self.facts.levels is None and self.facts.bounds is not None else (0.0, 1.0)

    def _single_latent(self) -> SingleLatent:
        if not isinstance(self.model, SingleLatent):
            raise TypeError(f"{type(self.model).__name__} has no single latent to encode to or decode from")
        return self.model

    def _batch(self, x: Any, y: Condition, rng: Rng | None = None) -> Batch:
        """Images as the model sees them."""
        x = torch.as_tensor(x, device=self.device)
        if x.dim() != 4 or tuple(x.shape[1:]) != tuple(self.facts.data_shape):
            expected = ", ".join(map(str, self.facts.data_shape))
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {expected})")
        levels = self.facts.levels
        if levels is None:
            unit = self.to_pixels(x.float())
        else:
            unit = x.float() / 255 if x.dtype == torch.uint8 else x.float()
            if unit.min() < 0 or unit.max() > 1:
                raise ValueError("x is out of range: pixels are numbers in [0, 1], or uint8")
            unit = (unit * (levels - 1)).round() / (levels - 1)
        batch = Batch(unit, self._condition(y, len(x)))
        preprocessing = self.transforms.preprocessing
        return batch if preprocessing is None else preprocessing(batch, levels, rng)

    def _condition(self, y: Condition, count: int) -> Tensor | None:
        """The condition of every image with shape `(B, F)`, int64; None for a model without one."""
        if self.model.condition is None:
            return None
        if y is None:
            raise ValueError("this model is conditional; pass y=")
        y = torch.as_tensor(y, dtype=torch.int64, device=self.device)
        y = y.expand(count, 1) if y.dim() == 0 else y[:, None] if y.dim() == 1 else y
        columns = len(self.model.condition.sizes)
        if y.shape[0] != count or y.shape[1] < columns:
            raise ValueError(f"y has shape {tuple(y.shape)}, expected ({count}, {columns})")
        return y

    def _images(self, x: Tensor) -> Tensor:
        """Images of the model in the units of the data, clipped to its range; leading dimensions are merged."""
        low, high = self._bounds
        return low + (high - low) * self.transforms.to_pixels(x.flatten(0, -4)).clamp(0, 1)
