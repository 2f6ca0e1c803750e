"""Views of a model for the report: worst and best reconstructions, and latent dimensions."""

from typing import NamedTuple

import torch

from vae_train.batch import SPLITS, Images, Split
from vae_train.data.session import DataSession
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.encodings import encode, has_real_latents
from vae_train.evaluation.examples import Example, rank_reconstructions
from vae_train.evaluation.metrics.latent_activity import ACTIVE_VARIANCE, diagnosis, latent_activity
from vae_train.evaluation.metrics.layer_rates import COLLAPSED_RATE, layer_diagnosis, layer_rates
from vae_train.evaluation.subject import Subject, Subset
from vae_train.evaluation.traversals import LatentRange, traverse
from vae_train.model.base import SingleLatent
from vae_train.runs.build import Builder, load_data, open_model
from vae_train.runs.check import checkpoint_errors, run_data_errors
from vae_train.runs.config import weight_of_rate
from vae_train.runs.fitted_priors import fingerprint
from vae_train.runs.html_report.images import EmbeddedImage, embed
from vae_train.runs.run import Run
from vae_train.util.errors import RunError, UsageError

MAX_IMAGES = 2_000
"""Maximal number of images, evenly spaced within the split."""

MAX_TRAVERSED = 8
"""Number of latent dimensions with a traversal."""

BATCH_SIZE = 256


class Options(NamedTuple):
    """What the views need besides the run."""

    session: DataSession
    builder: Builder
    device: torch.device
    split: Split | None
    """None for the test split, or else the validation or training split."""
    examples: int
    """Number of worst and of best reconstructions; 0 does not open the model."""


class ExampleView(NamedTuple):
    """An image with its reconstruction below."""

    number: int
    distortion: float
    image: EmbeddedImage


class LatentView(NamedTuple):
    """A latent dimension."""

    number: int
    kl: float | None
    """Mean KL over images in nats; None without a closed form."""
    variance: float
    """Variance over images of the posterior mean, relative to the prior's."""
    is_active: bool
    share: float
    """Length of its bar, in [0, 1]."""
    strip: EmbeddedImage | None
    """A traversal: decoded images for different values of this latent dimension."""


class LayerView(NamedTuple):
    """A stochastic layer of a model with several."""

    number: int
    rate: float
    """Mean over images in nats."""
    is_used: bool
    share: float
    """Length of its bar, in [0, 1]."""


class Views(NamedTuple):
    """The views of a model on a split of its data."""

    split: str
    images: int
    best: list[ExampleView]
    worst: list[ExampleView]
    latents: list[LatentView]
    """By descending KL; empty for models without a single latent."""
    layers: list[LayerView]
    """The topmost first; empty for models with a single latent."""
    warnings: list[str]
    weights: str
    """Fingerprint of the model."""


def make_views(run: Run, options: Options) -> Views | str:
    """Opens the model and its data; returns the reason if one of them is missing."""
    if options.examples == 0:
        return "left out by examples=0"
    try:
        errors = checkpoint_errors(run) or run_data_errors(run, run.config, options.session, options.builder)
        if errors:
            return "; ".join(f"{e.where}: {e.message}" if e.where else e.message for e in errors)
        return _views(_subject(run, options), options.examples)
    except (UsageError, RunError) as error:
        return str(error)


def _subject(run: Run, options: Options) -> Subject:
    model = open_model(run, options.device, options.builder)
    data = load_data(run.config, options.session, options.device, options.builder)
    splits = [split for split in reversed(SPLITS) if data.split(split) is not None]
    if options.split is not None and options.split not in splits:
        raise UsageError(f"this run's data has no {options.split} split")
    return Subject(
        model,
        data,
        options.split or splits[0],
        folder=run.eval,
        seed=0,
        batch_size=BATCH_SIZE,
        prior=None,
        beta=weight_of_rate(run.config),
        board=run.tensorboard,
        open_ood=_no_other_data,
    )


def _no_other_data(name: str) -> Images:
    raise UsageError(f"a report only opens the run's own data, not {name}")


def _views(subject: Subject, count: int) -> Views:
    best, worst = rank_reconstructions(subject, MAX_IMAGES, count)
    latents, layers = list[LatentView](), list[LayerView]()
    if isinstance(subject.model, SingleLatent):
        latents, warnings = _latents(subject)
    else:
        layers, warnings = _layers(subject)
    num_images = min(MAX_IMAGES, len(subject.images))
    return Views(
        subject.split,
        num_images,
        [_example(example) for example in best],
        [_example(example) for example in worst],
        latents,
        layers,
        warnings,
        fingerprint(subject.model, without=""),
    )


def _example(example: Example) -> ExampleView:
    return ExampleView(example.number, example.distortion, embed(example.images, 1))


def _layers(subject: Subject) -> tuple[list[LayerView], list[str]]:
    """The stochastic layers, and warnings about them."""
    images, noise = Subset(subject.images, MAX_IMAGES), subject.noise("judge")
    bounds = image_bounds(subject.model, images, noise=noise, batch_size=subject.batch_size)
    rates = [float(values.double().mean()) for values in layer_rates(bounds)]
    largest, warning = max([*rates, 1e-9]), layer_diagnosis(rates, subject.beta)
    views = [LayerView(n, rate, rate >= COLLAPSED_RATE, max(rate, 0) / largest) for n, rate in enumerate(rates, 1)]
    return views, [warning] if warning else []


def _latents(subject: Subject) -> tuple[list[LatentView], list[str]]:
    """The latent dimensions by descending KL, and warnings about them."""
    model, images = subject.model, Subset(subject.images, MAX_IMAGES)
    assert isinstance(model, SingleLatent)
    encodings = encode(model, images, noise=subject.noise("judge"), batch_size=subject.batch_size)
    activity = latent_activity(encodings)
    variances: list[float] = activity.variance.tolist()
    kls: list[float] | None = None if activity.kl is None else activity.kl.tolist()
    sizes = variances if kls is None else kls
    order = sorted(range(len(variances)), key=lambda number: -sizes[number])
    traversed = order[:MAX_TRAVERSED] if has_real_latents(model) else []
    reach = LatentRange.of(encodings, len(order))
    z, y = encodings.mean[0].view(model.latent_shape), None if encodings.y is None else encodings.y[:1]
    rows = traverse(model, z, traversed, reach, y=y)
    strips = {number: embed(subject.to_pixels(row), len(row)) for number, row in zip(traversed, rows, strict=True)}
    largest = max(max(sizes), 1e-9)
    warning = None
    if activity.kl is not None:
        warning = diagnosis(activity, activity.kl.sum()[None], encodings.p is not None, subject.beta)
    views = [
        LatentView(
            i,
            None if kls is None else kls[i],
            variances[i],
            variances[i] > ACTIVE_VARIANCE,
            max(sizes[i], 0) / largest,
            strips.get(i),
        )
        for i in order
    ]
    return views, [warning] if warning else []
