"""Loading alone: a folder of small JPEGs as batches, from vae_train's cache and as torchvision's tutorials read it."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import ChildProcess, Log, Pool, Worker
from benchmarks.workload import Settings, Workload

NUM_IMAGES, QUICK_NUM_IMAGES = 5_000, 1_000
NUM_CLASSES, SIDE, BATCH_SIZE = 10, 32, 128

FIRST = "vae_train, first start (decodes all images)"
SECOND = "vae_train, second start (from the cache)"
LISTING = "ImageFolder, listing"
MAX_OPENINGS = 3
"""Repetitions of opening the data."""


def measure(
    device: str, threads: int, folder: Path | None, quick: bool, turn_seconds: float, repeats: int, log: Log
) -> dict[str, Any]:
    """Seconds for opening the data, and images per second from then on, after a comparison with `ImageFolder`'s.

    Args:
        device: where batches are needed.
        threads: PyTorch's threads.
        folder: contains the images, one folder per class, all of one size; None generates images.
        quick: generates fewer images.
        turn_seconds: approximate length of a turn; `ImageFolder` is timed for an epoch at least.
        repeats: turns of each reader.
        log: reports progress.
    """
    with tempfile.TemporaryDirectory() as temporary, ChildProcess() as own, ChildProcess() as torchvision:
        place = Path(temporary)
        root = folder.resolve() if folder else generate(place / "images", QUICK_NUM_IMAGES if quick else NUM_IMAGES)
        paths = {"root": str(root), "cache": str(place / "cache")}
        opening, facts = _time_opening(paths, device, threads, min(repeats, MAX_OPENINGS), own, torchvision)
        log(", ".join(f"{name}: {min(values):.3f} s" for name, values in opening.items()))
        workload = Workload("mlp", tuple(facts["shape"]), BATCH_SIZE)  # the network does not matter
        settings = Settings(workload, facts["images"], device, threads)
        with Pool(workers(settings, paths, own, torchvision), log) as pool:
            agreement = [worker.call("compare_images") for worker in pool.workers if worker.kind == "cached"]
            log(f"{facts['images']:,} images agree with ImageFolder's")
            seconds = _time_batches(pool, math.ceil(facts["images"] / BATCH_SIZE), turn_seconds, repeats)
    rows = table_rows(seconds)
    for name, row in rows["implementations"].items():
        log(f"{name}: {row['images_per_second']['median']:,.0f} images/s")
    _, height, width = facts["shape"]
    return {
        "title": f"{facts['images']:,} images of {height}x{width} in {facts['classes']} classes",
        "data": "a folder passed with --folder" if folder else "JPEGs of smooth random colours",
        "images": facts["images"],
        "batch_size": BATCH_SIZE,
        "agreement": {**agreement[0], "max_difference": max(found["max_difference"] for found in agreement)},
        "opening": {name: _opening_row(values, facts["images"], name) for name, values in opening.items()},
        **rows,
    }


def workers(settings: Settings, paths: dict[str, str], own: ChildProcess, torchvision: ChildProcess) -> list[Worker]:
    """The readers; "vae_train" has the pixels on the device, its other rows read them from the cache file.

    Args:
        settings: the batch size, the device and the threads.
        paths: "root", the folder, and "cache".
        own: runs the readers of vae_train.
        torchvision: runs those of torchvision.
    """
    root = paths["root"]
    readers = [
        Worker(f"ImageFolder, workers={n}", "imagefolder", settings, {"root": root, "workers": n}, torchvision)
        for n in (0, 2)
    ]
    for name, storage, count in (
        ("vae_train", "device", 0),
        ("vae_train, storage=host, workers=0", "host", 0),
        ("vae_train, storage=host, workers=2", "host", 2),
    ):
        readers.append(Worker(name, "cached", settings, {**paths, "storage": storage, "workers": count}, own))
    return readers


def table_rows(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Images per second, and the speedup over the fastest reader of torchvision.

    Args:
        seconds: per image, of every reader in every repetition.
    """
    rates = {name: Measurement.of([1 / value for value in values]) for name, values in seconds.items()}
    reference = max((n for n in rates if not n.startswith("vae_train")), key=lambda name: rates[name].median)
    rows = {
        name: {
            "images_per_second": rates[name].as_json(),
            "speedup": speedup(values, seconds[reference]).as_json(),
        }
        for name, values in seconds.items()
    }
    return {"implementations": rows, "reference": reference}


def generate(root: Path, count: int) -> Path:
    """Writes JPEGs of smooth random colours in one folder per class, always the same ones; returns `root`.

    Args:
        root: the folder.
        count: number of images.
    """
    from PIL import Image

    rng = np.random.RandomState(0)
    for number in range(count):
        path = root / f"class_{number % NUM_CLASSES}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        corners = Image.fromarray(rng.randint(256, size=(4, 4, 3)).astype(np.uint8))
        corners.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path, quality=90)
    return root


def _opening_row(seconds: list[float], images: int, name: str) -> dict[str, Any]:
    rate = None if name == LISTING else Measurement.of([images / value for value in seconds]).as_json()
    return {"seconds": Measurement.of(seconds).as_json(), "images_per_second": rate}


def _time_opening(
    paths: dict[str, str], device: str, threads: int, repeats: int, own: ChildProcess, torchvision: ChildProcess
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds for opening the data, in turns, after one uncounted round; the last round leaves a cache.

    Returns:
        The seconds of every way to open it; what `benchmarks.cached.open_folder` returned.
    """
    seconds: dict[str, list[float]] = {FIRST: [], SECOND: [], LISTING: []}
    facts: dict[str, Any] = {}
    for repeat in range(repeats + 1):
        shutil.rmtree(paths["cache"], ignore_errors=True)
        for name in seconds:
            if name == LISTING:
                taken = torchvision.run("imagefolder", "list_images", root=paths["root"])["seconds"]
            else:
                facts = own.run("cached", "open_folder", **paths, device=device, threads=threads)
                taken = facts["seconds"]
            seconds[name] += [taken] if repeat else []
    return seconds, facts


def _time_batches(pool: Pool, batches: int, turn_seconds: float, repeats: int) -> dict[str, list[float]]:
    """Seconds per image of every reader in every repetition, after two epochs and a turn that are not counted.

    Args:
        pool: the readers.
        batches: number of batches in an epoch.
        turn_seconds: approximate length of a turn.
        repeats: turns of each reader.
    """
    pool.warm_up(2 * batches, batches)

    def measure(worker: Worker) -> float:
        unit = worker.facts["batches"]
        units = max(1, round(turn_seconds / worker.seconds_per_step / unit))
        seconds: float = worker.call("timed_steps", count=units * unit)["seconds"]
        return seconds / (units * worker.facts["images"])

    first = pool.take_turns(1, measure)
    for worker in pool.workers:
        worker.seconds_per_step = first[worker.name][0] * worker.facts["images"] / worker.facts["batches"]
    return pool.take_turns(repeats, measure)
