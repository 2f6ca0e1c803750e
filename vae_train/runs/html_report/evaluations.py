"""The evaluations in a run's folder, as tables."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vae_train.evaluation import metrics
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo
from vae_train.evaluation.report import format_conditions, format_value
from vae_train.runs.html_report.images import EmbeddedImage, read_image
from vae_train.runs.run import Run, read_json
from vae_train.util.classes import is_class
from vae_train.util.numbers import finite

PREFERRED = ("test", "valid", "train")
"""Splits by descending preference for the headline."""


class Evaluation(NamedTuple):
    """The content of one file of `vae eval`."""

    name: str
    """The split, then the checkpoint unless it is the best, then the fitted prior if there is one: "test-gmm"."""
    estimates: Mapping[str, Estimate]
    rows: list[tuple[str, str, str]]
    """Title, value with its error, and conditions."""
    unavailable: list[tuple[str, str]]
    """Titles of metrics without a value, and the reasons."""
    protocol: str
    warnings: list[str]
    plots: list[tuple[str, EmbeddedImage]]
    """File name and image."""
    weights: str
    """Fingerprint of the weights that were evaluated."""


@cache
def metric_infos() -> dict[str, MetricInfo]:
    """`MetricInfo` of all metrics of this package by name, in the order of the report."""
    modules = [importlib.import_module(f"{metrics.__name__}.{m.name}") for m in pkgutil.iter_modules(metrics.__path__)]
    values = [value for module in modules for value in vars(module).values() if is_class(value)]
    classes = [c for c in values if issubclass(c, Metric) and isinstance(getattr(c, "outputs", None), tuple)]
    in_order = sorted(dict.fromkeys(classes), key=lambda c: (c.order, c.__name__))
    return {info.name: info for c in in_order for info in c.outputs}


def info_of(name: str) -> MetricInfo:
    """The `MetricInfo` of an output; a default one for metrics from outside this package."""
    return metric_infos().get(name) or MetricInfo(name, name.replace("_", " "))


def read_evaluations(run: Run) -> list[Evaluation]:
    """Reads all evaluations of a run, the test split first."""
    paths = sorted(run.eval.glob("*.json"), key=_rank)
    return [_evaluation(path, content) for path in paths if (content := read_json(path))]


def _rank(path: Path) -> tuple[int, str]:
    return (PREFERRED.index(path.stem) if path.stem in PREFERRED else len(PREFERRED)), path.stem


def _evaluation(path: Path, content: Mapping[str, Any]) -> Evaluation:
    order = {name: number for number, name in enumerate(metric_infos())}
    names = sorted(content, key=lambda name: order.get(name, len(order)))
    estimates = {name: e for name in names if (e := _estimate(content[name])) is not None}
    reasons = content.get("unavailable")
    plots = [name for name in _texts(content.get("plots")) if Path(name).name == name]
    return Evaluation(
        path.stem,
        estimates,
        [_row(name, estimate) for name, estimate in estimates.items()],
        [(info_of(name).title, str(why)) for name, why in (reasons.items() if isinstance(reasons, dict) else ())],
        str(content.get("protocol", "")),
        _texts(content.get("warnings")),
        [(name, image) for name in plots if (image := read_image(path.with_name(name))) is not None],
        str(content.get("weights", "")),
    )


def _estimate(entry: Any) -> Estimate | None:
    """The estimate in an entry of the untrusted file; None if the entry is invalid."""
    if not isinstance(entry, dict) or (value := finite(entry.get("value"))) is None:
        return None
    se, n = finite(entry.get("se")), finite(entry.get("n"))
    about: dict[str, Any] = {key: str(entry[key]) for key in ("of", "conditions", "title") if key in entry}
    if (samples := finite(entry.get("num_samples"))) is not None:
        about["num_samples"] = int(samples)
    return Estimate(value, se, int(n or 0), about)


def _row(name: str, estimate: Estimate) -> tuple[str, str, str]:
    info = info_of(name)
    title = info._replace(title=estimate.about.get("title", info.title)).label
    return title, format_value(estimate, info.decimals), format_conditions(estimate)


def _texts(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
