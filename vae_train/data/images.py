"""From stored images to the batch that a model receives."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Images, Raw
from vae_train.data.storage.stored import StoredImages
from vae_train.data.storage.workers import prefetched
from vae_train.data.transforms.pipeline import NO_TRANSFORMS, Transforms
from vae_train.rng import Rng

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class TransformedImages(Images):
    """A split with everything that happens to its images: unit scale, augmentation, bits, preprocessing, corruption.

    Args:
        stored: the images, on `device` or where they are read from.
        device: the training device.
        transforms: augmentation, corruption and preprocessing.
        workers: processes that read in advance what is not on the device.
        prefetch_factor: batches that each of them reads in advance.
    """

    stored: StoredImages
    device: torch.device = CPU
    transforms: Transforms = NO_TRANSFORMS
    workers: int = 0
    prefetch_factor: int = 2

    @override
    def __len__(self) -> int:
        return len(self.stored)

    @property
    @override
    def resident(self) -> bool:
        return self.stored.store.device == self.device and self.stored.store.immediate

    @override
    def gather(self, index: Tensor) -> Raw:
        return self._sent(self.stored.take(index))

    @override
    def prefetch(self, indices: Iterator[Tensor]) -> Iterator[Raw]:
        pinned = self.device.type == "cuda"
        batches = prefetched(self.stored, indices, workers=self.workers, prefetch=self.prefetch_factor, pinned=pinned)
        return map(self._sent, batches)

    @override
    def finish(self, raw: Raw, rng: Rng | None = None) -> Batch:
        """Computes the batch of a model; without `rng` nothing is augmented or corrupted, and bits stay grey values."""
        stored, (augmentation, corruption, preprocessing) = self.stored, self.transforms
        x = stored.unit(raw.pixels)
        if augmentation is not None and rng is not None:
            x = augmentation(x, rng)
            if stored.levels is not None and not stored.stochastic:  # back to the levels that the likelihood scores
                x = x.mul(stored.levels - 1).round_().div_(stored.levels - 1)
        if stored.stochastic and rng is not None:
            x = (rng.uniform((1, *x.shape))[0] < x).float()
        batch = Batch(x, raw.y)
        hidden = None
        if corruption is not None and rng is not None:
            hidden = corruption.hidden(x, rng)
            batch = batch._replace(mask=corruption.mask_of(hidden))
        if preprocessing is not None:
            batch = preprocessing(batch, 2 if stored.stochastic else stored.levels, rng)
        if corruption is not None and rng is not None:
            batch = batch._replace(encoder_input=corruption.encoder_input(batch.x, hidden, rng))
        return self._with_scale(batch)

    def _sent(self, raw: Raw) -> Raw:
        """Copies images to the training device, asynchronously from pinned memory."""
        if raw.pixels.device == self.device:
            return raw
        pixels, y = (t if t is None else t.to(self.device, non_blocking=t.is_pinned()) for t in raw)
        assert pixels is not None
        return Raw(pixels, y)

    def _with_scale(self, batch: Batch) -> Batch:
        """Adds the scale of continuous values to `log_det`, so that densities are those of the stored numbers."""
        low, high = self.stored.value_range
        if self.stored.levels is not None or self.stored.stochastic or high - low == 1.0:
            return batch
        count = batch.x[0].numel() if batch.mask is None else batch.mask.expand_as(batch.x).flatten(1).sum(1)
        # Zeros of the batch are on the device already; a copy from the host would wait for it.
        constant = torch.zeros_like(batch.x[:, 0, 0, 0]).sub(count, alpha=float(np.log(high - low)))
        return batch._replace(log_det=constant if batch.log_det is None else batch.log_det + constant)
