"""Computes the metrics of a subject, and collects them in a report."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from vae_train.data.dataset import Dataset
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results, Unavailable
from vae_train.evaluation.subject import Subject
from vae_train.model.base import LatentVariableModel
from vae_train.rng import Rng
from vae_train.util.text import now


@dataclass(frozen=True)
class Report:
    """The results of an evaluation."""

    infos: tuple[MetricInfo, ...]
    """The outputs, in order."""
    results: Results
    """A result for every output."""
    split: str
    prior: str | None
    seed: int
    protocol: str
    """How the likelihood scores pixels."""
    warnings: tuple[str, ...] = ()
    """Problems of the model, or of its likelihood."""
    plots: tuple[str, ...] = ()
    """File names of the plots."""
    about: dict[str, Any] = field(default_factory=dict)
    """Additional entries of the JSON report."""

    @property
    def estimates(self) -> dict[str, Estimate]:
        """The available results."""
        return {name: r for name, r in self.results.items() if isinstance(r, Estimate)}

    @property
    def unavailable(self) -> dict[str, str]:
        """The reasons why other outputs have no estimate."""
        return {name: r.reason for name, r in self.results.items() if isinstance(r, Unavailable)}

    @property
    def cost(self) -> float:
        """The value for ranking runs: -ELBO, or the distortion of a model without an ELBO."""
        elbo = self.estimates.get("elbo")
        return -elbo.value if elbo is not None else self.estimates["distortion"].value

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON report: an entry for every output (null without an estimate), and the conditions."""
        entries = {name: r.to_dict() if isinstance(r, Estimate) else None for name, r in self.results.items()}
        conditions = {name: getattr(self, name) for name in ("split", "prior", "seed", "protocol", "unavailable")}
        return entries | conditions | {"warnings": list(self.warnings), "plots": list(self.plots)} | self.about


def evaluate(subject: Subject, metrics: Iterable[Metric], **about: Any) -> Report:
    """Computes the enabled metrics in order.

    Args:
        subject: what to evaluate.
        metrics: the metrics.
        about: additional entries of the JSON report.
    """
    chosen = [metric for metric in _in_order(metrics) if metric.enabled]
    results: Results = {}
    for metric in chosen:
        results |= metric.measure(subject)
    stamp = {"seed": subject.seed, "date": now()}
    for name, result in results.items():
        if isinstance(result, Estimate):
            results[name] = replace(result, about={**result.about, **stamp})
    infos = tuple(info for metric in chosen for info in metric.outputs)
    warning = getattr(getattr(subject.model, "likelihood", None), "warning", None)
    warnings = [warning, *(r.about.get("warning") for r in results.values() if isinstance(r, Estimate))]
    return Report(
        infos,
        results,
        split=subject.split,
        prior=subject.prior,
        seed=subject.seed,
        protocol=protocol(subject.model, subject.data),
        warnings=tuple(w for w in warnings if w),
        plots=tuple(subject.plots),
        about=about,
    )


def _in_order(metrics: Iterable[Metric]) -> list[Metric]:
    """Metrics in the order of the report."""
    return sorted(metrics, key=lambda metric: (metric.order, type(metric).__name__))


def merge(report: Report, before: Mapping[str, Any], metrics: Iterable[Metric]) -> Report:
    """Adds estimates of an earlier report on the same weights, unless they were computed again.

    Args:
        report: the new report.
        before: the earlier one, as JSON.
        metrics: all metrics, enabled or not.
    """
    again = report.estimates
    kept = {
        k: e for k, e in before.items() if isinstance(e, dict) and {"value", "se", "n"} <= set(e) and k not in again
    }
    results: Results = report.results | {name: Estimate.from_dict(entry) for name, entry in kept.items()}
    return replace(
        report,
        infos=tuple(info for metric in _in_order(metrics) for info in metric.outputs if info.name in results),
        results=results,
        warnings=tuple(dict.fromkeys([*report.warnings, *before.get("warnings", ())])),
        plots=tuple(dict.fromkeys([*report.plots, *before.get("plots", ())])),
    )


@torch.no_grad()
def protocol(model: LatentVariableModel, data: Dataset) -> str:
    """Describes how the likelihood scores pixels; values of different protocols are not comparable."""
    levels, preprocessing = data.stored_facts.levels, data.transforms.preprocessing
    if levels == 2:
        return {
            "dynamic": "binary pixels, sampled with grey values as probabilities; the same bits in every evaluation",
            "threshold": "binary pixels, thresholded at half the brightness",
        }.get(data.binarization, "binary pixels")
    if levels is None:
        observed = " that are not missing" if data.stored_facts.missing else ""
        return f"continuous values: a density of the numbers in the file{observed}"
    if preprocessing is not None and preprocessing.dequantize:
        return f"{levels} levels, uniformly dequantised once per image: bits/dim are an upper bound"
    images = data.split("train")
    assert images is not None
    first = images.fetch(torch.zeros(1, dtype=torch.int64, device=model.device))
    bins = model(first, Rng(0, "protocol", device=model.device)).px.log_bins
    if bins is None:
        return f"{levels} levels without probabilities, so there are no bits/dim"
    how = "dequantised without noise: bits/dim are an upper bound" if bins else "each with its own probability"
    return f"{levels} levels, {how}"
