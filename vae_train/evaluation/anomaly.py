"""How well a score tells two data sets apart: the area under the ROC curve.

Scores are any numbers that are higher for what is less normal, -ELBO for one.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from vae_train.evaluation.evidence import Figure
from vae_train.plotting.arrays import Array, to_float_array

Scores = NDArray[np.float64]


def auroc(normal: Array, anomalous: Array) -> Figure:
    """Probability that an anomalous score is above a normal one, where half of it counts if they are equal.

    It is the statistic of Mann and Whitney, and the area under `roc`.

    Args:
        normal: `(N,)` scores.
        anomalous: `(M,)` scores.

    Returns:
        The "value", the numbers of "normal" and "anomalous" scores, and the standard error "se" over both of them, of
        DeLong, DeLong & Clarke-Pearson (1988), equation 6; NaN if one of them is a single score, and 0 if the scores do
        not overlap.

    Raises:
        ValueError: there are no scores, or a score is NaN.
    """
    low, high = _checked(normal), _checked(anomalous)
    above, below = _share_below(low, high), 1 - _share_below(high, low)  # (M,), (N,): what each score wins
    se = math.sqrt(_variance_of_mean(above) + _variance_of_mean(below))
    return {"value": float(above.mean()), "se": se, "normal": len(low), "anomalous": len(high)}


def roc(normal: Array, anomalous: Array) -> tuple[Scores, Scores]:
    """Shares of normal and of anomalous scores that a threshold calls anomalous, for every threshold from high to low.

    Args:
        normal: `(N,)` scores.
        anomalous: `(M,)` scores.

    Returns:
        `(T + 1,)` false positive and true positive rates from 0 to 1, where T is the number of different scores: those
        at or above a threshold are called anomalous.

    Raises:
        ValueError: there are no scores, or a score is NaN.
    """
    low, high = _checked(normal), _checked(anomalous)
    thresholds = np.unique(np.concatenate([low, high]))[::-1]
    false, true = (1 - np.searchsorted(np.sort(part), thresholds) / len(part) for part in (low, high))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def _checked(scores: Array) -> Scores:
    found = to_float_array(scores)
    if found.ndim != 1 or not len(found):
        raise ValueError(f"scores have the shape (N,), not {found.shape}")
    if np.isnan(found).any():
        raise ValueError(f"{np.isnan(found).sum():,} of {len(found):,} scores are NaN")
    return found


def _share_below(reference: Scores, scores: Scores) -> Scores:
    """For each of the scores, the share of the reference that lies below it, with half of what equals it."""
    ordered = np.sort(reference)
    twice = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return twice / (2 * len(reference))


def _variance_of_mean(values: Scores) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan
