"""`vae data`: inspects a data set."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_train.batch import SPLITS, Factor, evenly_spaced
from vae_train.cli.jobs import Job
from vae_train.cli.schema import inactive_errors
from vae_train.data.dataset import Dataset
from vae_train.evaluation.overview import Overview, overview
from vae_train.plotting.charts import plot_counts, plot_pixel_histogram
from vae_train.plotting.grid import MIN_SINGLE_SIDE, channels_note, grey_out, plot_contact_sheet, plot_grid
from vae_train.plotting.png import PlotFormat, write_png
from vae_train.rng import Rng
from vae_train.runs.build import load_data
from vae_train.runs.check import data_errors
from vae_train.runs.files import RunFiles
from vae_train.runs.run import OUTPUTS, folder_errors, new_folder, write_bad_files, write_json
from vae_train.util.errors import ErrorDetail, RunError
from vae_train.util.ranges import PositiveInt

log = logging.getLogger("vae_train")

COLUMNS, CLASS_COLUMNS = 8, 10
"""Columns of the contact sheet, and of the mean images of classes."""
MAX_BAD_FILES = 5
"""Number of bad files that are printed."""
MAX_CLASSES = 64
"""Number of classes whose mean image is shown."""
MAX_VALUES = 12
"""Number of values of a factor that are printed."""


@dataclass
class Settings:
    """The top-level settings of conf/data.yaml."""

    num: PositiveInt
    images: PositiveInt
    format: PlotFormat
    out: str | None


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports data that is missing or cannot be preprocessed as configured, and a folder that cannot be written."""
    errors = folder_errors(settings.out) + inactive_errors(job.overrides, job.config)
    return errors + data_errors(job.config, job.session, job.builder)


def run(settings: Settings, job: Job) -> None:
    """Prints sizes and statistics, and writes them to a new folder with plots of the training split."""
    name, data = job.choices["data"], load_data(job.config, job.session, torch.device("cpu"), job.builder)
    train = data.split("train")
    assert train is not None
    levels = None if data.binarization == "dynamic" else data.stored_facts.levels
    statistics = overview(train, levels, data.to_pixels, settings.images)
    summary = _summary(data, name, statistics)
    _log_summary(data, summary, statistics)
    try:
        folder = Path(settings.out) if settings.out else new_folder(OUTPUTS / "data" / name)
        folder.mkdir(parents=True, exist_ok=True)
        write_png(folder / "contact.png", plot_contact_sheet(*_examples(data, settings.num), COLUMNS))
        write_png(folder / "mean.png", plot_grid(statistics.mean[None], 1, MIN_SINGLE_SIDE))
        plot_pixel_histogram(statistics.histogram, folder / f"histogram.{settings.format}")
        _write_classes(data, statistics, folder, settings.format)
        write_json(folder / "data.json", summary)
        write_bad_files(RunFiles(folder).bad_files, data.bad_files)
    except OSError as error:
        raise RunError(f"could not write to {error.filename}: {error.strerror or error}") from error
    names = sorted(path.name for path in folder.iterdir() if path.suffix in (".png", f".{settings.format}"))
    log.info("wrote %s and data.json to %s", ", ".join(names), folder)


def _write_classes(data: Dataset, statistics: Overview, folder: Path, kind: PlotFormat) -> None:
    """Plots the number of images and the mean image of every class; does nothing without classes."""
    if not statistics.class_means:
        return
    factor = data.stored_facts.factors[0]
    names = [_label((factor,), [label]) for label in range(factor.size)]
    plot_counts(names, _class_counts(data), folder / f"classes.{kind}")
    means = list(statistics.class_means.items())[:MAX_CLASSES]
    sheet = plot_contact_sheet(torch.stack([m for _, m in means]), [names[label] for label, _ in means], CLASS_COLUMNS)
    write_png(folder / "class-means.png", sheet)


