"""The other data set of `vae eval ood=`."""

import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from vae_train.batch import DataFacts, Images
from vae_train.cli.hydra_compat import conf_dir
from vae_train.cli.jobs import Job
from vae_train.cli.overrides import resolved
from vae_train.data.dataset import Dataset
from vae_train.runs.build import build_source, load_data
from vae_train.runs.config import Config
from vae_train.util.errors import UsageError
from vae_train.util.text import did_you_mean

INFERRED = ("levels", "range", "layout", "units")
"""Settings of a data set that are inferred without a run."""


def ood_images(name: str, config: Config, data: Dataset, device: torch.device, job: Job) -> Images:
    """Opens another data set with the run's size and binarisation: its test images, or all images without that split.

    Args:
        name: a data set in `conf/data`, a folder of images or an array file.
        config: the run's configuration.
        data: the run's data.
        device: where the images are used.
        job: reads data and locates classes.

    Raises:
        UsageError: there is no such data, or its images differ from the run's in shape or levels.
    """
    own = data.stored_facts
    other = config.with_values({"data": _ood_node(name, config, own)})
    try:
        facts = job.session.inspect(build_source(other, job.builder))
        if (facts.data_shape, facts.levels) != (own.data_shape, own.levels):
            raise UsageError("has other images")
        loaded = load_data(other, job.session, device, job.builder)
    except UsageError as error:
        raise UsageError(_difference(other, own, job) or str(error)) from error
    images = loaded.split("test") or loaded.split("train")
    assert images is not None
    return images


def _difference(other: Config, own: DataFacts, job: Job) -> str | None:
    """How a data set, without the run's levels and layout, differs from that of the run; None if it does not.

    Args:
        other: the run's configuration with the other data.
        own: facts about the run's data.
        job: reads data and locates classes.

    Raises:
        UsageError: the data cannot be read.
    """
    free = {f"data.{name}": None for name in INFERRED if name in other["data"]}
    found = job.session.inspect(build_source(other.with_values(free), job.builder)).description
    return None if found == own.description else f"has {found}, but the run was trained on {own.description}"


def _ood_node(name: str, config: Config, facts: DataFacts) -> Config:
    """The data node of a data set, a folder or a file, with the run's size and binarisation."""
    known = sorted({path.stem for path in (conf_dir() / "data").glob("*.yaml")} - {"folder", "audio", "arrays"})
    place = Path(os.path.expanduser(name))
    kind = name if name in known else "folder" if place.is_dir() else "arrays" if place.is_file() else None
    if kind is None:
        raise UsageError(f"no such data set, folder or file{did_you_mean(name, known)} ({', '.join(known)})")
    own = config["data"]
    if facts.sample_rate is not None and name not in known:  # audio as that of the run
        return own.with_values({"root": name, "valid": 0, "test": 0})
    if kind == "arrays" and "units" in own:  # its numbers have the units of the run's
        return own.with_values({"path": name, "key": None, "labels": None, "shape": None, "valid": 0, "test": 0})
    node = resolved(OmegaConf.load(conf_dir() / "data" / f"{kind}.yaml").data)
    settings: dict[str, Any] = {"binarize": config.at("data.binarize", "none")} if "binarize" in node else {}
    if kind == "folder":  # with the run's levels, even if fewer suffice for these images
        channels, height, width = facts.data_shape
        levels = own.get("levels", facts.levels if settings["binarize"] == "none" else None)
        settings |= {"levels": levels, "range": own.get("range") if "background" in own else None}
        settings |= {"root": name, "size": [height, width], "channels": channels, "valid": 0, "test": 0}
    if kind == "arrays":
        settings |= {"path": name, "valid": 0, "test": 0}
        if settings["binarize"] == "none" and facts.levels is not None and facts.levels > 2:
            settings |= {"levels": facts.levels, "range": [0, facts.levels - 1]}
    return node.with_values(settings)
