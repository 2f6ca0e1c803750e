"""Where the pixels of a data set are kept: a rule of sizes, which can be overruled."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

import torch

from vae_train.util import text as words
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from vae_train.data.storage.stored import ArrayImages

Storage = Literal["auto", "device", "host"]
Splits = dict[str, "ArrayImages | None"]

GIB = 2**30

log = logging.getLogger("vae_train")


class Loader:
    """Keeps a data set on the training device where it fits, and streams it there where it does not.

    What streams is read ahead by worker processes, from pinned host memory or from a file that is mapped into memory; a
    batch is the same function of (seed, i) either way.

    Args:
        storage: "device" keeps all pixels on the training device; "host" leaves them in host memory or in their file;
            "auto" is "device" where they take up at most `memory`.
        memory: GiB of the training device that pixels may take up; None for half of what is free on CUDA, and on a CPU
            for 1 GiB of pixels that the process does not hold anyway: a mapped file is as fast there.
        workers: processes that read ahead what is not on the device; 0 reads within the training process.
        prefetch: batches that each of them is ahead by.
    """

    def __init__(
        self, storage: Storage, memory: PositiveFloat | None, workers: NonNegativeInt, prefetch: PositiveInt
    ) -> None:
        self.storage, self.memory, self.workers, self.prefetch = storage, memory, workers, prefetch

    @classmethod
    def default(cls) -> Loader:
        """What `conf/loader/default.yaml` says."""
        return cls("auto", None, 2, 2)

    def place(self, splits: Splits, device: torch.device) -> tuple[Splits, str]:
        """The splits where they are used, and where that is in words."""
        found = [images for images in splits.values() if images is not None]
        size, places = sum(images.nbytes for images in found), {images.store.lies_in for images in found}
        if self._fits(size, places == {"memory"}, device):
            return {k: s and s.to(device) for k, s in splits.items()}, f"{words.size(size)} of pixels on {device}"
        fed = {k: s and s.fed_to(device, self.workers, self.prefetch) for k, s in splits.items()}
        if "nothing" in places:
            return fed, f"{words.size(size)} of pixels, computed on {device} when they are asked for"
        place = "a mapped file" if "file" in places else "host memory"
        return fed, f"{words.size(size)} of pixels in {place}, read ahead by {self.workers} processes"

    def _fits(self, size: int, held: bool, device: torch.device) -> bool:
        if self.storage != "auto":
            return self.storage == "device"
        if self.memory is not None:
            return size <= self.memory * GIB
        if device.type == "cuda":
            return size <= torch.cuda.mem_get_info(device)[0] / 2
        return held or size <= GIB
