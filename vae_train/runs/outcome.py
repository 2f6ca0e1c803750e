"""The summary at the end of a training: the best epoch, warnings, and the files worth opening."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from vae_train.data.dataset import Dataset
from vae_train.evaluation.encodings import encode
from vae_train.evaluation.metrics.code_usage import code_usage
from vae_train.evaluation.metrics.code_usage import diagnosis as diagnosis_of_codes
from vae_train.evaluation.metrics.latent_activity import diagnosis, latent_activity
from vae_train.evaluation.metrics.layer_rates import layer_diagnosis, layer_rates, num_used
from vae_train.evaluation.subject import Noise, Subset
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.runs.build import Training, read_weights
from vae_train.runs.config import weight_of_rate
from vae_train.runs.run import Run
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.files import best_row, read_metrics
from vae_train.util.text import short_number

ENCODED_IMAGES = 1_000

RECENT_FRACTION = 0.1
"""Fraction of the validations that counts as recent."""

NOTABLE_FRACTION = 0.01
"""Fraction of the total improvement above which a change is notable."""

MIN_WORSE = 3
"""Validations after the best one that show overfitting; a single one may be worse by chance."""

MIN_VALIDATIONS = 5
"""Least number of validations from which a trend is diagnosed."""

MAX_RATE = 10.0
"""Nats per latent dimension. At this rate q is e^10 times narrower than the prior."""

FILES = (
    *("samples/final.png", "samples/manifold.png", "samples/layers.png", "reconstructions/final.png"),
    *("curves.png", "metrics.csv", "checkpoints/best.pt"),
)

Rows = Sequence[dict[str, Any]]


class LatentUse(NamedTuple):
    """How many of its latent dimensions, codes or layers a trained model uses."""

    counts: dict[str, int]
    """For the summary, with the names of `vae eval`."""
    text: str
    warning: str | None


def latent_use(run: Run, training: Training, metrics: Mapping[str, Any]) -> LatentUse:
    """Measures how many latents a model uses. Loads the weights of the best epoch into the model.

    Args:
        run: the run.
        training: the objects of the training.
        metrics: the run's summary.
    """
    data, learner, trainer = training
    if isinstance(learner.evaluated, SingleLatent):
        read_weights(learner.evaluated, run)
        diagnose = _codes if learner.evaluated.codebook is not None else _activity
        return diagnose(learner.evaluated.eval(), data, metrics, run.config, trainer.eval_batch_size)
    rates = layer_rates(best_row(read_metrics(run.metrics_file), metrics.get("best_epoch")))
    if not rates:
        return LatentUse({}, "", None)
    text = f"{num_used(rates)} of {len(rates)} layers used"
    return LatentUse({}, text, layer_diagnosis(rates, weight_of_rate(run.config)))


def outcome(run: Run, training: Training, metrics: Mapping[str, Any], rows: Rows, latents: LatentUse) -> list[str]:
    """Describes the outcome of a training in lines.

    Args:
        run: the run.
        training: the objects of the training.
        metrics: the run's summary.
        rows: its metrics.
        latents: see `latent_use`.
    """
    data, learner, trainer = training
    lines = [" · ".join(filter(None, [_headline(metrics), latents.text]))]
    lines += [latents.warning] if latents.warning else []
    epochs = trainer.epochs_of(data.facts.num_train)
    size = sum(map(math.prod, learner.model.latent_shapes))
    lines += trends(rows, size, f"vae train resume={run.as_typed} {epochs.twice}")
    if (step := learner.objective.settled_step) > epochs.last_step:
        longer = f"vae train resume={run.as_typed} {epochs.until(step)}"
        lines.append(f"the schedules of the objective are unfinished; continue with: {longer}")
    names = [name for name in FILES if (run.folder / name).exists()]
    commands = ["vae eval", "vae report"] if Checkpoints(run.checkpoints).names() else ["vae report"]
    following = " · ".join(f"{command} run={run.as_typed}" for command in commands)
    return [*lines, f"{run.folder}/", "  " + "  ".join(names), f"next: {following}"]


def latents_text(model: LatentVariableModel) -> str:
    """The number of latents of a model, and that of its stochastic layers if there are several."""
    shapes = model.latent_shapes
    text = f"{sum(map(math.prod, shapes)):,} latents"
    return f"{text} in {len(shapes)} layers" if len(shapes) > 1 else text


def _headline(metrics: Mapping[str, Any]) -> str:
    """The best epoch and its metrics; without a validation those of the last epoch's training images."""
    if "best_epoch" in metrics:
        title, prefix = f"best epoch {metrics['best_epoch']} by {metrics['best_by']}: ", "best_"
    else:
        title, prefix = "no validation; training images of the last epoch: ", "train_"
    units = {"elbo": "ELBO {} nats", "loss": "loss {}", "rate": "rate {}", "distortion": "distortion {}"}
    shown = [text.format(f"{metrics[prefix + n]:,.2f}") for n, text in units.items() if prefix + n in metrics]
    bits = metrics.get(f"{prefix}bits_per_dim")
    return title + " · ".join(shown if bits is None else [*shown, f"{bits:.3f} bits/dim"])


