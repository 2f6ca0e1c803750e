"""What `vae eval` measures, part by part: each returns figures by name, None where a model cannot have one."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from vae_train.data.base import Dataset, Images
from vae_train.evaluation import plots
from vae_train.evaluation.evidence import Spread, evidence, summary
from vae_train.evaluation.importance import Importance, fitting, importance, largest_that_fits, seconds_per_draw
from vae_train.evaluation.latents import Codes, codes, decomposition, diagnosis, usage
from vae_train.model.base import LatentVariableModel, SingleLatent

log = logging.getLogger("vae_train")

MOST_CODES = 10_000
"""Images of a split whose codes are looked at."""


@dataclass
class Subject:
    """What is evaluated."""

    model: LatentVariableModel
    data: Dataset
    split: Literal["train", "valid", "test"]
    device: torch.device
    seed: int
    batch_size: int
    folder: Path
    """Where pictures go."""
    figures: dict[str, Any] = field(default_factory=dict)
    """Figures by name."""
    why: dict[str, str] = field(default_factory=dict)
    """Why those that are None are."""
    pictures: list[str] = field(default_factory=list)

    @property
    def images(self) -> Images:
        """The split."""
        found = self.data.split(self.split)
        assert found is not None
        return found

    def lacks(self, why: str, *names: str) -> None:
        """The model, or its data, has no such figures."""
        for name in names:
            self.figures[name], self.why[name] = None, why

    def picture(self, name: str) -> Path:
        """Where the picture `name` of this split goes."""
        path = self.folder / f"{self.split}-{name}.png"
        self.pictures.append(path.name)
        return path


def bound(subject: Subject, num_samples: int) -> None:
    """The ELBO and its terms, and by how much it is better on training images."""
    common: dict[str, Any] = {"seed": subject.seed, "num_samples": num_samples, "device": subject.device}
    common["batch_size"] = subject.batch_size
    found = evidence(subject.model, subject.images, **common)
    subject.figures |= found
    if found["bits_per_dim"] is None:
        subject.lacks("the likelihood is no mass of pixels with levels", "bits_per_dim")
    train = subject.data.split("train")
    if subject.split == "train" or train is None:
        return subject.lacks("this is the training split", "gap")
    there = evidence(subject.model, Spread(train, len(subject.images)), **common)["elbo"]
    here = found["elbo"]
    subject.figures["gap"] = {
        "value": there["value"] - here["value"],
        "se": math.hypot(there["se"], here["se"]),
        "count": there["count"] + here["count"],
    }
    return None


def likelihood(subject: Subject, draws: int | Literal["auto"], minutes: float) -> None:
    """-log p(x) by importance sampling, with the estimate at smaller numbers of draws as a curve."""
    if draws == 0:
        return subject.lacks("k=0 asks for none", "nll", "nll_bits_per_dim")
    model, images, device = subject.model, subject.images, subject.device
    at_once = fitting(model, images, device)
    seconds = seconds_per_draw(model, images, device, at_once, subject.seed)
    k = largest_that_fits(seconds, len(images), minutes) if draws == "auto" else draws
    log.info("  -log p(x): %s draws of z for each of %s images, about %s", f"{k:,}", f"{len(images):,}",
             _duration(seconds * k * len(images)))  # fmt: skip
    found = importance(model, images, k, seed=subject.seed, device=device, at_once=min(at_once, k))
    subject.figures["nll"] = {**summary(-found.log_p[-1]), "draws": k}
    rows = zip(found.draws, found.log_p, strict=True)
    subject.figures["nll_curve"] = [{"draws": draws, **summary(-row)} for draws, row in rows]
    subject.figures["draws_per_second"] = round(found.rate)
    _bits(subject, found)
    plots.curve(subject.figures["nll_curve"], subject.figures["elbo"], subject.picture("nll"))
    return None


def _bits(subject: Subject, found: Importance) -> None:
    """-log p(x) per dimension; nats and bits differ by a factor and a constant, which the ELBO's figures show."""
    if subject.figures["bits_per_dim"] is None:
        return subject.lacks(subject.why["bits_per_dim"], "nll_bits_per_dim")
    size = math.prod(subject.data.shape)
    offset = subject.figures["bits_per_dim"]["value"] * math.log(2) + subject.figures["elbo"]["value"] / size
    bits = (-found.log_p[-1] / size + offset) / math.log(2)
    subject.figures["nll_bits_per_dim"] = {**summary(bits), "draws": found.draws[-1]}
    return None


UNITS = ("active_units", "mutual_information", "total_correlation", "dimension_wise_kl")


def latents(subject: Subject, beta: float | None) -> Codes | None:
    """Active units, the rate's decomposition, and what is wrong with them in words; returns the codes."""
    if not isinstance(subject.model, SingleLatent):
        subject.lacks("the model has no single latent vector", *UNITS, "diagnosis")
        return None
    some = Spread(subject.images, MOST_CODES)
    found = codes(subject.model, some, seed=subject.seed, device=subject.device, batch_size=subject.batch_size)
    used = usage(found)
    subject.figures["active_units"] = {"value": used.active, "of": len(used.variance), "count": len(some)}
    subject.figures["units"] = {
        name: None if value is None else [round(v, 6) for v in value.tolist()] for name, value in used._asdict().items()
    }
    parts = decomposition(found)
    if parts is None:
        subject.lacks("the posterior or the prior is not normal", *UNITS[1:])
    else:
        for name in UNITS[1:]:
            subject.figures[name] = {"value": getattr(parts, name), "count": len(some)}
    subject.figures["diagnosis"] = diagnosis(used, subject.figures["rate"]["value"], beta)
    plots.units(used, subject.picture("latents"))
    return found


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
