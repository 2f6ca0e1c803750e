"""What `vae eval` measures, part by part: each returns figures by name, None where a model cannot have one."""

from __future__ import annotations

import logging
import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from vae_train.batch import Images, evenly_spaced
from vae_train.data.dataset import Dataset
from vae_train.data.stream import evaluation_batches
from vae_train.evaluation import maps
from vae_train.evaluation.anomaly import auroc, roc
from vae_train.evaluation.disentanglement import METRICS, all_scores
from vae_train.evaluation.evidence import Figure, Subset, evidence, per_image, summary
from vae_train.evaluation.features import Features, InceptionFeatures, LabelFeatures, RandomFeatures
from vae_train.evaluation.fidelity import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    ms_ssim,
    precision_recall,
    psnr,
    ssim,
)
from vae_train.evaluation.importance import Importance, fitting, importance, largest_that_fits, seconds_per_draw
from vae_train.evaluation.latents import ACTIVE, Codes, codes, decomposition, diagnosis, usage
from vae_train.evaluation.probes import chance, knn_probe, linear_probe
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.plotting.latents import plot_latent_activity
from vae_train.plotting.maps import plot_maps
from vae_train.plotting.nll import plot_nll_curve
from vae_train.plotting.projector import plot_projector
from vae_train.plotting.roc import plot_roc
from vae_train.rng import BlockRng, Rng
from vae_train.util.text import duration

log = logging.getLogger("vae_train")

MOST_CODES = 10_000
"""Images of a split whose codes are looked at."""

MOST_PAIRS = 5_000
"""Images that are compared with their reconstructions, and samples that are compared with them."""


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
    prior: str | None = None
    """The prior that was fitted afterwards, where that has taken the place of the model's own."""
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

    @property
    def name(self) -> str:
        """What its files are called."""
        return self.split if self.prior is None else f"{self.split}-{self.prior}"

    def lacks(self, why: str, *names: str) -> None:
        """The model, or its data, has no such figures."""
        for name in names:
            self.figures[name], self.why[name] = None, why

    def has(self, name: str, value: float, count: int, se: float | None = None, **about: Any) -> None:
        """A figure: what it is, its standard error where it has one, and what it was measured on."""
        self.figures[name] = {"value": value, "se": se, "count": count, **about}

    def picture(self, name: str) -> Path:
        """Where the picture `name` goes."""
        path = self.folder / f"{self.name}-{name}.png"
        self.pictures.append(path.name)
        return path


POINT_MASS = "the posterior is a point mass, which leaves no bound"


def bound(subject: Subject, num_samples: int) -> None:
    """The ELBO and its terms, and by how much it is better on training images."""
    common: dict[str, Any] = {"seed": subject.seed, "num_samples": num_samples, "device": subject.device}
    common["batch_size"] = subject.batch_size
    found = evidence(subject.model, subject.images, **common)
    subject.figures |= found
    if found["elbo"] is None:
        return subject.lacks(POINT_MASS, "elbo", "rate", "bits_per_dim", "gap")
    if found["bits_per_dim"] is None:
        subject.lacks("the likelihood is no mass of pixels with levels", "bits_per_dim")
    train = subject.data.split("train")
    if subject.split == "train" or train is None:
        return subject.lacks("this is the training split", "gap")
    there = evidence(subject.model, Subset(train, len(subject.images)), **common)["elbo"]
    here = found["elbo"]
    se = math.hypot(there["se"], here["se"])
    return subject.has("gap", there["value"] - here["value"], there["count"] + here["count"], se)


def likelihood(subject: Subject, draws: int | Literal["auto"], minutes: float) -> None:
    """-log p(x) by importance sampling, with the estimate at smaller numbers of draws as a curve."""
    if draws == 0:
        return subject.lacks("k=0 asks for none", "nll", "nll_bits_per_dim")
    if subject.figures["elbo"] is None:
        return subject.lacks(POINT_MASS, "nll", "nll_bits_per_dim")
    model, images, device = subject.model, subject.images, subject.device
    at_once = fitting(model, images, device)
    seconds = seconds_per_draw(model, images, device, at_once, subject.seed)
    k = largest_that_fits(seconds, len(images), minutes) if draws == "auto" else draws
    log.info("  -log p(x): %s draws of z for each of %s images, about %s", f"{k:,}", f"{len(images):,}",
             duration(seconds * k * len(images)))  # fmt: skip
    with tqdm(total=len(images), desc="-log p(x)", unit="", leave=False, disable=not sys.stderr.isatty()) as bar:
        options: dict[str, Any] = {"seed": subject.seed, "device": device, "at_once": min(at_once, k)}
        found = importance(model, images, k, told=bar.update, **options)
    pace = f"{found.rate:,.0f} draws of z per second"
    subject.figures["nll"] = {**summary(-found.log_p[-1]), "draws": k, "by": pace}
    rows = zip(found.draws, found.log_p, strict=True)
    subject.figures["nll_curve"] = [{"draws": draws, **summary(-row)} for draws, row in rows]
    _bits(subject, found)
    points = subject.figures["nll_curve"]
    counts, values, errors = ([point[key] for point in points] for key in ("draws", "value", "se"))
    plot_nll_curve(counts, values, errors, subject.figures["elbo"]["value"], subject.picture("nll"))
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


