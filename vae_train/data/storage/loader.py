"""Where the pixels of a data set are kept: by their size, or as the user says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from vae_train.data.storage.stored import Splits
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from vae_train.util.text import size

GIB = 2**30


@dataclass(frozen=True)
class Loader:
    """Keeps a data set on the training device if it fits, and otherwise streams it there.

    Worker processes read in advance what streams, from pinned host memory or a file that is mapped into memory. Batch
    i is the same function of (seed, i) either way.

    Args:
        storage: "device" keeps all pixels on the training device; "host" leaves them in host memory or in their file;
            "auto" is "device" for at most `memory`.
        memory: GiB that pixels may take up on the training device; None for half of the free memory on CUDA, and on a
            CPU for 1 GiB of pixels that the process does not hold anyway: a mapped file is as fast there.
        workers: processes that read what is not on the device; 0 reads within the training process.
        prefetch: batches that each of them reads in advance.
    """

    storage: Literal["auto", "device", "host"]
    memory: PositiveFloat | None
    workers: NonNegativeInt
    prefetch: PositiveInt

    @classmethod
    def default(cls) -> Loader:
        """The settings of `conf/train.yaml`."""
        return cls("auto", None, 2, 2)

    def place(self, splits: Splits, device: torch.device) -> tuple[Splits, str]:
        """Moves the splits to where they are used; says where that is, for the log."""
        images = [split for split in splits.values() if split is not None]
        nbytes = sum(split.store.nbytes for split in images)
        locations = {split.store.location for split in images}
        if self.keeps_on_device(nbytes, device, in_memory=locations == {"memory"}):
            moved: Splits = {name: split and split.to(device) for name, split in splits.items()}
            return moved, f"{size(nbytes)} of pixels on {device}"
        streamed: Splits = {name: split and split.streamed_to(device) for name, split in splits.items()}
        if "computed" in locations:
            where = f"computed on {device} when they are needed"
        else:
            place = "a mapped file" if "file" in locations else "host memory"
            where = f"in {place}, prefetched by {self.workers} workers"
        return streamed, f"{size(nbytes)} of pixels, {where}"

    def keeps_on_device(self, nbytes: int, device: torch.device, *, in_memory: bool) -> bool:
        """Whether `nbytes` of pixels are kept on `device`; `in_memory` if the process holds them already."""
        if self.storage != "auto":
            return self.storage == "device"
        if self.memory is not None:
            return nbytes <= self.memory * GIB
        if device.type == "cuda":
            return nbytes <= torch.cuda.mem_get_info(device)[0] / 2
        return in_memory or nbytes <= GIB
