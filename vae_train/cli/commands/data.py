"""`vae data`: what a data set holds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vae_train.runs.run import OUTPUTS, new_folder, write_bad_files
from vae_train.util.errors import ErrorDetail, RunError
from vae_train.util.ranges import PositiveInt

if TYPE_CHECKING:
    from vae_train.batch import Images
    from vae_train.data.dataset import Dataset
    from vae_train.evaluation.overview import Overview

log = logging.getLogger("vae_train")

COLUMNS = 8
SHOWN = 5
"""Bad files that are named on the screen."""


@dataclass
class Settings:
    """The top of conf/data.yaml."""

    num: PositiveInt
    images: PositiveInt
    out: str | None
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """Data that is not there or cannot be preprocessed as asked, and a folder that cannot be written."""
    from vae_train.runs.build import data_errors, folder_errors
    from vae_train.util.runtime import prepare

    prepare()
    return folder_errors(cfg) + data_errors(cfg)


def run(cfg: DictConfig) -> None:
    """Prints sizes and figures, and writes pictures of what the training split looks like."""
    from vae_train.evaluation.overview import overview
    from vae_train.runs.build import loaded

    data, name = loaded(cfg), HydraConfig.get().runtime.choices["data"]
    # Figures are those of the pixels, and the contact sheet shows what a model is given.
    plain = data.split("train")
    assert plain is not None
    found = overview(plain, data.stored_facts.levels if not _drawn(data) else None, cfg.images)
    facts = _facts(data, name, found)
    _say(data, name, found, facts)
    try:
        folder = new_folder(Path(str(cfg.out)) if cfg.out else OUTPUTS / "data" / name)
        _write(folder, data, found, facts, cfg.num)
    except OSError as error:
        raise RunError(f"could not write to {error.filename}: {error.strerror or error}") from error
    log.info("look at %s: contact.png, mean.png, histogram.png, data.json", folder)


def _drawn(data: Dataset) -> bool:
    """Whether training images are bits that are drawn at every step."""
    return data.binarization == "dynamic"


def _facts(data: Dataset, name: str, found: Overview) -> dict[str, Any]:
    splits = {s: len(images) for s in ("train", "valid", "test") if (images := data.split(s)) is not None}  # type: ignore[arg-type]
    channels = found.mean.mean((1, 2))
    return {
        "data": name,
        "shape": list(data.stored_facts.data_shape),
        "levels": data.stored_facts.levels,
        "splits": splits,
        "storage": data.storage,
        "checksum": data.checksum,
        "factors": [{"name": f.name, "size": f.size} for f in data.stored_facts.factors],
        "measured_on": found.images,
        "mean": [round(value, 6) for value in channels.tolist()],
        "std": [round(value, 6) for value in found.std.tolist()],
        "entropy_floor": round(found.entropy, 4) if _drawn(data) else None,
        "bad_files": len(data.bad_files),
    }


def _say(data: Dataset, name: str, found: Overview, facts: dict[str, Any]) -> None:
    stored = data.stored_facts
    c, h, w = stored.data_shape
    levels = "continuous" if stored.levels is None else f"{stored.levels} levels"
    sizes = " / ".join(f"{count:,} {split}" for split, count in facts["splits"].items())
    log.info("%s · %dx%dx%d · %s · %s", name, h, w, c, levels, sizes)
    log.info("  pixels    %s", data.storage)
    if stored.bounds is not None and stored.levels is None:
        log.info("  range     %g to %g, which become 0 and 1", *stored.bounds)
    each = ", ".join(f"{m:.4f} ± {s:.4f}" for m, s in zip(facts["mean"], facts["std"], strict=True))
    log.info("  mean ± sd %s of %s training images, on [0, 1]", each, f"{found.images:,}")
    for factor in stored.factors:
        names = ", ".join(map(str, (factor.values or ())[:12])) + (", …" if len(factor.values or ()) > 12 else "")
        log.info("  %-9s %d values%s", factor.name, factor.size, f": {names}" if names else "")
    if facts["entropy_floor"] is not None:
        log.info("  entropy   %.2f nats per image are in the drawing of the bits: no NLL can be below", found.entropy)
    for file, why in data.bad_files[:SHOWN]:
        log.info("  bad file  %s: %s", file.encode("utf-8", "backslashreplace").decode(), why)
    if len(data.bad_files) > SHOWN:
        log.info("  bad files %s in all, see bad_files.txt", f"{len(data.bad_files):,}")


def _write(folder: Path, data: Dataset, found: Overview, facts: dict[str, Any], num: int) -> None:
    import json

    from vae_train.plotting.grid import plot_contact_sheet, plot_grid
    from vae_train.plotting.histogram import plot_pixel_histogram
    from vae_train.plotting.png import write_png

    x, texts = _examples(data, data.training(), num)
    write_png(folder / "contact.png", plot_contact_sheet(x, texts, COLUMNS))
    write_png(folder / "mean.png", plot_grid(found.mean[None], 1))
    plot_pixel_histogram(found.histogram, folder / "histogram.png")
    (folder / "data.json").write_text(json.dumps(facts, indent=2) + "\n")
    write_bad_files(folder, data.bad_files)


def _examples(data: Dataset, images: Images, num: int) -> tuple[Any, list[str]]:
    """Images that are spread over the training split, as the encoder sees them, with their labels."""
    from vae_train.batch import evenly_spaced
    from vae_train.rng import Rng

    index = evenly_spaced(len(images), num)
    batch = images.fetch(index, Rng(0, "pictures"))
    shown = batch.x if batch.encoder_input is None else batch.encoder_input
    texts = [_text(data, row.tolist()) for row in batch.y] if batch.y is not None else [""] * len(index)
    return data.to_pixels(shown), texts


def _text(data: Dataset, row: list[int]) -> str:
    """A label as words: the class's name, or the values of the factors."""
    words = []
    for factor, value in zip(data.stored_facts.factors, row, strict=False):
        name = str(factor.values[value]) if factor.values is not None else str(value)
        words.append(name if len(row) == 1 else str(value))
    return " ".join(words)
