"""Out-of-distribution detection by the ELBO."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from vae_train.evaluation.bounds import image_bounds, subject_bounds
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.subject import Subject
from vae_train.plotting.charts import plot_roc
from vae_train.util.ranges import PositiveInt

Scores = NDArray[np.float64]


class OODDetection(Metric):
    """Area under the ROC curve of detecting another data set by -ELBO, or by the distortion without an ELBO.

    Args:
        ood: name of the other data set; None disables the metric.
        num_samples: samples of z per image over which the distortion is averaged.
        enabled: whether the metric is computed.
    """

    outputs = (MetricInfo("auroc", "out-of-distribution AUROC", decimals=4, better="higher"),)
    order = 60

    def __init__(self, ood: str | None, num_samples: PositiveInt, enabled: bool) -> None:
        super().__init__(enabled and ood is not None)
        self.ood, self.num_samples = ood, num_samples

    @override
    def __call__(self, subject: Subject) -> Results:
        assert self.ood is not None
        name = Path(self.ood).name
        other, noise, size = subject.open_ood(self.ood), subject.noise("judge", "ood"), subject.batch_size
        bounds = (
            subject_bounds(subject, self.num_samples),
            image_bounds(subject.model, other, noise=noise, num_samples=self.num_samples, batch_size=size),
        )
        score = "-ELBO" if all("elbo" in b for b in bounds) else "distortion"
        normal, anomalous = ((-b["elbo"] if score == "-ELBO" else b["distortion"]).cpu() for b in bounds)
        value, se = auroc(normal, anomalous)
        title = f"AUROC {value:.3f}" + ("" if se is None else f" ± {se:.3f}")
        path = subject.plot_path(f"ood-{Path(self.ood).stem}")
        plot_roc((normal, anomalous), roc(normal, anomalous), (subject.split, name), path, title, f"{score} (nats)")
        about = {"conditions": f"{score}, ood={name}"}
        return {"auroc": Estimate(value, se, len(normal) + len(anomalous), about)}


def auroc(normal: ArrayLike, anomalous: ArrayLike) -> tuple[float, float | None]:
    """Computes the probability that an anomalous score exceeds a normal one, counting ties as half.

    It is the Mann-Whitney statistic, and the area under `roc`.

    Args:
        normal: `(N,)` scores.
        anomalous: `(M,)` scores.

    Returns:
        The value and its standard error over both data sets: None for a single score, 0 for scores that do not overlap.
        Source: DeLong et al., "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic
        Curves" (1988, doi:10.2307/2531595), equation 6.

    Raises:
        ValueError: there are no scores, or a score is NaN.
    """
    low, high = _validated(normal), _validated(anomalous)
    above, below = _share_below(low, high), 1 - _share_below(high, low)  # (M,), (N,): pairs that each score wins
    se = math.sqrt(_variance_of_mean(above) + _variance_of_mean(below))
    return float(above.mean()), None if math.isnan(se) else se


def roc(normal: ArrayLike, anomalous: ArrayLike) -> tuple[Scores, Scores]:
    """Computes the fractions of normal and of anomalous scores at or above every threshold, from high to low.

    Args:
        normal: `(N,)` scores.
        anomalous: `(M,)` scores.

    Returns:
        `(T + 1,)` false positive and true positive rates from 0 to 1, where T is the number of distinct scores.

    Raises:
        ValueError: there are no scores, or a score is NaN.
    """
    low, high = _validated(normal), _validated(anomalous)
    thresholds = np.unique(np.concatenate([low, high]))[::-1]
    false, true = (1 - np.searchsorted(np.sort(scores), thresholds) / len(scores) for scores in (low, high))
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true])


def _validated(scores: ArrayLike) -> Scores:
    values = np.asarray(scores, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"scores must have the shape (N,), not {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{np.isnan(values).sum():,} of {len(values):,} scores are NaN")
    return values


def _share_below(reference: Scores, scores: Scores) -> Scores:
    """Returns the fraction of the reference below each score, counting ties as half."""
    ordered = np.sort(reference)
    twice = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return twice / (2 * len(reference))


def _variance_of_mean(values: Scores) -> float:
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else math.nan
