"""Contenders against each other on one work: that they do the same, and then how fast."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.results import Spread, times_as_fast
from benchmarks.team import Member, Say, Team
from benchmarks.work import Setting, load
from vae_train.util.runtime import emulated


class Unequal(Exception):
    """Contenders do not do the same work; comparing their times would mean nothing."""


@dataclass(frozen=True)
class Pace:
    """How much is trained before the timing, and how long the timing takes."""

    warm: int
    """Steps before the timing. Adam's averages become denormal numbers after some 700 steps on MNIST, which slows down
    those who do not flush them: with 800 steps the steady state is what is timed."""
    window: int
    """Steps, the last of these, that the losses are means of."""
    band: float
    """How far apart these losses may be, as a share."""
    turn: float
    """About how many seconds a turn takes."""
    repeats: int
    """Turns of each."""


def members(setting: Setting, compiled: bool = True, everybody: bool = True) -> list[Member]:
    """Who competes on a device; "ours" has the default settings.

    Args:
        setting: what is trained and on what.
        compiled: whether compiled steps compete too; compiling takes up to a minute.
        everybody: whether other settings of ours compete too.
    """

    def ours(**knobs: str) -> Member:
        return Member(", ".join(["ours", *knobs.values()]), "ours", setting, knobs)

    def floor(precision: str) -> Member:
        name = "floor" if precision == "float32" else f"floor, {precision}"
        return Member(name, "floor", setting, {"precision": precision})

    pythae = Member("pythae", "pythae", setting)
    if setting.device == "cpu":
        found = [Member("plain", "plain", setting, {"workers": 0}), pythae, ours()]
        if not everybody:
            return [*found, floor("float32")]
        found += [ours(execution="eager")]
        found += [ours(execution="compile")] if compiled else []
        found += [ours(precision="bfloat16")]
        found += [ours(execution="compile", precision="bfloat16")] if compiled else []
        return [*found, floor("float32"), floor("bfloat16")]
    found = [Member(f"plain, workers={n}", "plain", setting, {"workers": n}) for n in (1, 4)]
    found += [pythae, ours(), ours(execution="eager")]
    if not everybody:
        return [*found, floor("float32")]
    found += [ours(execution="compile")] if compiled else []
    found += [ours(precision=name) for name in ("tf32", "bfloat16")]
    return [*found, *map(floor, ("float32", "tf32", "bfloat16"))]


def measure(found: Sequence[Member], pace: Pace, say: Say) -> dict[str, Any]:
    """Lets everybody train, asserts that all do the same, and then times them in turns.

    Args:
        found: who competes; one is called "ours".
        pace: how long.
        say: told how far it is.

    Raises:
        Unequal: they do not do the same.
    """
    setting = found[0].setting
    absent = {m.name: why for m in found if (why := unfit(setting.device, **m.knobs))}
    work = setting.work
    with Team([m for m in found if m.name not in absent], say) as team:
        say(f"{work.title}: {pace.warm} steps of each before the timing")
        team.warm_up(pace.warm, pace.window)
        agreed = agreement(team.members, pace)
        say("losses agree: " + ", ".join(f"{name} {loss:.2f}" for name, loss in agreed["losses"].items()))
        seconds = team.turns(pace.turn, pace.repeats)
        memory = {m.name: m.process.ask("memory") for m in team.members if m.process is not None}
        gflop = next((m.facts["gflop"] for m in team.members if "gflop" in m.facts), None)
        parameters = team.members[0].facts["parameters"]
        kinds = {m.name: m.kind for m in team.members}
        absent |= team.absent
    rows = {}
    for name, times in seconds.items():
        rate = Spread.of([1 / t for t in times])
        rows[name] = {
            "steps_per_second": rate.as_json(),
            "images_per_second": rate.map(lambda r: r * work.batch_size).as_json(),
            "ours_times_as_fast": times_as_fast(seconds["ours"], times).as_json() if "ours" in seconds else None,
            "peak_mib": None if kinds[name] == "floor" else {k: round(v) for k, v in memory[name].items()},
        }
    return {
        "title": work.title,
        "data": f"{setting.images:,} images: {load(work.shape, 1).about}",
        "batch_size": work.batch_size,
        "parameters": parameters,
        "gflop_per_step": gflop,
        "agreement": agreed,
        "contenders": rows,
        "left_out": absent,
    }


def agreement(found: Sequence[Member], pace: Pace) -> dict[str, Any]:
    """The losses after the warm-up, which lie within the band around the first one's.

    Raises:
        Unequal: they do not, or the models have different numbers of parameters.
    """
    counts = {m.name: m.facts["parameters"] for m in found}
    if len(set(counts.values())) > 1:
        raise Unequal(f"the models have different numbers of parameters: {counts}")
    losses = {m.name: m.loss for m in found if m.kind != "floor"}
    about = {"steps": pace.warm, "window": pace.window, "band": pace.band, "losses": losses}
    if not losses:
        return about
    reference = next(iter(losses.values()))
    far = {name: loss for name, loss in losses.items() if not abs(loss - reference) <= pace.band * abs(reference)}
    if far or not math.isfinite(reference):
        raise Unequal(
            f"after {pace.warm} steps the losses are {losses}, more than {pace.band:.0%} apart: they do not do the "
            "same work, so nothing was timed"
        )
    return about


def unfit(device: str, execution: str = "auto", precision: Any = "float32", **_: object) -> str | None:
    """Why ours, with these settings, cannot compete here, or would take minutes for what takes others a second."""
    if execution == "compile" and device == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
        return "execution=compile: there is no C++ compiler here"
    return emulated(precision, torch.device(device))
