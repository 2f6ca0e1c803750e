"""Whole epochs as users have them, and what of ours is neither a step nor validation."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from benchmarks.results import Spread, times_as_fast
from benchmarks.team import Member, Say, Team
from benchmarks.work import Setting

EPOCHS = 10
"""Epochs of which one has pictures, as by default."""

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
        "outside": for each contender bounds of the share of a step outside PyTorch's kernels, see `Contender.outside`;
        "besides": the share of `Trainer.fit` with ten epochs that is neither steps nor validation.
    """
    plain = Member("plain", "plain", setting, {"workers": 0})
    ours = Member("ours", "ours", setting)
    compiled = Member("ours, compile", "ours", setting, {"execution": "compile", "profiled": True})
    with Team([plain, Member("pythae", "pythae", setting), ours, compiled], say) as team:
        team.warm_up(warm, min(warm, 50))
        found = team.rounds(repeats, lambda m: m.ask("outside", count=PROFILED))
    bare, whole = replace(ours, name="bare", process=None), replace(ours, name="whole", process=None)
    with Team([bare, whole], say) as team:
        team.warm_up(warm, min(warm, 50))
        for member in team.members:
            member.ask(member.name, count=1)
        seconds = team.rounds(repeats, lambda m: m.ask(m.name, count=EPOCHS)["seconds"])
    besides = [1 - a / b for a, b in zip(seconds["bare"], seconds["whole"], strict=True)]
    shares = {
        name: {bound: Spread.of([v[bound] for v in values]).as_json() for bound in ("least", "most")}
        for name, values in found.items()
    }
    say(f"ours outside kernels: up to {shares['ours']['most']['median']:.1%}; besides {statistics.median(besides):.1%}")
    return {
        "title": setting.work.title,
        "images": setting.images,
        "outside": shares,
        "besides": Spread.of(besides).as_json(),
        "seconds": {name: Spread.of(values).as_json() for name, values in seconds.items()},
    }
