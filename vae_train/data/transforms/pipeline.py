"""What happens to stored pixels on their way to a model."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vae_train.batch import DataFacts
from vae_train.data.transforms.augmentation import Augmentation
from vae_train.data.transforms.corruption import Corruption
from vae_train.data.transforms.preprocessing import Preprocessing


class Transforms(NamedTuple):
    """Augmentation of training images, corruption of what the encoder sees, preprocessing; None skips a step."""

    augmentation: Augmentation | None = None
    corruption: Corruption | None = None
    preprocessing: Preprocessing | None = None

    def active(self) -> Transforms:
        """The steps that change anything; None for the others."""
        inactive = {name: None for name, step in self._asdict().items() if step is not None and not step.active}
        return self._replace(**inactive)

    def facts(self, facts: DataFacts) -> DataFacts:
        """The facts of the images that a model receives: without levels once preprocessing made them continuous."""
        continuous = self.preprocessing is not None and self.preprocessing.active
        return facts._replace(levels=None) if continuous else facts

    def to_pixels(self, x: Tensor) -> Tensor:
        """Maps images `(N, C, H, W)` of a model back to [0, 1]."""
        return x if self.preprocessing is None else self.preprocessing.inverse(x)


NO_TRANSFORMS = Transforms()
