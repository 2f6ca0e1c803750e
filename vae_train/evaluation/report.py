"""Formats reports as lines for the terminal and as Markdown tables."""

from vae_train.evaluation.metrics.base import Estimate, MetricInfo
from vae_train.evaluation.suite import Report


def format_value(estimate: Estimate, decimals: int) -> str:
    """Formats a value with its standard error, or with its maximum."""
    text = _fixed(estimate.value, decimals)
    if "of" in estimate.about:
        return f"{text} of {estimate.about['of']}"
    return text if estimate.se is None else f"{text} ± {_fixed(estimate.se, decimals)}"


def _fixed(value: float, decimals: int) -> str:
    """Formats a number, without a sign if it rounds to zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def format_conditions(estimate: Estimate) -> str:
    """Formats the conditions of a value: the number of images, K, and others."""
    parts = [f"{estimate.n:,} images"]
    if "num_samples" in estimate.about:
        parts.append(f"K = {estimate.about['num_samples']:,}")
    return ", ".join([*parts, *([estimate.about["conditions"]] if "conditions" in estimate.about else [])])


def lines(report: Report) -> list[str]:
    """Formats a report for the terminal: one line per estimate, then protocol and warnings."""
    rows = [
        (_label(info, estimate), format_value(estimate, info.decimals), format_conditions(estimate))
        for info in report.infos
        if (estimate := report.estimates.get(info.name))
    ]
    width = max((len(label) for label, _, _ in rows), default=0)
    table = [f"{label:<{width}}  {value:<20} {conditions}" for label, value, conditions in rows]
    return [_title(report), *table, report.protocol, *report.warnings]


def markdown(name: str, report: Report) -> str:
    """Formats a report as a Markdown page: every estimate, and the reasons for missing ones."""
    rows = [f"# {name}: {_title(report)}", "", f"{report.protocol}.", ""]
    rows += ["| metric | value | conditions |", "| --- | --- | --- |"]
    for info in report.infos:
        estimate = report.estimates.get(info.name)
        if estimate is not None:
            value, conditions = format_value(estimate, info.decimals), format_conditions(estimate)
            rows.append(f"| {_label(info, estimate)} | {value} | {conditions} |")
    titles: dict[str, list[str]] = {}
    for info in report.infos:
        if (reason := report.unavailable.get(info.name)) is not None:
            titles.setdefault(reason, []).append(info.title)
    if titles:
        reasons = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in titles.items())
        rows += ["", f"Not available: {reasons}"]
    for warning in report.warnings:
        rows += ["", f"**{warning}**"]
    rows += ["", *(f"[{plot}]({plot})" if plot.endswith(".pdf") else f"![]({plot})" for plot in report.plots)]
    return "\n".join(rows).rstrip() + "\n"


def _title(report: Report) -> str:
    return report.split + (f", prior={report.prior}" if report.prior else "")


def _label(info: MetricInfo, estimate: Estimate) -> str:
    """Returns the title with the unit; an estimate may replace the title."""
    return info._replace(title=estimate.about.get("title", info.title)).label