PROBES = ("linear_probe", "knn_probe", "chance")
UNITS = ("active_units", "mutual_information", "total_correlation", "dimension_wise_kl")


def latents(subject: Subject, beta: float | None) -> Codes | None:
    """Active units, the rate's decomposition, and what is wrong with them in words; returns the codes."""
    if not isinstance(subject.model, SingleLatent):
        subject.lacks("the model has no single latent vector", *UNITS, "diagnosis")
        return None
    some = Subset(subject.images, MOST_CODES)
    found = codes(subject.model, some, seed=subject.seed, device=subject.device, batch_size=subject.batch_size)
    used = usage(found)
    subject.has("active_units", used.active, len(some), of=len(used.variance))
    subject.figures["units"] = {
        name: None if value is None else [round(v, 6) for v in value.tolist()] for name, value in used._asdict().items()
    }
    parts = decomposition(found)
    if parts is None:
        subject.lacks("the posterior or the prior is not normal", *UNITS[1:])
    else:
        for name in UNITS[1:]:
            part = getattr(parts, name)
            subject.has(name, part.value, len(some), part.se)
    subject.figures["diagnosis"] = diagnosis(used, found, beta)
    plot_latent_activity(used.variance, used.kl, ACTIVE, subject.picture("latents"))
    return found


def probes(subject: Subject, found: Codes | None) -> None:
    """How well the class can be read off the codes: by a linear classifier, by neighbours, and by chance."""
    train, data = subject.data.split("train"), subject.data
    if found is None or found.y is None or train is None:
        return subject.lacks("there are no labels" if found is not None else "there are no codes", *PROBES)
    if len(data.factors) > 1:
        return subject.lacks("there are several factors: the disentanglement scores are for them", *PROBES)
    assert isinstance(subject.model, SingleLatent)
    options: dict[str, Any] = {"seed": subject.seed, "device": subject.device, "batch_size": subject.batch_size}
    known = codes(subject.model, Subset(train, MOST_CODES), **options)
    assert known.y is not None
    given = (_array(known.mean), _array(known.y[:, 0]), _array(found.mean), _array(found.y[:, 0]))
    subject.figures["linear_probe"] = _counted(linear_probe(*given))
    subject.figures["knn_probe"] = _counted(knn_probe(*given))
    subject.figures["chance"] = _counted(chance(given[1], given[3]))
    return None


def mapped(subject: Subject, found: Codes | None, board: Path) -> None:
    """Two-dimensional maps of the codes as a picture, and what TensorBoard's projector shows.

    Args:
        subject: what is evaluated.
        found: its codes.
        board: the folder of TensorBoard's files.
    """
    if found is None or found.mean.shape[1] < 2:
        return
    index = evenly_spaced(len(found.mean), maps.MAX_TSNE_POINTS)
    points = _array(found.mean)[index.numpy()]
    labels = None if found.y is None else _array(found.y[:, 0])[index.numpy()]
    names = next((list(map(str, f.values)) for f in subject.data.factors[:1] if f.values is not None), None)
    plane, share = maps.pca(points)
    title = f"PCA, {100 * share.sum():.0f} % of the variance"
    drawn = [(title, plane), ("t-SNE", maps.tsne(points, subject.seed))]
    plot_maps(drawn, labels, names, subject.picture("map"))
    some = Subset(subject.images, MOST_CODES)
    x = some.fetch(index.to(subject.device)).x
    plot_projector(board, points, labels, subject.data.to_pixels(x).clamp(0, 1), names)


def disentanglement(subject: Subject, found: Codes | None) -> None:
    """MIG, SAP, DCI, FactorVAE and beta-VAE scores, modularity, where the data has factors."""
    if found is None or found.y is None or len(subject.data.factors) < 2:
        return subject.lacks("the data has no factors of variation", *METRICS)
    names = [factor.name for factor in subject.data.factors]
    scores = all_scores(_array(found.mean), _array(found.y), names, subject.seed)
    for name, figure in scores.figures.items():
        if figure is None:
            subject.lacks(scores.why[name], name)
        else:
            subject.has(name, figure["value"], int(figure["count"]))
    return None