def _class_counts(data: Dataset) -> dict[str, list[int]]:
    """The number of images of every class in each split; empty for images without classes."""
    factors, counts = data.stored_facts.factors, dict[str, list[int]]()
    for split in SPLITS:
        if data.split(split) is not None and (y := data.labels(split)) is not None and y.shape[1] == 1:
            counts[split] = y[:, 0].bincount(minlength=factors[0].size).tolist()
    return counts


def _summary(data: Dataset, name: str, statistics: Overview) -> dict[str, Any]:
    facts = data.stored_facts
    return {
        "data": name,
        "shape": list(facts.data_shape),
        "levels": facts.levels,
        "splits": {split: len(images) for split in SPLITS if (images := data.split(split)) is not None},
        "storage": data.storage,
        "checksum": data.checksum,
        "factors": [{"name": factor.name, "size": factor.size} for factor in facts.factors],
        "class_counts": _class_counts(data),
        "measured_on": statistics.images,
        "mean": [round(value, 6) for value in statistics.mean.mean((1, 2)).tolist()],
        "std": [round(value, 6) for value in statistics.std.tolist()],
        "missing": round(statistics.missing, 6) if facts.missing else None,
        "entropy_floor": round(statistics.entropy, 4) if data.binarization == "dynamic" else None,
        "bad_files": len(data.bad_files),
        "notes": list(data.notes),
    }


def _log_summary(data: Dataset, summary: dict[str, Any], statistics: Overview) -> None:
    facts = data.stored_facts
    channels, height, width = facts.data_shape
    levels = "continuous" if facts.levels is None else f"{facts.levels} levels"
    sizes = " / ".join(f"{count:,} {split}" for split, count in summary["splits"].items())
    log.info("%s · %dx%dx%d · %s · %s", summary["data"], height, width, channels, levels, sizes)
    log.info("  pixels    %s", data.storage)
    if note := channels_note(facts.data_shape):
        log.info("  channels  %s", note)
    if facts.units is not None and facts.levels is None:
        low, high = min(facts.units.low), max(facts.units.high)
        how = " scaled per column," if facts.column_shape else ""
        log.info("  range     %g to %g,%s shown as 0 to 1", low, high, how)
    moments = ", ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(summary["mean"], summary["std"], strict=True))
    log.info("  mean ± sd %s over %s training images, in [0, 1]", moments, f"{statistics.images:,}")
    if facts.missing:
        log.info("  missing   %.2f %% of the values of these images; left out", 100 * statistics.missing)
    for factor in facts.factors:
        values = factor.values or ()
        names = ", ".join(map(str, values[:MAX_VALUES])) + (", …" if len(values) > MAX_VALUES else "")
        log.info("  %-9s %d values%s", factor.name, factor.size, f": {names}" if names else "")
    if summary["entropy_floor"] is not None:
        log.info("  entropy   dynamic binarisation adds %.2f nats/image, the least possible NLL", statistics.entropy)
    for note in data.notes:
        log.info("  note      %s", note)
    for file, reason in data.bad_files[:MAX_BAD_FILES]:
        log.info("  bad file  %s: %s", file, reason)
    if len(data.bad_files) > MAX_BAD_FILES:
        log.info("  bad files %s in total; see bad_files.txt", f"{len(data.bad_files):,}")


def _examples(data: Dataset, num: int) -> tuple[Tensor, list[str]]:
    """Evenly spaced training images as the encoder sees them, and their labels."""
    images = data.examples()
    index = evenly_spaced(len(images), num)
    batch = images.fetch(index, Rng(0, "pictures"))
    shown = batch.x if batch.encoder_input is None else batch.encoder_input
    labels = [[]] * len(index) if batch.y is None else batch.y.tolist()
    return grey_out(data.to_pixels(shown), batch.mask), [_label(data.stored_facts.factors, row) for row in labels]


def _label(factors: tuple[Factor, ...], row: list[int]) -> str:
    """The name of the class, or the values of the factors."""
    if len(row) == 1 and factors and factors[0].values is not None:
        return str(factors[0].values[row[0]])
    return " ".join(map(str, row))