def _activity(
    model: SingleLatent, data: Dataset, metrics: Mapping[str, Any], config: Mapping[str, Any], batch_size: int
) -> LatentUse:
    """The number of active latent dimensions, and a warning if something is wrong with them."""
    images, noise = _judged(data, config)
    e = encode(model, images, noise=noise, batch_size=batch_size)
    activity = latent_activity(e)
    rate = metrics.get("best_rate", metrics.get("train_rate"))
    rates = None if rate is None else torch.tensor([rate])
    warning = diagnosis(activity, rates, e.p is not None, weight_of_rate(config))
    text = f"{activity.num_active} of {len(activity.variance)} latent dimensions active"
    return LatentUse({"active_units": activity.num_active}, text, warning)


def _codes(
    model: SingleLatent, data: Dataset, metrics: Mapping[str, Any], config: Mapping[str, Any], batch_size: int
) -> LatentUse:
    """The number of codes in use, and a warning if they are few."""
    images, noise = _judged(data, config)
    usage, places = code_usage(model, images, noise=noise, batch_size=batch_size)
    used = f"{usage.used:,} of {usage.total:,} codes used, perplexity {usage.perplexity:,.1f}"
    return LatentUse({"codes_used": usage.used}, used, diagnosis_of_codes(usage, len(images) * places, model))


def _judged(data: Dataset, config: Mapping[str, Any]) -> tuple[Subset, Noise]:
    """Images of the validation split, or training images without one, and their noise."""
    valid = data.split("valid")
    images = Subset(data.training() if valid is None else valid, ENCODED_IMAGES)
    return images, Noise(config["seed"], "judge", "train" if valid is None else "valid")


def trends(rows: Rows, latent_dim: int | None, more: str) -> list[str]:
    """Diagnoses runs that were still improving, overfitted, or have too high a rate.

    Args:
        rows: the run's metrics.
        latent_dim: dimensions of z, in all layers; None if they are not known.
        more: the command that continues the run.
    """
    valid, train = ([r for r in rows if (r["split"], r["scope"]) == (split, "epoch")] for split in ("valid", "train"))
    rate = valid[-1].get("rate") if valid else None
    lines = []
    if rate is not None and latent_dim is not None and rate > MAX_RATE * latent_dim:
        lines.append(
            f"the rate of {rate:,.0f} nats exceeds {MAX_RATE:g} nats per latent dimension: samples will not look like "
            "the data; raise beta, or lower lr"
        )
    values = [row["monitored"] for row in valid]
    if len(values) < MIN_VALIDATIONS:
        return lines
    best = min(range(len(values)), key=values.__getitem__)
    notable = NOTABLE_FRACTION * (values[0] - values[best])
    recent = max(1, round(RECENT_FRACTION * len(values)))
    gained, lost = min(values[:-recent]) - values[-1], values[-1] - values[best]
    if gained > notable:
        epochs = valid[-1]["epoch"] - valid[-1 - recent]["epoch"]
        when = "the last epoch" if epochs == 1 else f"the last {epochs} epochs"
        lines.append(f"still improving, by {short_number(gained)} nats in {when}; continue with: {more}")
    losses = {row["epoch"]: row["loss"] for row in train}  # damaged rows are missing
    is_fitting = losses.get(valid[-1]["epoch"], math.inf) < losses.get(valid[best]["epoch"], -math.inf)
    if is_fitting and best < len(values) - max(recent, MIN_WORSE) and lost > notable:
        lines.append(
            f"overfitting: since epoch {valid[best]['epoch']} the training loss has fallen, but validation is worse by "
            f"{short_number(lost)} nats; try trainer.patience=10, optimizer=adamw or a smaller network"
        )
    return lines
