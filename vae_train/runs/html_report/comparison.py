"""Compares several runs for a report: which is best, and in which settings they differ."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from vae_train.evaluation.comparison import OTHER_PROTOCOL, lead_caution
from vae_train.evaluation.report import format_value
from vae_train.runs.differences import differences, headline_settings
from vae_train.runs.html_report.contents import TILES, Contents
from vae_train.runs.html_report.evaluations import info_of


class Ranked(NamedTuple):
    """A run's row in the table of results."""

    number: int
    """Its number on the page, which also selects its colour."""
    name: str
    settings: list[str]
    values: list[str]
    status: str


class Comparison(NamedTuple):
    """The comparison of several runs."""

    headline: str
    notes: list[str]
    settings: list[str]
    """Dotted paths of the settings in the table of results."""
    metrics: list[str]
    """Titles of its metrics."""
    rows: list[Ranked]
    """The best run first."""
    differences: list[tuple[str, list[str]]]
    """All settings that differ, with the value in each run."""


def compare(runs: Sequence[Contents]) -> Comparison:
    """Compares runs by the ELBO of their evaluations; by that of validation for runs that were not evaluated.

    Args:
        runs: two or more.
    """
    varied = differences([run.settings for run in runs])
    short = [path for path, _ in headline_settings(varied)]
    metrics = [name for name in TILES if any(name in run.estimates for run in runs)]
    order = sorted(range(len(runs)), key=lambda number: _cost(runs[number]))
    rows = []
    for number in order:
        run, values = runs[number], list[str]()
        for name in metrics:
            estimate = run.estimates.get(name)
            values.append("–" if estimate is None else format_value(estimate, info_of(name).decimals))
        settings = [run.settings.get(path, "–") for path in short]
        rows.append(Ranked(number, run.name, settings, values, str(run.summary["status"])))
    titles = [TILES[name] for name in metrics]
    best = [runs[number] for number in order]
    return Comparison(_headline(best, short), _notes(best), short, titles, rows, varied)


def _cost(run: Contents) -> float:
    elbo, distortion = run.estimates.get("elbo"), run.estimates.get("distortion")
    return -elbo.value if elbo is not None else distortion.value if distortion is not None else math.inf


def _headline(best: Sequence[Contents], settings: Sequence[str]) -> str:
    first = best[0]
    if not first.estimates:
        return f"{len(best)} runs without results yet."
    if _differ_in_data(best):
        return f"{len(best)} runs that were trained on different data; their metrics are not comparable."
    chosen = ", ".join(f"{path}={first.settings.get(path, '–')}" for path in settings[:4])
    return f"Best of {len(best)} runs: {first.headline[:-1]}{f' with {chosen}' if chosen else ''}."


def _differ_in_data(runs: Sequence[Contents]) -> bool:
    return len({str(run.run.environment().get("data_checksum")) for run in runs}) > 1


def _notes(best: Sequence[Contents]) -> list[str]:
    """Reasons why a comparison may mislead."""
    if _differ_in_data(best):
        return []
    notes = []
    first, second = (run.estimates.get("elbo") for run in best[:2])
    if first and second and first.se and second.se:
        lead, error = first.value - second.value, math.hypot(first.se, second.se)
        if caution := lead_caution(best[1].name, lead, error, "nats", "another split"):
            notes.append(caution)
    if len({run.evaluation.protocol for run in best if run.evaluation}) > 1:
        notes.append(OTHER_PROTOCOL)
    if len({run.split for run in best}) > 1:
        notes.append("The metrics are of different splits; vae eval run=[A,B] evaluates all runs on one.")
    return notes
