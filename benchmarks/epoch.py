"""One epoch of pytorch/examples' VAE: our training against the plain DataLoader loop that tutorials write.

Run by scripts/bench. Everything is measured in one process, interleaved, after a check that the loops learn alike.
The loops' work is the same: 784-400-20-400-784, grey targets, batch 128, Adam 1e-3. No figure here passes or fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torchvision
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import ToTensor

from vae_train.assembly import build_learner, build_model
from vae_train.config import build, conf_dir
from vae_train.data.base import ArrayImages, Dataset, batches
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers import Files, Silent, Tee, TensorBoard
from vae_train.training.trainer import Trainer

HERE = Path(__file__).parent
MNIST_SIZE = 60_000
BATCH_SIZE = 128
AGREE_STEPS, AGREE_WINDOW, AGREE_BAND = 300, 100, 0.03
"""After this many steps the mean losses of this many last steps differ by at most this share."""


class Source(NamedTuple):
    """The training images, once as one tensor and once as tutorials open them."""

    pixels: Tensor
    """(N, 1, 28, 28) uint8."""
    labels: Tensor
    """(N, 1) int64."""
    pictures: torch.utils.data.Dataset
    """One (1, 28, 28) float32 tensor and one label at a time."""
    about: str
    """What the images are."""


class Pictures(torch.utils.data.Dataset):
    """What torchvision's MNIST does for every image, for images that are not MNIST's.

    Args:
        pixels: uint8 tensor with shape `(N, 1, H, W)`.
    """

    def __init__(self, pixels: Tensor) -> None:
        self.pixels, self.transform = pixels[:, 0], ToTensor()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index].numpy())), 0


class Pixels(Dataset):
    """A data set of ours from images that are in memory, so that every loop sees the same ones.

    Args:
        source: the images.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source, self.shape, self.levels = source, tuple(source.pixels.shape[1:]), 256
        self.num_train, self.classes = len(source.pixels), 10

    def read(self) -> dict[str, ArrayImages | None]:
        """See `Dataset.read`."""
        return {"train": ArrayImages(self.source.pixels, self.levels, self.source.labels), "valid": None, "test": None}


class Loop(ABC):
    """Something that trains for an epoch at a time."""

    name: str
    steps: int
    """Optimiser steps in an epoch."""

    @abstractmethod
    def epoch(self) -> None:
        """Trains for one epoch."""


