"""Means over a split, and the check that every metric is finite."""

from __future__ import annotations

import math

import torch

from vae_train.batch import Images
from vae_train.data.stream import evaluation_batches
from vae_train.training.background import Output
from vae_train.training.learner import Learner
from vae_train.training.meter import Meter, wide
from vae_train.util.errors import RunError


def validate(learner: Learner, images: Images, batch_size: int, step: int) -> dict[str, float]:
    """Means of the learner's scalars over the images of a split.

    Args:
        learner: evaluates the batches.
        images: the split.
        batch_size: images at a time; the last batch may have fewer.
        step: number of updates so far.
    """
    total, names = torch.zeros((), device=learner.device), list[str]()
    for start, batch in evaluation_batches(images, batch_size, learner.device):
        scalars = learner.evaluate(batch, start, step)
        names, total = list(scalars), total + wide(torch.stack(list(scalars.values()))) * len(batch.x)
    return dict(zip(names, (total / len(images)).tolist(), strict=True))


def check_steps(meter: Meter, gradient_norm: float, step: int, output: Output) -> None:
    """Ends the run if a metric of a step since the last row is NaN or infinite.

    A gradient that is not finite shows in the metrics of the next step, so that only the last one needs a look.

    Args:
        meter: has the metrics of the steps.
        gradient_norm: of the last step.
        step: number of updates so far.
        output: writes what is left to write.

    Raises:
        RunError: names the step, the terms, the last checkpoint and what to try.
    """
    steps_ago, names = meter.first_bad() or (0, [])
    if names or not math.isfinite(gradient_norm):
        raise RunError(_message(names or ["grad_norm"], f"at step {step - steps_ago:,}", output))


def check_validation(row: dict[str, float], step: int, output: Output) -> None:
    """Ends the run if a metric of the validation after step `step` is NaN or infinite; see `check_steps`."""
    names = [name for name, value in row.items() if not math.isfinite(value)]
    if names:
        raise RunError(_message(names, f"in the validation after step {step:,}", output))


def _message(names: list[str], where: str, output: Output) -> str:
    output.finish()
    saved = output.checkpoints.names()
    good = f"the last good checkpoint is {output.checkpoints.path(saved[0])}" if saved else "there is no checkpoint yet"
    terms = [name for name in names if name in ("distortion", "rate")] or names
    return (
        f"{' and '.join(terms)} became NaN or infinite {where}; {good}. Try a lower lr=, "
        "learner.clip_norm=1, a warm-up (lr_schedule.warmup=1) or precision=float32"
    )
