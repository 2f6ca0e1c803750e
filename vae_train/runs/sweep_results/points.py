"""The points of a sweep: jobs that only differ in their seed, and the means over them."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.runs.html_report.evaluations import info_of
from vae_train.runs.sweep_file import swept
from vae_train.runs.sweep_results.rows import SEED, JobResult

SPLIT_NAMES = {"train": "training", "valid": "validation"}


class Mean(NamedTuple):
    """A metric's mean over seeds."""

    value: float
    sd: float | None
    """Standard deviation over seeds (divided by n - 1); None for a single seed."""
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of one or more values."""
        sd = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), sd, len(values))

    @property
    def se(self) -> float | None:
        """Standard error of the mean; None for a single seed."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)

    def text(self, decimals: int) -> str:
        """The mean and its standard deviation; a mean of whole numbers has one decimal."""
        decimals = max(decimals, int(self.sd is not None))
        value = f"{self.value:,.{decimals}f}"
        return value if self.sd is None else f"{value} ± {self.sd:,.{decimals}f}"


class Point(NamedTuple):
    """The jobs of a sweep that only differ in their seed."""

    settings: Mapping[str, str]
    """The settings in which points differ; those that were typed if there is a single point."""
    results: Sequence[JobResult]

    @property
    def done(self) -> list[JobResult]:
        """The jobs that are done, to which all means belong."""
        return [result for result in self.results if result.is_done]

    @property
    def name(self) -> str:
        """The settings as they are typed."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items()) or "all jobs"

    def mean(self, metric: str) -> Mean | None:
        """The mean of a metric over the jobs that are done; None if none of them has it."""
        values = [result.values[metric] for result in self.done if metric in result.values]
        return Mean.of(values) if values else None

    @property
    def remark(self) -> str:
        """What became of the jobs that are not done, for instance "1 failed, 2 to go"."""
        counts = Counter(result.status for result in self.results if not result.is_done)
        waiting = counts.pop("not started", 0)
        parts = [f"{count} {status}" for status, count in counts.items()]
        return ", ".join([*parts, *([f"{waiting} to go"] if waiting else [])])


def points_of(results: Sequence[JobResult]) -> list[Point]:
    """Groups jobs that only differ in their seed, in the order of their first jobs."""
    groups: dict[str, list[JobResult]] = {}
    for result in results:
        groups.setdefault(result.point, []).append(result)
    settings = [{k: v for k, v in group[0].settings.items() if k != SEED} for group in groups.values()]
    if len(groups) == 1:  # only seeds differ, or nothing does
        (jobs,) = groups.values()
        settings = [{key: value for key, value in jobs[0].job.settings.items() if key != SEED}]
    shown = swept(settings)
    return [
        Point({key: each[key] for key in shown if key in each}, group)
        for each, group in zip(settings, groups.values(), strict=True)
    ]


def metric_names(points: Sequence[Point]) -> list[str]:
    """The names of all metrics that jobs have, those of training first."""
    names = dict.fromkeys(name for point in points for result in point.done for name in result.values)
    return sorted(names, key=lambda name: "." in name)


def info(name: str) -> MetricInfo:
    """How a metric of a sweep is reported: "elbo", "valid_loss", "seconds" or "test.nll", for instance."""
    file, _, metric = name.rpartition(".")
    if name == "seconds":
        return MetricInfo(name, "training time", "s", 1, "lower")
    for prefix, title in (("train_", "training"), ("valid_", "last validation")):
        if not file and name.startswith(prefix):
            return _titled(info(name.removeprefix(prefix)), name, title)
    if metric == "loss":
        return MetricInfo(name, "training objective", "nats", 2, "lower")
    return _titled(info_of(metric), name, file)


def _titled(described: MetricInfo, name: str, prefix: str) -> MetricInfo:
    split, dash, rest = prefix.partition("-")
    title = f"{SPLIT_NAMES.get(split, split)}{dash}{rest} {described.title}".strip()
    return described._replace(name=name, title=title)
