"""Reads the contents of a report from the folder of a run."""

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vae_train.batch import SPLITS, evenly_spaced
from vae_train.evaluation.metrics.base import Estimate
from vae_train.evaluation.report import format_value
from vae_train.runs.differences import settings_text
from vae_train.runs.html_report.evaluations import Evaluation, info_of, read_evaluations
from vae_train.runs.html_report.images import EmbeddedImage, Frame, read_frames, read_image
from vae_train.runs.html_report.views import Options, Views, make_views
from vae_train.runs.outcome import trends
from vae_train.runs.run import Run
from vae_train.training.epochs import length_setting
from vae_train.training.loggers.files import read_metrics
from vae_train.util.numbers import finite
from vae_train.util.text import duration

MAX_POINTS = 400
"""Maximal number of points of a curve; longer curves are subsampled evenly."""

TILES = {
    "elbo": "ELBO, nats",
    "bits_per_dim": "bits/dim",
    "rate": "rate, nats",
    "distortion": "distortion, nats",
    "nll": "-log p(x), nats",
    "active_units": "active latents",
}
"""Metrics at the top of the page, with short titles."""

SPLIT_NAMES = {"train": "training", "valid": "validation"}

NO_CURVES = ("step", "epoch", "split", "scope", "monitored")

STATUS = {
    "done": "",
    "running": "The training is running or was killed; the page shows what it has written so far.",
    "stopped": "The training was interrupted.",
    "failed": "The training failed.",
    "pruned": "The search ended this training early, since other trials were better.",
    "unknown": "It is unknown how the training ended: there is no summary.json.",
}


class Tile(NamedTuple):
    """A metric with its value, at the top of the page."""

    title: str
    value: str
    error: str
    """Its standard error or maximum, for instance "± 0.29" or "of 16"."""
    conditions: str


