"""The table of a sweep with a row for every point, for the terminal and as a page in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vae_train.evaluation.comparison import TABLE_COLUMNS
from vae_train.runs.html_report.contents import TILES
from vae_train.runs.statuses import CLOSED
from vae_train.runs.sweep_results.best import Verdict
from vae_train.runs.sweep_results.points import Point, info, metric_names
from vae_train.runs.sweep_results.rows import HEADLINE, JobResult

SHOWN = {"elbo": "ELBO", "rate": "rate", "distortion": "distortion", "active_units": "active", "codes_used": "codes"}
"""Metrics of training in the table, and the heads of their columns."""

SECONDS = "seconds"

MAX_VALUE = 8
"""Longest number, in characters, that is not rounded; a search tries numbers with many digits."""

NOT_DONE = ("pruned", "failed", "stopped", "running")


class Column(NamedTuple):
    """A column of the table."""

    head: str
    """On the terminal."""
    title: str
    """In Markdown."""
    cells: list[str]


class Table(NamedTuple):
    """Metrics of all points."""

    title: str
    """Empty for those of training."""
    points: list[Column]
    metrics: list[Column]
    remarks: Column | None

    @property
    def columns(self) -> list[Column]:
        """All columns."""
        return [*self.points, *self.metrics, *([self.remarks] if self.remarks else [])]


def tables(points: Sequence[Point], verdict: Verdict) -> list[Table]:
    """The table of training with the metric that decides, and one for every split that was evaluated."""
    known, judge = metric_names(points), verdict.judge
    deciding = [judge.metric] if judge and judge.metric in known and judge.metric not in (*SHOWN, SECONDS) else []
    names = [*deciding, *(name for name in (*SHOWN, SECONDS) if name in known)]
    result = [Table("", _point_columns(points), [_column(name, points) for name in names], _remarks(points, verdict))]
    for file in dict.fromkeys(name.rpartition(".")[0] for name in known if "." in name):
        order = {f"{file}.{metric}": number for number, metric in enumerate(TILES)}
        names = sorted((n for n in known if n.startswith(f"{file}.")), key=lambda n: order.get(n, len(order)))
        columns = [_column(name, points) for name in names]
        columns = [column._replace(head=column.head.removeprefix(f"{file}.")) for column in columns]
        columns = [column._replace(title=info(column.head).label) for column in columns]
        result.append(Table(file, _point_columns(points), columns, None))
    return result


def table_lines(table: Table) -> list[str]:
    """A table that fits a terminal, followed by the names of metrics that do not fit."""
    count = len(table.metrics)
    while count > 1 and _width([*table.points, *table.metrics[:count]]) > TABLE_COLUMNS:
        count -= 1
    columns = [*table.points, *table.metrics[:count]]
    widths = [max(map(len, [column.head, *column.cells])) for column in columns]
    remarks = table.remarks or Column("", "", [""] * len(columns[0].cells))
    lines = [f"evaluation: {table.title}"] if table.title else []
    for *cells, remark in zip(*([column.head, *column.cells] for column in [*columns, remarks]), strict=True):
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([*padded, remark]).rstrip())
    others = ", ".join(column.head for column in table.metrics[count:])
    return [*lines, f"further columns in sweep.md: {others}"] if others else lines


def markdown(name: str, points: Sequence[Point], verdict: Verdict, notes: Sequence[str], charts: Sequence[Path]) -> str:
    """The page of a sweep.

    Args:
        name: the name of the sweep.
        points: its points.
        verdict: the best of them.
        notes: sentences below the table.
        charts: files beside the page.
    """
    results = [result for point in points for result in point.results]
    lines = [f"# {name}", "", done_text(results)]
    for table in tables(points, verdict):
        lines += ["", f"## Evaluation: {table.title}"] if table.title else []
        lines += ["", f"| {' | '.join(column.title for column in table.columns)} |"]
        lines.append("| --- |" + " --- |" * (len(table.columns) - 1))
        rows = zip(*(column.cells for column in table.columns), strict=True)
        lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows]
        lines += [line for note in [_explanation(results), *notes] for line in ("", note)] if not table.title else []
    failed = [result for result in results if result.status == "failed"]
    if failed:
        lines += ["", "## Failed", "", "| job | settings | error |", "| --- | --- | --- |"]
        lines += [f"| {r.number} | {_escaped(' '.join(r.job.overrides))} | {_escaped(r.error)} |" for r in failed]
    lines += ["", *(f"[{c.name}]({c.name})" if c.suffix == ".pdf" else f"![]({c.name})" for c in charts)]
    return "\n".join(lines).rstrip() + "\n"


def done_text(results: Sequence[JobResult]) -> str:
    """How many jobs are done, and what the others are."""
    counts = {status: sum(result.status == status for result in results) for status in NOT_DONE}
    waiting = sum(result.status == "not started" for result in results)
    parts = [f"{count} {status}" for status, count in counts.items() if count]
    parts += [f"{waiting} to go"] if waiting else []
    done = sum(result.is_done for result in results)
    return f"{', '.join([f'{done} of {len(results)} jobs done', *parts])}."


def _point_columns(points: Sequence[Point]) -> list[Column]:
    """The settings, and the number of jobs that are done."""
    names = dict.fromkeys(key for point in points for key in point.settings)
    columns = [Column(key, key, [_rounded(point.settings.get(key, "–")) for point in points]) for key in names]
    totals = [(len(point.done), len(point.results)) for point in points]
    return [*columns, Column("n", "n", [str(a) if a == b else f"{a} of {b}" for a, b in totals])]


def _column(name: str, points: Sequence[Point]) -> Column:
    described, cells = info(name), list[str]()
    for point in points:
        mean = point.mean(name)
        fewer = f" (n = {mean.n})" if mean and mean.n < len(point.done) else ""  # not all were evaluated
        cells.append("–" if mean is None else mean.text(described.decimals) + fewer)
    head = {**SHOWN, SECONDS: "s"}.get(name, name)
    return Column(head, described.label, cells)


def _remarks(points: Sequence[Point], verdict: Verdict) -> Column:
    """What is special about a point: that it is the best, and jobs that are not done."""
    best = f"{_best(points)} by {_judged_by(verdict)}"
    cells = [", ".join(filter(None, [best if point is verdict.best else "", point.remark])) for point in points]
    return Column("", "", cells)


def _judged_by(verdict: Verdict) -> str:
    """The metric that decides, for instance "validation ELBO"."""
    if verdict.judge is None:
        return ""
    name = verdict.judge.metric
    return (
        f"validation {SHOWN.get(name, name)}" if name in HEADLINE and _is_validated(verdict) else SHOWN.get(name, name)
    )


def _is_validated(verdict: Verdict) -> bool:
    return verdict.best is not None and all(result.split == "valid" for result in verdict.best.done)


def _best(points: Sequence[Point]) -> str:
    """What the best point is called while other jobs may become better."""
    is_over = all(result.status in CLOSED for point in points for result in point.results)
    return "best" if is_over else "best so far"


def verdict_lines(points: Sequence[Point], verdict: Verdict, name: str) -> list[str]:
    """The best point with its best run, or why there is none.

    Args:
        points: all points.
        verdict: the best of them.
        name: the name of the sweep.
    """
    lines = []
    if verdict.reasons:
        command = f"vae sweep sweep={name} metric=elbo"
        lines.append(f"no best: {' '.join(verdict.reasons)} Name the metric that decides: {command}")
    run = verdict.run
    if verdict.best is not None and verdict.judge is not None and run is not None:
        mean = verdict.best.mean(verdict.judge.metric)
        assert mean is not None
        described = info(verdict.judge.metric)
        text = f"{mean.text(described.decimals)} {described.unit}".strip()
        spread = f" (n = {mean.n})" if mean.n > 1 else ""
        best = f"{_best(points)} by {_judged_by(verdict)}"
        lines.append(f"{best}: {verdict.best.name}, {text}{spread}; its best run: {run.folder}")
    return [*lines, *verdict.cautions]


def _explanation(results: Sequence[JobResult]) -> str:
    """What the columns of the table are."""
    splits = {result.split for result in results}
    images = {"valid": "the validation images, at the best epoch", "train": "the training images of the last epoch"}
    of = " or ".join(text for split, text in images.items() if split in splits)
    sentences = ["Mean ± standard deviation over seeds; n is the number of jobs that are done."]
    sentences += [f"Metrics of training are those of {of}."] if of else []
    return " ".join(sentences)


def _rounded(text: str) -> str:
    """A number with few digits; other texts are unchanged."""
    try:
        return text if len(text) <= MAX_VALUE else f"{float(text):.4g}"
    except ValueError:
        return text


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _width(columns: Sequence[Column]) -> int:
    """Width of a line with these columns, in characters."""
    return sum(max(map(len, [column.head, *column.cells])) + 2 for column in columns) - 2


def failure_lines(results: Sequence[JobResult], logs: Mapping[str, Path]) -> list[str]:
    """What failed, why, and where the log is.

    Args:
        results: the results of all jobs.
        logs: name of a job's folder -> its log.
    """
    lines = []
    for result in results:
        if result.status == "failed":
            path = logs[result.job.folder]
            see = f"; log: {path}" if path.exists() else ""
            lines.append(f"failed: {result.number} ({' '.join(result.job.overrides)}): {result.error}{see}")
    return lines