class Ours(Loop):
    """`batches` and `Learner.update`, as the configuration of experiment=pytorch_example builds them.

    Args:
        source: the images.
        device: where they lie, and where the model is trained.
        batch_size: images per step.
    """

    def __init__(self, source: Source, device: torch.device, batch_size: int = BATCH_SIZE) -> None:
        self.name, self.device = f"ours, batch {batch_size}", device
        self.steps = -(-len(source.pixels) // batch_size)
        self.cfg = composed(f"batch_size={batch_size}", f"device={device}", "epochs=1")
        self.data = Pixels(source).load(device)
        self.trainer: Trainer = build(self.cfg.trainer)
        self.train = self.data.split("train")
        assert self.train is not None
        model = build_model(self.cfg, self.data, device)
        model.initialize(self.train)
        self.learner = build_learner(self.cfg, model, self.trainer, self.data.num_train)
        self.stream = batches(self.train, batch_size, seed=self.cfg.seed, device=self.learner.device)
        self.step = 0

    def losses(self, steps: int) -> list[Tensor]:
        """Trains for `steps` steps; returns the loss of each, in nats per image."""
        found = []
        for _ in range(steps):
            found.append(self.learner.update(next(self.stream), self.step)["loss"])
            self.step += 1
        return found

    def epoch(self) -> None:
        """See `Loop.epoch`."""
        self.losses(self.steps)


class Whole(Ours):
    """`Trainer.fit` for an epoch at default settings, with its log, TensorBoard, pictures and a checkpoint.

    Pictures come every tenth epoch otherwise; this one has them, being the last.

    Args:
        source: see `Ours`.
        device: see `Ours`.
        batch_size: see `Ours`.
    """

    def __init__(self, source: Source, device: torch.device, batch_size: int = BATCH_SIZE) -> None:
        super().__init__(source, device, batch_size)
        board = "" if has_tensorboard() else " (no TensorBoard here)"
        self.name = f"ours, whole Trainer.fit, batch {batch_size}{board}"

    def epoch(self) -> None:
        """See `Loop.epoch`."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            board = TensorBoard(folder, 0, self.cfg.logger.flush_secs) if has_tensorboard() else Silent(folder, 0)
            logger = Tee(Files(folder), board)
            self.trainer.fit(self.learner, self.data, Checkpoints(folder), logger)
            logger.close()


class Tutorial(nn.Module):
    """The model as a tutorial writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.mean, self.log_variance = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.outside, self.pixels = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, x: Tensor) -> Tensor:
        """The loss of a batch with shape `(B, 784)`, summed over its images."""
        h = F.relu(self.inside(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        p = torch.sigmoid(self.pixels(F.relu(self.outside(z))))
        rate = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return F.binary_cross_entropy(p, x, reduction="sum") + rate


class Plain(Loop):
    """A DataLoader over single images, plain Adam, the loss read at every step; training alone, no test pass.

    Args:
        source: the images.
        device: where the model is trained.
        workers: processes of the DataLoader.
    """

    def __init__(self, source: Source, device: torch.device, workers: int) -> None:
        self.name, self.device = f"plain DataLoader loop, batch {BATCH_SIZE}", device
        torch.manual_seed(1)
        self.loader = DataLoader(
            source.pictures,
            batch_size=BATCH_SIZE,
            shuffle=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
        self.steps = len(self.loader)
        self.model = Tutorial().to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)

    def losses(self, steps: int) -> list[float]:
        """Trains for `steps` steps, at most an epoch; returns the loss of each, in nats per image."""
        found = []
        for (x, _), _ in zip(self.loader, range(steps), strict=False):
            x = x.to(self.device).view(len(x), -1)
            self.optimizer.zero_grad()
            loss = self.model(x)
            loss.backward()
            self.optimizer.step()
            found.append(loss.item() / len(x))
        return found

    def epoch(self) -> None:
        """See `Loop.epoch`."""
        self.losses(self.steps)


def composed(*words: str) -> DictConfig:
    """The configuration of `vae train experiment=pytorch_example`, with further settings."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=["experiment=pytorch_example", *words])


def has_tensorboard() -> bool:
    """Whether TensorBoard can be written here."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def load_images(count: int) -> Source:
    """The first `count` training images of MNIST, or as many random ones where MNIST is not there."""
    try:
        mnist = torchvision.datasets.MNIST(composed().data.root, train=True, transform=ToTensor())
    except RuntimeError:
        pixels = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        labels = torch.zeros(count, 1, dtype=torch.int64)
        return Source(pixels, labels, Pictures(pixels), "random images, since MNIST is not here (set VAE_DATA)")
    mnist.data, mnist.targets = mnist.data[:count], mnist.targets[:count]
    return Source(mnist.data[:, None].contiguous(), mnist.targets[:, None], mnist, "MNIST")


def agreement(source: Source, device: torch.device, workers: int) -> dict[str, Any]:
    """Trains both loops from the start for a few hundred steps and compares their losses.

    Raises:
        SystemExit: they differ by more than the band, so that comparing their times would mean nothing.
    """
    ours, plain = Ours(source, device), Plain(source, device, workers)
    other: list[float] = []
    while len(other) < AGREE_STEPS:
        other += plain.losses(AGREE_STEPS - len(other))
    mine = torch.stack(ours.losses(AGREE_STEPS)).tolist()
    a, b = statistics.mean(mine[-AGREE_WINDOW:]), statistics.mean(other[-AGREE_WINDOW:])
    if not abs(a - b) <= AGREE_BAND * abs(b):
        raise SystemExit(
            f"after {AGREE_STEPS} steps the loss is {a:.2f} with ours and {b:.2f} with the plain loop, "
            f"more than {AGREE_BAND:.0%} apart: they do not do the same work, so nothing was timed"
        )
    return {"steps": AGREE_STEPS, "window": AGREE_WINDOW, "band": AGREE_BAND, "ours": a, "plain": b}


def measure(loops: Sequence[Loop], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of `repeats` epochs of every loop, in turns, after an epoch of each that does not count."""
    seconds: dict[str, list[float]] = {loop.name: [] for loop in loops}
    for repeat in range(repeats + 1):
        for loop in loops:
            wait(device)
            start = time.perf_counter()
            loop.epoch()
            wait(device)
            if repeat:
                seconds[loop.name].append(time.perf_counter() - start)
    return seconds


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def summaries(loops: Sequence[Loop], seconds: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """Median, spread and rate of every loop, and how many times as fast as the last loop it is."""
    reference = statistics.median(seconds[loops[-1].name])
    found: dict[str, dict[str, Any]] = {}
    for loop in loops:
        times = seconds[loop.name]
        median = statistics.median(times)
        found[loop.name] = {
            "seconds_per_epoch": {"median": median, "min": min(times), "max": max(times), "all": times},
            "steps_per_epoch": loop.steps,
            "steps_per_second": loop.steps / median,
            "times_as_fast": reference / median,
        }
    return found


def table(loops: dict[str, dict[str, Any]]) -> str:
    """The summaries as text."""
    width = max(map(len, loops))
    lines = [f"{'':<{width}}   s/epoch   (min – max)        steps/s   times as fast"]
    for name, row in loops.items():
        s = row["seconds_per_epoch"]
        spread = f"({s['min']:.3f} – {s['max']:.3f})"
        lines.append(
            f"{name:<{width}}  {s['median']:>8.3f}   {spread:<18} {row['steps_per_second']:>7.0f}"
            f"   {row['times_as_fast']:>13.2f}"
        )
    return "\n".join(lines)


def host() -> dict[str, Any]:
    """The kind of machine and its software; nothing that names this one."""
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """The command line of scripts/bench."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    device, about = torch.device("cpu"), host()
    source = load_images(options.images)
    print(f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, load {about['load_average']:.1f}")
    print(f"{options.images:,} images: {source.about}")
    agreed = agreement(source, device, options.workers)
    print("loss after {steps} steps: ours {ours:.2f}, plain {plain:.2f} (within {band:.0%})".format(**agreed))
    loops = [Ours(source, device), Whole(source, device), Plain(source, device, options.workers)]
    figures = summaries(loops, measure(loops, options.repeats, device))
    print(f"\n{table(figures)}\n")
    path = Path(options.json or HERE / f"cpu-{about['cores']}-cores.json")
    settings = {name: value for name, value in vars(options).items() if name != "json" and value is not None}
    report = {
        "command": " ".join(["scripts/bench", *(f"--{name} {value}" for name, value in settings.items())]),
        "host": about,
        "data": source.about,
        **settings,
        "agreement": agreed,
        "loops": figures,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{options.repeats} interleaved repetitions after a warm-up of each · {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=MNIST_SIZE, help=f"training images (default {MNIST_SIZE})")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each loop that count (default 5)")
    parser.add_argument("--threads", type=int, help="PyTorch's threads, for all loops (default: its choice)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the plain loop's DataLoader (default 1)")
    parser.add_argument("--json", help="where the figures go (default benchmarks/cpu-<cores>-cores.json)")
    options = parser.parse_args()
    if not BATCH_SIZE <= options.images <= MNIST_SIZE:
        parser.error(f"--images is {options.images}, must be from {BATCH_SIZE} to {MNIST_SIZE}")
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}, must be at least 1")
    return options


if __name__ == "__main__":
    main()
