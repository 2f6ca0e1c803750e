"""Whole epochs as users have them, and what of ours is neither a step nor validation."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from benchmarks.compare import unfit
from benchmarks.results import Spread, times_as_fast
from benchmarks.team import Member, Say, Team
from benchmarks.work import Setting

EPOCHS = 20
"""Epochs of which two have pictures, as by default: one in the middle, whose consequences show."""

TURN = 1.0
"""Seconds of a turn, for steps and idle steps alike: a core that slept begins slowly."""

PROFILED = 20
"""Steps under the profiler at a time; looking through what it noted takes longer than the steps."""


def epochs(setting: Setting, warm: int, repeats: int, say: Say) -> dict[str, Any]:
    """Seconds of an epoch with validation and with what is written at default settings.

    Args:
        setting: what is trained and on what.
        warm: steps of each before the timing.
        repeats: epochs of each that count; one more does not.
        say: told how far it is.
    """
    workers = 0 if setting.device == "cpu" else 1
    competing = [Member("plain", "plain", setting, {"workers": workers}), Member("pythae", "pythae", setting)]
    with Team([*competing, Member("ours", "ours", setting)], say) as team:
        team.warm_up(warm, min(warm, 50))
        for member in team.members:
            member.ask("epoch")
        seconds = team.rounds(repeats, lambda m: m.ask("epoch")["seconds"])
        memory = {m.name: m.process.ask("memory") for m in team.members if m.process is not None}
    for name, times in seconds.items():
        say(f"a whole epoch: {name} {statistics.median(times):.2f} s")
    rows = {
        name: {
            "seconds_per_epoch": Spread.of(times).as_json(),
            "ours_times_as_fast": times_as_fast(seconds["ours"], times).as_json(),
            "peak_mib": {k: round(v) for k, v in memory[name].items()},
        }
        for name, times in seconds.items()
    }
    return {"title": setting.work.title, "images": setting.images, "contenders": rows, "left_out": team.absent}


def overhead(setting: Setting, warm: int, repeats: int, say: Say) -> dict[str, Any]:
    """Where the time goes that is not spent in PyTorch's kernels, and not in steps and validation.

    Args:
        setting: what is trained and on what.
        warm: steps of each before the timing.
        repeats: how often everything is measured.
        say: told how far it is.

    Returns:
        "outside": for each contender bounds of the share of a step outside PyTorch's kernels, see `idle_share` and, on
        CUDA, `Contender.outside`; "besides": the share of `Trainer.fit` with 20 epochs that is neither steps nor
        validation, as the difference from these alone; "writing": bounds of the share that goes into logging, pictures
        and checkpoints, see `writing_share`.
    """
    members = [
        Member("plain", "plain", setting, {"workers": 0}),
        Member("pythae", "pythae", setting),
        Member("ours", "ours", setting),
        Member("ours, eager", "ours", setting, {"execution": "eager"}),
        Member("ours, compile", "ours", setting, {"execution": "compile"}),
    ]
    members = [m for m in members if not unfit(setting.device, **m.knobs)]
    share = idle_share if setting.device == "cpu" else profiled_share
    outside = share(members, warm, repeats, say)
    ours = next(m for m in members if m.name == "ours")
    bare, whole = replace(ours, name="bare", process=None), replace(ours, name="whole", process=None)
    with Team([bare, whole], say) as team:
        team.warm_up(warm, min(warm, 50))
        for member in team.members:
            member.ask(member.name, count=1)
        found = team.rounds(repeats, lambda m: m.ask(m.name, count=EPOCHS))
    seconds = {name: [answer["seconds"] for answer in answers] for name, answers in found.items()}
    besides = [1 - a / b for a, b in zip(seconds["bare"], seconds["whole"], strict=True)]
    writing = writing_share(found["whole"], setting.threads)
    say(
        f"ours outside kernels: {outside['ours']['most']['median']:.1%}; besides {statistics.median(besides):.1%}, "
        f"writing at most {writing['most']['median']:.1%}"
    )
    return {
        "title": setting.work.title,
        "images": setting.images,
        "outside": outside,
        "besides": Spread.of(besides).as_json(),
        "writing": writing,
        "seconds": {name: Spread.of(values).as_json() for name, values in seconds.items()},
    }


def writing_share(trainings: list[dict[str, float]], threads: int) -> dict[str, Any]:
    """The share of trainings that goes into writing: "least" is what the training's own thread does and waits for.

    "most" adds the time of the threads beside it, as if no step were taken then: `threads` and one of them share
    `threads` cores, so that its time is that much longer than its processor time. What the training waits for counts
    twice.

    Args:
        trainings: see `benchmarks.ours.Ours.timed_whole`.
        threads: of one operation of a step.
    """
    least = [t["waited"] / t["seconds"] for t in trainings]
    most = [(t["waited"] + t["beside"] * (threads + 1) / threads) / t["seconds"] for t in trainings]
    return {"least": Spread.of(least).as_json(), "most": Spread.of(most).as_json()}


def idle_share(members: list[Member], warm: int, repeats: int, say: Say) -> dict[str, Any]:
    """What a step takes where kernels have nothing to do, as a share of the real one: "most" of each contender.

    The same operations in the same number, on images of one pixel and layers of one unit: what is left is Python,
    dispatch, autograd, and the beginning and end of every kernel. It is an upper bound of the time outside them.
    """
    speck = [
        replace(m, name=f"{m.name}, idle", setting=replace(m.setting, work=m.setting.work.idle), process=None)
        for m in members
    ]
    with Team([*members, *speck], say) as team:
        team.warm_up(warm, min(warm, 50))
        seconds = team.turns(TURN, repeats)
    shares = {}
    for name in (m.name for m in members if m.name in seconds):
        pairs = zip(seconds[f"{name}, idle"], seconds[name], strict=True)
        shares[name] = {"most": Spread.of([idle / real for idle, real in pairs]).as_json()}
    return shares


def profiled_share(members: list[Member], warm: int, repeats: int, say: Say) -> dict[str, Any]:
    """The share of a step in which a CUDA device idles: "least" and "most" of each contender."""
    with Team(members, say) as team:
        team.warm_up(warm, min(warm, 50))
        found = team.rounds(repeats, lambda m: m.ask("outside", count=PROFILED))
    return {
        name: {bound: Spread.of([v[bound] for v in values]).as_json() for bound in ("least", "most")}
        for name, values in found.items()
    }
