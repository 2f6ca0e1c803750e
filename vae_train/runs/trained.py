"""A trained model in the units of its data, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_train.batch import Batch, DataFacts, split_missing
from vae_train.data.dataset import Transforms
from vae_train.data.storage.stored import from_images, to_images
from vae_train.distributions.base import Distribution
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.objective.bounds import log_mean_exp
from vae_train.rng import BlockRng, Rng
from vae_train.runs.build import Builder, build_transforms, open_model, run_facts
from vae_train.runs.run import Run

CHUNK = 256
"""Samples per decoder pass."""

Condition = int | Sequence[int] | Sequence[Sequence[int]] | Tensor | None


class TrainedModel:
    """A model in evaluation mode that takes and returns data in its original units.

    Images are in the units of the data. For pixels these are numbers in [0, 1], or uint8 from 0 to 255; they are
    rounded to the levels that the model was trained on, so that a model of binary images sees 0 and 1. For continuous
    images, vectors and signals these are the numbers of the file, returned as float64 on the CPU. Images of an array
    file may be given, and are returned, in its layout: vectors as `(B, D)`. Preprocessing of the run (dequantisation,
    logit, normalisation) is applied and undone here, and `log_prob` contains all Jacobians. A conditional model needs
    `y`, others ignore it: labels with shape `(B,)`, labels or factors with shape `(B, F)`, or one number for all.
    Models trained with `data.missing=mask` accept NaN as missing values: `log_prob` is then that of
    the observed values, and reconstructions impute the missing ones.

    No method computes gradients. `model` is the `torch.nn.Module` itself, which takes preprocessed images.

    Args:
        model: the module.
        facts: facts about the stored images.
        transforms: transforms between stored images and the model.

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
        self.model, self.facts, self.transforms = model.eval(), facts, transforms._replace(units=facts.units)

    @classmethod
    def open(cls, run: Run, checkpoint: str, device: torch.device, builder: Builder) -> TrainedModel:
        """Opens the trained model of a run.

        Args:
            run: the run.
            checkpoint: "best" by what `trainer.monitor` says, or "last".
            device: where the model is placed.
            builder: locates classes.

        Raises:
            UsageError, RunError: see `vae_train.runs.build.read_weights`.
        """
        model, transforms = open_model(run, device, builder, checkpoint), build_transforms(run.config, builder)
        return cls(model, run_facts(run, builder), transforms.active())

    @property
    def device(self) -> torch.device:
        """The device of the model."""
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
            seed: seed of z.
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
            seed: seed of z and the pixels.
            use_mean: return the means of p(x | z) instead of samples from it.
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
        """A lower bound of log p(x) in nats, with shape `(B,)`; it is tighter for more samples (Burda et al., 2016).

        For pixels with levels it is a log-probability if the likelihood is discrete (or dequantises); otherwise it is a
        log-density in the units of the data.

        Args:
            x: images with shape `(B, C, H, W)`; a tensor or an array.
            y: the condition of a conditional model.
            num_samples: K, samples of z per image.
            seed: seed of z and of the noise of dequantisation.
        """
        batch = self._batch(x, y, BlockRng(seed, "data", 0, device=self.device))
        trace = self.model(batch, BlockRng(seed, "importance", 0, device=self.device), num_samples)
        log_p = log_mean_exp(trace.log_weight(), 0)
        bins = trace.px.log_bins if trace.log_bins is None else trace.log_bins
        return log_p - trace.num_observed() * (bins or 0.0)

    def to_pixels(self, images: Tensor) -> Tensor:
        """Maps images in the units of the data to `(N, C, H, W)` in [0, 1], for plots."""
        pixels, units = self._stored(images), self.facts.units
        return pixels if units is None else units.to_unit(torch.from_numpy(units.to_model(pixels.numpy())))

    def _single_latent(self) -> SingleLatent:
        if not isinstance(self.model, SingleLatent):
            raise TypeError(f"{type(self.model).__name__} has no single latent to encode to or decode from")
        return self.model

    def _batch(self, x: Any, y: Condition, rng: Rng | None = None) -> Batch:
        """Images as the model sees them."""
        x, levels, (*_, preprocessing, units, _) = self._stored(x), self.facts.levels, self.transforms
        if units is not None:
            x = torch.from_numpy(units.to_model(x.cpu().numpy()))
        elif x.dtype == torch.uint8:
            x = x / 255
        x, observed = split_missing(x.to(self.device, torch.float32))
        if not (self.facts.missing or observed.all()):
            raise ValueError("x has missing values (NaN), which only models trained with data.missing=mask accept")
        bounded = levels is not None or getattr(getattr(self.model, "likelihood", None), "is_bounded", False)
        if bounded and (x.min() < 0 or x.max() > 1):
            raise ValueError(f"x is out of range: {self._range()}")
        if levels is not None:
            x = (x * (levels - 1)).round() / (levels - 1)
        batch = Batch(x, self._condition(y, len(x)), mask=observed if self.facts.missing else None)
        batch = batch if preprocessing is None else preprocessing(batch, levels, rng)
        batch = batch._replace(x=torch.where(observed, batch.x, 0.0))
        return batch if units is None or levels is not None else units.with_log_det(batch)

    def _range(self) -> str:
        """The range of values that the model accepts, for a message."""
        if (units := self.facts.units) is None:
            return "pixels are numbers in [0, 1], or uint8"
        ranges = dict.fromkeys(f"{low:g} to {high:g}" for low, high in zip(units.low, units.high, strict=True))
        return f"values are {', '.join(ranges)}" + (", per column" if len(ranges) > 1 else "")

    def _stored(self, x: Any) -> Tensor:
        """Images as `(B, C, H, W)`, converted from the layout of an array file if necessary."""
        x, shape, layout = torch.as_tensor(x), self.facts.data_shape, self.facts.layout
        if layout is not None and x.shape == from_images(np.empty((len(x), *shape), np.bool_), layout).shape:
            x = torch.from_numpy(to_images(x.numpy(force=True), layout))
        if x.shape[1:] != shape:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {', '.join(map(str, shape))})")
        return x

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
        """Images of the model in units and layout of the data, with leading dimensions merged; levels are clipped."""
        x, units, layout = self.transforms.undo(x.flatten(0, -4)), self.facts.units, self.facts.layout
        x = x if self.facts.levels is None else x.clamp(0, 1)
        x = x if units is None else units.to_file(x)
        return x if layout is None else torch.from_numpy(from_images(x.numpy(force=True), layout)).to(x.device)
