"""A folder of images as ours reads it: `data=folder`, from the cache. A step is a batch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from benchmarks.compare import Unequal
from benchmarks.contender import Contender
from benchmarks.work import Setting
from vae_train.data.dataset import Dataset
from vae_train.data.storage.listing import list_folder
from vae_train.data.stream import Stream
from vae_train.runs.build import described
from vae_train.runs.schema import conf_dir
from vae_train.util.runtime import prepare

HALF_A_LEVEL = 0.5 / 255


class Cached(Contender):
    """`Stream.batch`, as a training asks for it.

    Args:
        setting: the batch size, the device and the threads.
        root: the folder.
        cache: where the decoded images are.
        storage: the setting `loader.storage`.
        workers: the setting `loader.workers`.
    """

    parameters = 0

    def __init__(self, setting: Setting, root: str, cache: str, storage: str, workers: int) -> None:
        super().__init__(setting)
        prepare(setting.threads)
        self.root = root
        self.data = dataset(root, cache, storage, workers).inspect().load(self.device)
        bad = {name for name, _ in self.data.bad_files}
        self.names = [entry.name for entry in list_folder(root).entries if entry.name not in bad]
        assert len(self.names) == self.data.num_train
        self.stream = Stream(self.data.training(), self.work.batch_size, seed=0, device=self.device)
        self.taken = 0

    def steps(self, count: int) -> float:
        """Takes `count` batches; there is no loss."""
        for step in range(self.taken, self.taken + count):
            self.stream.batch(step)
        self.taken += count
        return 0.0

    def about(self) -> dict[str, Any]:
        """The batches that are timed at least, and their images: one, since the stream has no ends of passes."""
        return {"batches": 1, "images": self.work.batch_size}

    def agreement(self) -> dict[str, Any]:
        """Takes batches until every image has come, and compares each with what `ImageFolder` gives for its file.

        Returns:
            "images": how many; "share_differing": of the batches' images; "greatest_difference": of any value in them.

        Raises:
            Unequal: the files or the labels are others, or a value is off by half a level or more.
        """
        theirs = ImageFolder(self.root, ToTensor())
        places = {Path(path).relative_to(self.root).as_posix(): n for n, (path, _) in enumerate(theirs.samples)}
        if set(self.names) != set(places):
            raise Unequal(f"ImageFolder has {len(places):,} images, data=folder {len(self.names):,}, and not the same")
        came, greatest, differing, compared = torch.zeros(len(self.names), dtype=torch.bool), 0.0, 0, 0
        while not came.all():
            batch, numbers = self.stream.batch(self.taken), self.stream.index(self.taken).cpu()
            pairs = [theirs[places[self.names[number]]] for number in numbers.tolist()]
            off = (batch.x.cpu() - torch.stack([x for x, _ in pairs])).abs().flatten(1).amax(1)  # (B,)
            labels = torch.tensor([label for _, label in pairs])
            wrong = batch.y is None or batch.y[:, 0].cpu() != labels
            differing += int(((off >= HALF_A_LEVEL) | wrong).sum())
            greatest, compared = max(greatest, float(off.max())), compared + len(pairs)
            came[numbers] = True
            self.taken += 1
        if differing:
            raise Unequal(
                f"{differing:,} of {compared:,} images or their labels differ from ImageFolder's (values by up to "
                f"{greatest:.3g}), so nothing was timed"
            )
        return {"images": len(self.names), "share_differing": differing / compared, "greatest_difference": greatest}


def dataset(root: str, cache: str, storage: str = "auto", workers: int = 2) -> Dataset:
    """`data=folder` with all images in the training split and, as in `ImageFolder`, three channels; not read yet."""
    words = ["data=folder", "data.valid=0", "data.test=0", "data.channels=3"]
    words += [f"loader.storage={storage}", f"loader.workers={workers}"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", overrides=words)
    cfg.data.root, cfg.data.cache = root, cache
    return described(cfg)


def start(root: str, cache: str, device: str, threads: int) -> dict[str, Any]:
    """What a training waits for before it has its data: that the folder is listed and the cache is opened or made.

    Returns:
        "seconds"; "images", "shape" and "classes" of the folder.
    """
    prepare(threads)
    data = dataset(root, cache)
    begin = time.perf_counter()
    data.inspect().load(device)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "images": data.num_train, "shape": data.shape, "classes": data.classes}
