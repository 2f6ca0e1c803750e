"""Reports the results of a sweep: tables, charts, and what is printed."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from vae_train.plotting.png import PlotFormat
from vae_train.runs.run import write_text
from vae_train.runs.search.history import History, read_history
from vae_train.runs.sweep_file import SweepJob, write_results
from vae_train.runs.sweep_results.best import Goal, Judge, find_judge, judge_points
from vae_train.runs.sweep_results.charts import write_charts
from vae_train.runs.sweep_results.page import done_text, failure_lines, markdown, table_lines, tables, verdict_lines
from vae_train.runs.sweep_results.points import points_of
from vae_train.runs.sweep_results.rows import read_results, to_csv, to_entry
from vae_train.runs.sweep_results.searches import search_judge, write_search_charts
from vae_train.util.errors import UsageError

log = logging.getLogger("vae_train")

TABLE, PAGE = "sweep.csv", "sweep.md"


def report(
    sweep: Path,
    jobs: Sequence[SweepJob],
    errors: Mapping[str, str],
    judge: Judge | None = None,
    plot_format: PlotFormat = "png",
) -> None:
    """Writes the results of a sweep, finished or not, and logs its table.

    sweep.csv and sweep.json have a row for every job; sweep.md and the logged table have one for every point, the jobs
    that only differ in their seed.

    Args:
        sweep: the folder of the sweep.
        jobs: its jobs.
        errors: the errors of jobs that have just failed, by the names of their folders.
        judge: the metric that decides which point is the best; None for that of a search, or for the usual one, see
            `judge_points`.
        plot_format: file format of the charts.
    """
    results = read_results(sweep, jobs, errors)
    points = points_of(results)
    history = _history(sweep)
    judge = judge or (search_judge(history, points) if history else None)
    verdict = judge_points(points, judge)
    for table in tables(points, verdict):
        for line in table_lines(table):
            log.info("  %s", line)
    best = verdict_lines(points, verdict, sweep.name)
    failed = failure_lines(results, {job.folder: job.files(sweep).log_file for job in jobs})
    for line in [*best, *failed]:
        log.info("%s", line)
    write_results(sweep, {result.job.key: to_entry(result) for result in results})
    write_text(sweep / TABLE, to_csv(results))
    charts = write_charts(sweep, points, verdict, plot_format, is_search=history is not None)
    charts += write_search_charts(sweep, history, plot_format) if history else []
    write_text(sweep / PAGE, markdown(sweep.name, points, verdict, best, charts))
    names = ", ".join(path.name for path in (sweep / TABLE, sweep / PAGE, *charts))
    log.info("%s Written to %s: %s", done_text(results), sweep, names)
    allowed = [override for override in jobs[0].overrides if override.startswith("allow=")]
    log.info("report as one HTML page: vae report %s", shlex.join([f"run={sweep}", *allowed]))


def _history(sweep: Path) -> History | None:
    """The trials of a search; None for a grid, or if they cannot be read."""
    try:
        return read_history(sweep)
    except UsageError as error:
        log.warning("%s; leaving out what only the study knows", error)
        return None


def named_judge(sweep: Path, jobs: Sequence[SweepJob], metric: str, goal: Goal | None) -> Judge:
    """The metric that a user names to judge the points of a sweep by.

    Raises:
        UsageError: see `find_judge`.
    """
    return find_judge(metric, goal, points_of(read_results(sweep, jobs, {})))
