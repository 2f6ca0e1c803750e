"""The data layer alone: a folder of small JPEGs as batches, from our cache and as torchvision's tutorials read it."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Spread, times_as_fast
from benchmarks.team import Member, Process, Say, Team
from benchmarks.work import Setting, Work

NUM_IMAGES, QUICK_IMAGES = 5_000, 1_000
CLASSES, SIDE, BATCH_SIZE = 10, 32, 128

FIRST, SECOND, LISTING = "ours, first start (decodes all)", "ours, second start (from the cache)", "ImageFolder lists"
"""The starts."""


def measure(
    device: str, threads: int, folder: Path | None, quick: bool, turn: float, repeats: int, say: Say
) -> dict[str, Any]:
    """Seconds until there is data, and images per second from then on; after all were compared with `ImageFolder`'s.

    Args:
        device: where batches are wanted.
        threads: PyTorch's threads.
        folder: the images, a folder per class, all of one size; None for some that are made for the purpose.
        quick: makes fewer.
        turn: about how many seconds a turn takes; of the tutorial at least a pass.
        repeats: turns of each.
        say: told how far it is.
    """
    with tempfile.TemporaryDirectory() as name, Process() as ours, Process() as theirs:
        place = Path(name)
        root = folder.resolve() if folder else generated(place / "images", QUICK_IMAGES if quick else NUM_IMAGES)
        where = {"root": str(root), "cache": str(place / "cache")}
        starts, about = _starts(where, device, threads, min(repeats, 3), ours, theirs)
        say(", ".join(f"{name}: {min(values):.3f} s" for name, values in starts.items()))
        work = Work("mlp", tuple(about["shape"]), BATCH_SIZE)  # (the network does not matter)
        setting = Setting(work, about["images"], device, threads)
        with Team(members(setting, where, ours, theirs), say) as team:
            agreed = [member.ask("agreement") for member in team.members if member.kind == "cached"]
            say(f"{about['images']:,} images agree with ImageFolder's")
            seconds = _turns(team, math.ceil(about["images"] / BATCH_SIZE), turn, repeats)
    rows = compared(seconds)
    for row, found in rows["contenders"].items():
        say(f"{row}: {found['images_per_second']['median']:,.0f} images/s")
    _, height, width = about["shape"]
    return {
        "title": f"{about['images']:,} images of {height}x{width} in {about['classes']} classes",
        "data": "a folder that was given" if folder else "JPEGs of smooth random colours",
        "images": about["images"],
        "batch_size": BATCH_SIZE,
        "agreement": {**agreed[0], "greatest_difference": max(found["greatest_difference"] for found in agreed)},
        "starts": {
            name: {
                "seconds": Spread.of(values).as_json(),
                "images_per_second": None  # it reads none
                if name == LISTING
                else Spread.of([about["images"] / value for value in values]).as_json(),
            }
            for name, values in starts.items()
        },
        **rows,
    }


def members(setting: Setting, where: dict[str, str], ours: Process, theirs: Process) -> list[Member]:
    """Who competes; "ours" keeps the pixels on the device, the others of ours read them from the cache's file.

    Args:
        setting: the batch size, the device and the threads.
        where: "root", the folder, and "cache".
        ours: the process of all of ours.
        theirs: that of the tutorial's.
    """
    tutorial, root = "ImageFolder, workers={}", where["root"]
    found = [Member(tutorial.format(n), "imagefolder", setting, {"root": root, "workers": n}, theirs) for n in (0, 2)]
    for name, storage, workers in (
        ("ours", "device", 0),
        ("ours, storage=host, workers=0", "host", 0),
        ("ours, storage=host, workers=2", "host", 2),
    ):
        found.append(Member(name, "cached", setting, {**where, "storage": storage, "workers": workers}, ours))
    return found


def compared(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Images per second, and how many times as fast that is as the faster of the tutorial's ways.

    Args:
        seconds: per image, for every contender in every repetition.
    """
    rates = {name: Spread.of([1 / value for value in values]) for name, values in seconds.items()}
    fastest = max((name for name in rates if not name.startswith("ours")), key=lambda name: rates[name].median)
    return {
        "contenders": {
            name: {
                "images_per_second": rates[name].as_json(),
                "times_as_fast": times_as_fast(values, seconds[fastest]).as_json(),
            }
            for name, values in seconds.items()
        },
        "reference": fastest,
    }


def generated(root: Path, count: int) -> Path:
    """Writes JPEGs of smooth random colours in folders of classes, the same ones every time; returns `root`.

    Args:
        root: the folder.
        count: how many images.
    """
    from PIL import Image

    rng = np.random.RandomState(0)
    for number in range(count):
        place = root / f"class_{number % CLASSES}" / f"{number:05}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        corners = Image.fromarray(rng.randint(256, size=(4, 4, 3)).astype(np.uint8))
        corners.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place, quality=90)
    return root


def _starts(
    where: dict[str, str], device: str, threads: int, repeats: int, ours: Process, theirs: Process
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of the starts in turns, after one of each that does not count; the last ones leave the cache warm.

    Returns:
        The seconds of each; what `benchmarks.cached.start` says of the folder.
    """
    seconds: dict[str, list[float]] = {FIRST: [], SECOND: [], LISTING: []}
    about: dict[str, Any] = {}
    for repeat in range(repeats + 1):
        shutil.rmtree(where["cache"], ignore_errors=True)
        for name in seconds:
            if name == LISTING:
                taken = theirs.ask("tutorial_start", root=where["root"])["seconds"]
            else:
                about = ours.ask("start", **where, device=device, threads=threads)
                taken = about["seconds"]
            seconds[name] += [taken] if repeat else []
    return seconds, about


def _turns(team: Team, batches: int, turn: float, repeats: int) -> dict[str, list[float]]:
    """Seconds per image of everybody in every repetition, after two passes and a turn that do not count.

    Args:
        team: the contenders.
        batches: in a pass.
        turn: about how many seconds a turn takes.
        repeats: turns of each.
    """
    team.warm_up(2 * batches, batches)

    def measured(member: Member) -> float:
        unit = member.facts["batches"]
        units = max(1, round(turn / member.seconds_per_step / unit))
        seconds: float = member.ask("steps", count=units * unit)["seconds"]
        return seconds / (units * member.facts["images"])

    for name, (taken,) in team.rounds(1, measured).items():
        member = next(m for m in team.members if m.name == name)
        member.seconds_per_step = taken * member.facts["images"] / member.facts["batches"]
    return team.rounds(repeats, measured)