PAIRS = ("psnr", "ssim", "ms_ssim")
SETS = ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage")


@torch.no_grad()
def fidelity(subject: Subject, inception: str | None) -> None:
    """How near reconstructions are to images, and samples to the data.

    Args:
        subject: what is evaluated.
        inception: a file with the weights of Inception v3; None for features of this data's labels, or random ones.
    """
    if min(subject.data.shape[1:]) == 1:
        return subject.lacks("the data are no images", *PAIRS, *SETS)
    real, rebuilt = _pairs(subject)
    for name, compare in (("psnr", psnr), ("ssim", ssim), ("ms_ssim", ms_ssim)):
        values = compare(rebuilt, real)
        if values is None:
            subject.lacks("the images are too small for it", name)
        else:
            subject.figures[name] = summary(values)
    features = _features(subject, inception)
    sampled = _sampled(subject, len(real))
    here, there = features(real), features(sampled)
    count, by = len(real), f"{len(sampled):,} samples, {features.name}"
    fid: dict[str, Any] = {"called": "FID"} if getattr(features, "comparable", False) else {}
    subject.has("frechet_distance", frechet_distance(here, there), count, by=by, **fid)
    kernel = kernel_distance(here, there, seed=subject.seed)
    subject.has("kernel_distance", kernel["value"], count, None if math.isnan(kernel["se"]) else kernel["se"], by=by)
    for name, value in {**precision_recall(here, there), **density_coverage(here, there)}.items():
        subject.has(name, value, count, by=by)
    return None


def _pairs(subject: Subject) -> tuple[Tensor, Tensor]:
    """Images of the split and the means of p(x | z) for one z of each, in [0, 1]."""
    real, rebuilt = list[Tensor](), list[Tensor]()
    for start, batch in evaluation_batches(Subset(subject.images, MOST_PAIRS), subject.batch_size, subject.device):
        rng = BlockRng(subject.seed, "evaluation", start, device=subject.device)
        mean = subject.model(batch, rng).px.mean[0]
        real.append(subject.data.to_pixels(batch.x).clamp(0, 1).cpu())
        rebuilt.append(subject.data.to_pixels(mean).clamp(0, 1).cpu())
    return torch.cat(real), torch.cat(rebuilt)


def _sampled(subject: Subject, count: int) -> Tensor:
    """Samples in [0, 1]: pixels where these are 0 or 1, else the means of p(x | z)."""
    found = []
    for number, start in enumerate(range(0, count, subject.batch_size)):
        rng = Rng(subject.seed, "samples", number, device=subject.device)
        px = subject.model.sample(min(subject.batch_size, count - start), rng)
        x = px.sample(rng, 1)[0] if subject.data.scored_levels == 2 else px.mean
        found.append(subject.data.to_pixels(x).clamp(0, 1).cpu())
    return torch.cat(found)


def _features(subject: Subject, inception: str | None) -> Features:
    if inception is not None:
        return InceptionFeatures(inception, subject.device)
    if subject.data.classes is None or len(subject.data.factors) > 1:
        return RandomFeatures(tuple(subject.data.shape), device=subject.device)
    return LabelFeatures(subject.data, device=subject.device)


def anomaly(subject: Subject, other: Images, name: str, num_samples: int) -> None:
    """How well the ELBO tells images of another data set from those of this split.

    Args:
        subject: what is evaluated.
        other: images of another data set.
        name: what it is called.
        num_samples: draws of z per image.
    """
    common: dict[str, Any] = {"seed": subject.seed, "num_samples": num_samples, "device": subject.device}
    columns = [per_image(subject.model, images, **common) for images in (subject.images, other)]
    bounds = [column["elbo"] for column in columns]
    score = "distortion" if None in bounds else "-ELBO"
    normal, anomalous = (_array(c["distortion"] if c["elbo"] is None else -c["elbo"]) for c in columns)
    found = auroc(normal, anomalous)
    by = f"{score} against {Path(name).name}"
    subject.has("auroc", found["value"], len(normal) + len(anomalous), found["se"], by=by)
    names = (subject.split, Path(name).name)
    error = "" if math.isnan(found["se"]) else f" ± {found['se']:.3f}"
    title, path = f"AUROC {found['value']:.3f}{error}", subject.picture(f"against-{Path(name).stem}")
    plot_roc((normal, anomalous), roc(normal, anomalous), names, path, title, f"{score} (nats)")


def _array(values: Tensor | None) -> Any:
    assert values is not None
    return values.cpu().numpy()


def _counted(found: Figure) -> dict[str, Any]:
    """An accuracy, with its number of test images under the name that all figures have it under."""
    return {"value": found["value"], "se": found["se"], "count": found["images"]}
