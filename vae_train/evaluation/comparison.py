"""Combines reports of several runs in one table, for the terminal, Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.report import format_value
from vae_train.evaluation.suite import Report
from vae_train.util.text import short_number

TABLE_COLUMNS = 100
"""Maximal width of the table on the terminal, in characters."""

OTHER_PROTOCOL = "The runs score pixels differently; their ELBOs are not comparable."


class EvaluatedRun(NamedTuple):
    """A run's row of the table."""

    name: str
    settings: Mapping[str, str]
    """The settings in which the runs differ."""
    report: Report


class Comparison:
    """The reports of several runs, the lowest -ELBO (or distortion) first.

    Args:
        runs: the runs; all have the same settings.
    """

    def __init__(self, runs: Sequence[EvaluatedRun]) -> None:
        self.runs = sorted(runs, key=lambda run: run.report.cost)
        infos = (i for run in self.runs for i in run.report.infos if i.name in run.report.estimates)
        self.infos = list(dict.fromkeys(infos))
        """All outputs that at least one run has."""
        self.settings = list(self.runs[0].settings)

    def lines(self) -> list[str]:
        """A table that fits a terminal, followed by the names of metrics that do not fit."""
        columns = [["run", *(run.name for run in self.runs)]]
        columns += [[name, *(run.settings[name] for run in self.runs)] for name in self.settings]
        shown = 0
        for info in self.infos:
            column = [info.name, *(self._cell(run, info) for run in self.runs)]
            if _width([*columns, column]) > TABLE_COLUMNS:
                break
            columns.append(column)
            shown += 1
        widths = [max(map(len, column)) for column in columns]
        rows = zip(*columns, strict=True)
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        others = ", ".join(info.name for info in self.infos[shown:])
        return [*table, f"further metrics in the CSV file: {others}"] if others else table

    def markdown(self) -> str:
        """A table with every output."""
        head = ["run", *self.settings, *(info.label for info in self.infos)]
        rows = [f"| {' | '.join(head)} |", "| --- |" + " --- |" * (len(head) - 1)]
        for run in self.runs:
            cells = [run.name, *run.settings.values(), *(self._cell(run, info) for info in self.infos)]
            rows.append(f"| {' | '.join(cells)} |")
        return "\n".join(rows) + "\n"

    def csv(self) -> str:
        """A table with every output and its standard error, with the keys of the JSON reports."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["run", *self.settings, *(head for i in self.infos for head in (i.name, f"{i.name}_se"))])
        for run in self.runs:
            estimates = [run.report.estimates.get(info.name) for info in self.infos]
            values = [value for e in estimates for value in (("", "") if e is None else (e.value, e.se))]
            writer.writerow([run.name, *run.settings.values(), *values])
        return text.getvalue()

    def _cell(self, run: EvaluatedRun, info: MetricInfo) -> str:
        estimate = run.report.estimates.get(info.name)
        return "–" if estimate is None else format_value(estimate, info.decimals)


def lead_caution(rival: str, lead: float, error: float, unit: str, other: str) -> str | None:
    """A caution if the best of several results may be the best by chance.

    Args:
        rival: what is second.
        lead: by how much the best is better.
        error: standard error of the lead.
        unit: of both; empty for numbers without one.
        other: what may order the two differently: "another split" or "other seeds".

    Returns:
        The caution; None if the lead is at least two standard errors.
    """
    if lead >= 2 * error:
        return None
    amount, limit = f"{short_number(lead)} {unit}".strip(), short_number(2 * error)
    return (
        f"The lead over {rival} is {amount}, within two standard errors ({limit}): "
        f"{other} may order the two differently."
    )


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Width of a line with these columns, in characters."""
    return sum(max(map(len, column)) + 2 for column in columns) - 2
