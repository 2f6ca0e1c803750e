"""Random augmentation of training images, in batches on the training device, as a function of (seed, step)."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.batch import DataFacts
from vae_train.rng import Rng
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import Fraction, NonNegativeInt, Range


@dataclass(frozen=True)
class Augmentation:
    """Random flip, crop, rotation, translation, brightness and contrast of every image.

    The training ELBO is that of augmented images. Validation and test images are not augmented.

    Args:
        flip: horizontal flip with probability 1/2.
        crop: pixels of padding on every side, followed by a random crop of the original size.
        rotation: largest angle in degrees, in both directions.
        translation: largest shift as a fraction of height and width, in every direction; signals move in time.
        brightness: the image is multiplied by a number in [1 - brightness, 1 + brightness].
        contrast: its distance from its mean is multiplied by a number in [1 - contrast, 1 + contrast].
        edge: padding beyond the border: "zeros", or "repeat" for the outermost pixels.
    """

    flip: bool
    crop: NonNegativeInt
    rotation: Annotated[float, Range(0, 180)]
    translation: Fraction
    brightness: Fraction
    contrast: Fraction
    edge: Literal["zeros", "repeat"]

    @property
    def active(self) -> bool:
        """Whether it has an effect."""
        return any((self.flip, self.crop, self.rotation, self.translation, self.brightness, self.contrast))

    def check_compatible(self, facts: DataFacts, is_binary: bool) -> Incompatible | None:
        """Why the data cannot be augmented with these settings; None if it can.

        Args:
            facts: facts about the images.
            is_binary: whether the images are binary before random binarisation.
        """
        height, width = facts.data_shape[1:]
        none, shades = {"augmentation": "none"}, self.brightness or self.contrast
        if shades and facts.column_shape:
            return Incompatible("brightness and contrast are for images, not for vectors or signals", none)
        if shades and is_binary:
            return Incompatible("brightness and contrast have no effect on binary images", none)
        if self.contrast and facts.missing:
            reason = "contrast needs the mean of whole images, but some values are missing"
            return Incompatible(reason, {"augmentation.contrast": "0"})
        if facts.layout == "ND" and self.active:
            return Incompatible("columns of vectors have no order, so they cannot be flipped or shifted", none)
        if height == 1 and (self.rotation or self.crop):
            return Incompatible("rotation and crop are for images, not for signals", {"augmentation": "flip"})
        if self.crop >= min(height, width):
            reason = f"crop={self.crop} can move images of {height}x{width} pixels out of view"
            return Incompatible(reason, {"augmentation.crop": str(max(1, min(height, width) // 8))})
        return None

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """Augments images `(B, C, H, W)` in [0, 1].

        Args:
            x: the images.
            rng: the random numbers.
        """
        if self.flip:
            mirrored = self._uniform(x, rng, 1)[:, 0] < 0.5
            x = torch.where(mirrored.view(-1, 1, 1, 1), x.flip(-1), x)
        if self.crop:
            x = self._cropped(x, self._uniform(x, rng, 2))
        if self.rotation or self.translation:
            x = self._moved(x, 2 * self._uniform(x, rng, 3) - 1)
        if self.brightness or self.contrast:
            x = self._shaded(x, 2 * self._uniform(x, rng, 2) - 1)
        return x

    def _uniform(self, x: Tensor, rng: Rng, count: int) -> Tensor:
        return rng.uniform((1, len(x), count))[0]

    def _cropped(self, x: Tensor, u: Tensor) -> Tensor:
        """Crops at whole pixels, without interpolation; `u` is `(B, 2)` in [0, 1)."""
        height, width = x.shape[-2:]
        mode = "constant" if self.edge == "zeros" else "replicate"
        padded = F.pad(x, 4 * (self.crop,), mode=mode)
        corner = (u * (2 * self.crop + 1)).long()  # (B, 2)
        rows = corner[:, :1] + torch.arange(height, device=x.device)  # (B, H)
        columns = corner[:, 1:] + torch.arange(width, device=x.device)  # (B, W)
        images = torch.arange(len(x), device=x.device).view(-1, 1, 1)
        return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _moved(self, x: Tensor, v: Tensor) -> Tensor:
        """Rotates about the centre and shifts, with bilinear interpolation; `v` is `(B, 3)` in [-1, 1)."""
        height, width = x.shape[-2:]
        angle = v[:, 0] * math.radians(self.rotation)
        cos, sin = angle.cos(), angle.sin()
        # `affine_grid` has coordinates from -1 to 1 along both sides, so a rotation depends on their lengths.
        across = torch.stack([cos, -sin * height / width, 2 * self.translation * v[:, 1]], -1)
        down = torch.stack([sin * width / height, cos, 2 * self.translation * v[:, 2] * (height > 1)], -1)
        grid = F.affine_grid(torch.stack([across, down], 1), list(x.shape), align_corners=False)
        mode = "zeros" if self.edge == "zeros" else "border"
        return F.grid_sample(x, grid, mode="bilinear", padding_mode=mode, align_corners=False)

    def _shaded(self, x: Tensor, v: Tensor) -> Tensor:
        brightness = 1 + self.brightness * v[:, 0].view(-1, 1, 1, 1)
        contrast = 1 + self.contrast * v[:, 1].view(-1, 1, 1, 1)
        x = x * brightness
        mean = x.mean((1, 2, 3), keepdim=True)
        return ((x - mean) * contrast + mean).clamp(0, 1)