@dataclass
class Contents:
    """The contents of a report about one run."""

    name: str
    run: Run
    summary: Mapping[str, Any]
    rows: list[dict[str, Any]]
    """Rows of metrics.jsonl."""
    evaluations: list[Evaluation]
    frames: list[Frame]
    manifold: EmbeddedImage | None
    layer_samples: EmbeddedImage | None
    views: Views | None
    left_out: list[str]
    """Parts that the page lacks, with reasons."""

    @property
    def evaluation(self) -> Evaluation | None:
        """The evaluation in the headline, preferably of the best checkpoint with the model's own prior."""
        return next((e for e in self.evaluations if "elbo" in e.estimates or "distortion" in e.estimates), None)

    @property
    def estimates(self) -> Mapping[str, Estimate]:
        """The metrics of the headline, from the evaluation or, without one, from the best epoch of training."""
        if self.evaluation is not None:
            return self.evaluation.estimates
        valid = [row for row in self.rows if (row["split"], row["scope"]) == ("valid", "epoch") and "elbo" in row]
        source: Mapping[str, Any] = max(valid, key=lambda row: row["elbo"], default={})
        if f"{self._prefix}elbo" in self.summary or f"{self._prefix}distortion" in self.summary:
            source = {name: self.summary.get(f"{self._prefix}{name}") for name in TILES}
        values = {name: finite(source.get(name)) for name in TILES}
        return {name: Estimate(value, None, 0) for name, value in values.items() if value is not None}

    @property
    def _prefix(self) -> str:
        """Prefix of the summary's metrics: of the best epoch, or of training if there was no validation."""
        return "best_" if "best_epoch" in self.summary or "train_loss" not in self.summary else "train_"

    @property
    def split(self) -> str:
        """The split of `estimates`."""
        if self.evaluation is None:
            return "training" if self._prefix == "train_" else "validation"
        return SPLIT_NAMES.get(self.evaluation.name, self.evaluation.name)

    @property
    def is_lines(self) -> bool:
        """Whether the data consists of signals or vectors, which are plotted as lines."""
        facts = self.run.facts()
        return facts is not None and facts.data_shape[1] == 1

    @property
    def tiles(self) -> list[Tile]:
        """The headline's metrics."""
        tiles = []
        for name, title in TILES.items():
            if (estimate := self.estimates.get(name)) is not None:
                value, _, error = format_value(estimate, info_of(name).decimals).partition(" ")
                samples = f", K = {estimate.about['num_samples']:,}" if "num_samples" in estimate.about else ""
                conditions = f"{estimate.n:,} {self.split} images{samples}" if estimate.n else self.split
                tiles.append(Tile(title, value, error, conditions))
        return tiles

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        elbo, bits = self.estimates.get("elbo"), self.estimates.get("bits_per_dim")
        if elbo is None:
            distortion = self.estimates.get("distortion")
            if distortion is None:
                return f"{self.name} has no result yet."
            return f"{self.name} has a {self.split} distortion of {format_value(distortion, 2)} nats per image."
        per_dimension = "" if bits is None else f", or {bits.value:.3f} bits per dimension"
        return f"{self.name} reaches a {self.split} ELBO of {format_value(elbo, 2)} nats per image{per_dimension}."

    @property
    def warnings(self) -> list[str]:
        """Problems of the run, and what to try."""
        status = STATUS.get(str(self.summary["status"]), "")
        error = self.summary.get("error")
        warnings = [f"{status} {error}" if error else status] if status else []
        warnings += self._trends()
        warnings += [w for e in self.evaluations for w in e.warnings]
        evaluated = [e.weights for e in self.evaluations if e.name in SPLITS]
        if self.views is not None:
            warnings += [] if evaluated else self.views.warnings
            if any(weights and weights != self.views.weights for weights in evaluated):
                warnings.append("the evaluation is outdated: the checkpoint has changed since; run vae eval again")
        return list(dict.fromkeys(warnings))

    def _trends(self) -> list[str]:
        rows, needed = [r for r in self.rows if r["scope"] == "epoch"], {"train": "loss", "valid": "monitored"}
        rows = [row for row in rows if needed.get(row["split"]) in row and "epoch" in row]
        config, shape = self.run.config, self.run.config.at("model.latent_shape")
        size = None if shape is None else math.prod(shape)
        longer = length_setting(config.at("trainer.epochs", 0), config.at("trainer.steps"), 2)
        return trends(rows, size, f"vae train resume={self.run.as_typed} {longer}")

    @property
    def curves(self) -> dict[str, dict[str, list[float | None]]]:
        """Split -> metric -> value per epoch; "epoch" is one of the metrics."""
        rows = [row for row in self.rows if row["scope"] == "epoch" and "epoch" in row]
        return {split: _columns([row for row in rows if row["split"] == split]) for split in ("train", "valid")}

    @property
    def timing(self) -> list[tuple[str, str]]:
        """Duration and speed of the training."""
        seconds, rows = finite(self.summary.get("seconds")), [row for row in self.rows if row["scope"] == "epoch"]
        names = ("images_per_second", "data_wait", "epoch", "step")
        speeds, waits, epochs, steps = ([row[name] for row in rows if name in row] for name in names)
        entries = [
            ("training time", duration(seconds) if seconds is not None else ""),
            ("epochs", f"{max(epochs):,.0f}" if epochs else ""),
            ("steps", f"{max(steps):,.0f}" if steps else ""),
            ("speed, median", f"{statistics.median(speeds):,.0f} images/s" if speeds else ""),
            ("waiting for data", f"{statistics.mean(waits):.0%}" if waits else ""),
            ("execution", str(self.summary.get("execution", ""))),
            ("best epoch", _best_epoch(self.summary)),
        ]
        return [(name, value) for name, value in entries if value]

    @property
    def environment(self) -> list[tuple[str, str]]:
        """Hardware and software of the run."""
        recorded = self.run.environment()
        packages = recorded.get("packages")
        git = recorded.get("git")
        shown = {
            key: recorded.get(key) for key in ("started", "device", "device_name", "threads", "python", "platform")
        }
        shown |= packages if isinstance(packages, dict) else {}
        if isinstance(git, dict):
            shown["commit"] = f"{git.get('commit')}{' with changes' if git.get('dirty') else ''}"
        shown["data checksum"] = recorded.get("data_checksum")
        return [(str(key), str(value)) for key, value in shown.items() if value not in (None, "")]

    @property
    def settings(self) -> dict[str, str]:
        """Every setting by its dotted path."""
        return settings_text(self.run.config)

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Commands that started the run, and that reproduce and use it."""
        run, recorded = self.run.as_typed, self.run.environment().get("command")
        commands = [
            ("train it again and compare the metrics", f"vae reproduce run={run}"),
            ("evaluate it", f"vae eval run={run}"),
            ("sample from it", f"vae sample run={run} num=64"),
        ]
        if isinstance(recorded, list) and len(recorded) > 1:
            commands.insert(0, ("how it was started", "vae " + shlex.join(map(str, recorded[1:]))))
        return commands


def read_contents(run: Run, name: str, options: Options, frames: int) -> Contents:
    """Reads a run's folder and, for its examples and latents, opens its model and data.

    Args:
        run: the run.
        name: its name on the page.
        options: see `Options`.
        frames: maximal number of image grids over the epochs.
    """
    views, rows, evaluations = make_views(run, options), _read_rows(run), read_evaluations(run)
    grids = read_frames(run.samples, run.folder / "reconstructions", frames)
    left_out = [f"Worst and best reconstructions, and latent dimensions: {views}"] if isinstance(views, str) else []
    left_out += [] if evaluations else [f"An evaluation: run vae eval run={run.as_typed} first"]
    left_out += [] if rows else [f"Curves: {run.metrics_file.name} is missing or empty"]
    left_out += [] if grids else ["Samples and reconstructions: none written yet"]
    return Contents(
        name,
        run,
        run.summary(),
        rows,
        evaluations,
        grids,
        read_image(run.samples / "manifold.png"),
        read_image(run.samples / "layers.png"),
        None if isinstance(views, str) else views,
        [*left_out, *run.damage],
    )


def _read_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, which is not trusted: only "split", "scope" and finite numbers are kept."""
    return [
        {"split": str(row.get("split")), "scope": str(row.get("scope"))}
        | {name: value for name, value in row.items() if finite(value) is not None}
        for row in read_metrics(run.metrics_file)
    ]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Values of the metrics by name, from evenly spaced rows; None if a row lacks a metric."""
    rows = [rows[number] for number in evenly_spaced(len(rows), MAX_POINTS).tolist()] if rows else []
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in NO_CURVES]
    return {name: [row.get(name) for row in rows] for name in ("epoch", *names)} if rows else {}


def _best_epoch(summary: Mapping[str, Any]) -> str:
    return f"{summary['best_epoch']}, by {summary.get('best_by', 'the last')}" if "best_epoch" in summary else ""
