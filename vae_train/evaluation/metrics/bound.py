"""The evidence lower bound and its terms."""

import math

from typing_extensions import override

from vae_train.evaluation.bounds import NO_MASS, POINT_MASS, subject_bounds
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results, Unavailable
from vae_train.evaluation.subject import Subject
from vae_train.util.ranges import PositiveInt


class Bound(Metric):
    """ELBO, rate and distortion at beta = 1, bits per dimension, and the generalisation gap.

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes" (arXiv:1312.6114); rate and distortion as in Alemi et
    al., "Fixing a Broken ELBO" (arXiv:1711.00464).

    Args:
        num_samples: samples of z per image over which the distortion is averaged.
        enabled: whether the metric is computed.
    """

    outputs = (
        MetricInfo("elbo", "ELBO (beta = 1)", "nats", better="higher"),
        MetricInfo("rate", "rate", "nats"),
        MetricInfo("distortion", "distortion", "nats", better="lower"),
        MetricInfo("bits_per_dim", "bits/dim of the ELBO", decimals=4, better="lower"),
        MetricInfo("generalization_gap", "generalisation gap (train ELBO - this ELBO)", "nats", better="lower"),
    )
    order = 0

    def __init__(self, num_samples: PositiveInt, enabled: bool) -> None:
        super().__init__(enabled)
        self.num_samples = num_samples

    @override
    def __call__(self, subject: Subject) -> Results:
        bounds = subject_bounds(subject, self.num_samples)
        missing = Unavailable(NO_MASS if "elbo" in bounds else POINT_MASS)
        *names, gap = (info.name for info in self.outputs)
        results: Results = {name: Estimate.mean_of(bounds[name]) if name in bounds else missing for name in names}
        return results | {gap: self._gap(subject, results["elbo"])}

    def _gap(self, subject: Subject, elbo: Estimate | Unavailable) -> Estimate | Unavailable:
        if isinstance(elbo, Unavailable):
            return elbo
        if subject.split == "train":
            return Unavailable("this is the training split")
        train = Estimate.mean_of(subject_bounds(subject, self.num_samples, "train")["elbo"])
        se = None if train.se is None or elbo.se is None else math.hypot(train.se, elbo.se)
        return Estimate(train.value - elbo.value, se, train.n + elbo.n)
