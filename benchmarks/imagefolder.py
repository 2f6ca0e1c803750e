"""A folder of images as tutorials read it: torchvision's `ImageFolder` in a DataLoader. A step is a batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from benchmarks.contender import Contender
from benchmarks.work import Setting


class Tutorial(Contender):
    """torchvision's `ImageFolder` and `ToTensor` in a DataLoader that shuffles.

    Args:
        setting: the batch size, the device and the threads.
        root: the folder.
        workers: processes of the DataLoader, which every pass starts anew.
    """

    parameters = 0

    def __init__(self, setting: Setting, root: str, workers: int) -> None:
        super().__init__(setting)
        torch.set_num_threads(setting.threads)
        torch.manual_seed(1)
        pinned = self.device.type == "cuda"
        self.loader = DataLoader(
            ImageFolder(root, ToTensor()), self.work.batch_size, shuffle=True, num_workers=workers, pin_memory=pinned
        )
        self.batches = self._endless()

    def steps(self, count: int) -> float:
        """Takes `count` batches; there is no loss."""
        for _ in range(count):
            next(self.batches)
        return 0.0

    def about(self) -> dict[str, Any]:
        """The batches that are timed at least, and their images: a pass."""
        return {"batches": len(self.loader), "images": len(self.loader.dataset)}  # type: ignore[arg-type]

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches on the device, of one pass after the other."""
        while True:
            for x, y in self.loader:
                yield x.to(self.device), y.to(self.device)


def tutorial_start(root: str) -> dict[str, Any]:
    """What a tutorial waits for: that `ImageFolder` lists the folder; returns "seconds"."""
    begin = time.perf_counter()
    ImageFolder(root, ToTensor())
    return {"seconds": time.perf_counter() - begin}
