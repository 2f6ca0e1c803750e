"""Renders a report as one HTML file that needs no network and no other file."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vae_train.runs.html_report.comparison import Comparison, compare
from vae_train.runs.html_report.contents import Contents

MARK = '<meta name="generator" content="vae report">'
"""A tag in every report, by which `vae report` recognises files that it may replace."""

ASSETS = resources.files(__package__) / "assets"

TITLES = {
    "elbo": ("ELBO", "nats"),
    "rate": ("rate", "nats"),
    "distortion": ("distortion", "nats"),
    "bits_per_dim": ("bits/dim", "bits"),
    "loss": ("loss", ""),
    "beta": ("beta", ""),
    "lr": ("learning rate", ""),
    "grad_norm": ("gradient norm", ""),
    "images_per_second": ("speed", "images/s"),
    "data_wait": ("waiting for data", "fraction"),
}
"""Titles and units of curves, in order; other metrics follow under their own names."""

MAIN = ("elbo", "rate", "distortion", "bits_per_dim")
"""Curves that are visible initially."""


def render(runs: Sequence[Contents]) -> str:
    """Renders the page of one run, or of several.

    All text from a run is escaped. A content security policy only allows the page's own script, whose digest it
    names, and no other resources.
    """
    style, script = (Markup((ASSETS / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    comparison = compare(runs) if len(runs) > 1 else None
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=_title(runs, comparison),
            mark=Markup(MARK),
            style=style,
            script=script,
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
            runs=runs,
            comparison=comparison,
            curves=curves(runs),
            written=f"{datetime.now():%Y-%m-%d %H:%M}",
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(__package__, "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _title(runs: Sequence[Contents], comparison: Comparison | None) -> str:
    return runs[0].name if comparison is None else f"{len(runs)} runs"


def curves(runs: Sequence[Contents]) -> dict[str, Any]:
    """The data that the page's script plots: the metrics, and their values in every run."""
    series = [{"name": run.name, **run.curves} for run in runs]
    found = dict.fromkeys(name for run in runs for columns in run.curves.values() for name in columns)
    names = [name for name in [*TITLES, *found] if name in found and name != "epoch"]
    metrics = []
    for name in dict.fromkeys(names):
        title, unit = TITLES.get(name, (name.replace("_", " "), ""))
        metrics.append({"key": name, "title": title, "unit": unit, "main": name in MAIN})
    return {"runs": series, "metrics": metrics}
