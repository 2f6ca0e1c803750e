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
from typing_extensions import override

from benchmarks.implementation import Implementation
from benchmarks.workload import Settings


class ImageFolderLoop(Implementation):
    """torchvision's `ImageFolder` and `ToTensor` in a DataLoader that shuffles.

    Args:
        settings: the batch size, the device and the threads.
        root: the folder.
        workers: processes of the DataLoader, which are started anew in every epoch.
    """

    num_parameters = 0

    def __init__(self, settings: Settings, root: str, workers: int) -> None:
        super().__init__(settings)
        torch.set_num_threads(settings.threads)
        torch.manual_seed(1)
        images, pin = ImageFolder(root, ToTensor()), self.device.type == "cuda"
        self.loader = DataLoader(images, self.workload.batch_size, shuffle=True, num_workers=workers, pin_memory=pin)
        self.batches = self._batches()

    @override
    def steps(self, count: int) -> float:
        for _ in range(count):
            next(self.batches)
        return 0.0  # there is no loss

    @override
    def facts(self) -> dict[str, Any]:
        # Whole epochs are timed, since every epoch starts the worker processes.
        return {"batches": len(self.loader), "images": len(self.loader.dataset)}  # type: ignore[arg-type]

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields the batches of an endless sequence of epochs, on the device."""
        while True:
            for x, y in self.loader:
                yield x.to(self.device), y.to(self.device)


def list_images(root: str) -> dict[str, Any]:
    """Lets `ImageFolder` list the folder, which a tutorial has to wait for; returns "seconds"."""
    start = time.perf_counter()
    ImageFolder(root, ToTensor())
    return {"seconds": time.perf_counter() - start}
