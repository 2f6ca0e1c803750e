"""A folder of images as vae_train reads it: `data=folder` from the cache. A step is a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor
from typing_extensions import override

from benchmarks.compare import WorkloadMismatch
from benchmarks.implementation import Implementation
from benchmarks.training import FolderReader, open_dataset
from benchmarks.workload import Settings

HALF_A_LEVEL = 0.5 / 255


class CachedFolder(Implementation):
    """Takes batches from vae_train's stream, as a training does.

    Args:
        settings: the batch size, the device and the threads.
        root: the folder.
        cache: contains the decoded images.
        storage: the setting `loader.storage`.
        workers: the setting `loader.workers`.
    """

    num_parameters = 0

    def __init__(self, settings: Settings, root: str, cache: str, storage: str, workers: int) -> None:
        super().__init__(settings)
        self.root = root
        overrides = folder_overrides(root, cache, settings.device, storage, workers)
        self.reader = FolderReader(overrides, root, self.workload.batch_size, settings.threads)
        self.step = 0

    @override
    def steps(self, count: int) -> float:
        for step in range(self.step, self.step + count):
            self.reader.batch(step)
        self.step += count
        return 0.0  # there is no loss

    @override
    def facts(self) -> dict[str, Any]:
        # The stream has no epochs, so a single batch can be timed.
        return {"batches": 1, "images": self.workload.batch_size}

    def compare_images(self) -> dict[str, Any]:
        """Takes batches until every image has come, and compares each with what `ImageFolder` returns for its file.

        Returns:
            "images": number of images; "share_differing": of the images in the batches; "max_difference": of any value.

        Raises:
            WorkloadMismatch: files or labels differ, or a value differs by half a level or more.
        """
        reference = ImageFolder(self.root, ToTensor())
        positions = {Path(path).relative_to(self.root).as_posix(): n for n, (path, _) in enumerate(reference.samples)}
        names = self.reader.names
        if set(names) != set(positions):
            raise WorkloadMismatch(
                f"ImageFolder has {len(positions):,} images and data=folder has {len(names):,} others"
            )
        seen, largest, differing, compared = torch.zeros(len(names), dtype=torch.bool), 0.0, 0, 0
        while not seen.all():
            batch, numbers = self.reader.batch(self.step), self.reader.indices(self.step)
            pairs = [reference[positions[names[number]]] for number in numbers.tolist()]
            difference = (batch.x.cpu() - torch.stack([x for x, _ in pairs])).abs().flatten(1).amax(1)  # (B,)
            labels = torch.tensor([label for _, label in pairs])
            mislabelled = batch.y is None or batch.y[:, 0].cpu() != labels
            differing += int(((difference >= HALF_A_LEVEL) | mislabelled).sum())
            largest, compared = max(largest, float(difference.max())), compared + len(pairs)
            seen[numbers] = True
            self.step += 1
        if differing:
            raise WorkloadMismatch(
                f"{differing:,} of {compared:,} images or their labels differ from ImageFolder's (values by up to "
                f"{largest:.3g})"
            )
        return {"images": len(names), "share_differing": differing / compared, "max_difference": largest}


def folder_overrides(root: str, cache: str, device: str, storage: str = "auto", workers: int = 2) -> list[str]:
    """The overrides of `data=folder` with all images in the training split and, as in `ImageFolder`, three channels."""
    data = ["data=folder", f"data.root='{root}'", f"data.cache='{cache}'", "data.valid=0", "data.test=0"]
    return [*data, "data.channels=3", f"device={device}", f"loader.storage={storage}", f"loader.workers={workers}"]


def open_folder(root: str, cache: str, device: str, threads: int) -> dict[str, Any]:
    """Lists the folder and opens or makes the cache, which a training has to wait for.

    Returns:
        "seconds"; "images", "shape" and "classes" of the folder.
    """
    data = open_dataset(folder_overrides(root, cache, device), threads)
    return {"seconds": data.seconds, "images": data.num_train, "shape": data.shape, "classes": data.classes}
