"""The evidence lower bound and its terms."""

from __future__ import annotations

import math

from typing_extensions import override

from vae_train.evaluation.bounds import estimate_bounds, subject_bounds, train_bounds
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results, Unavailable
from vae_train.evaluation.requirements import has_density
from vae_train.evaluation.subject import Subject
from vae_train.util.ranges import PositiveInt


class Bound(Metric):
    """ELBO, rate and distortion at beta = 1, bits per dimension, and how much better the ELBO of training images is.

    Source: Kingma & Welling, "Auto-Encoding Variational Bayes" (arXiv:1312.6114); rate and distortion as in Alemi et
    al., "Fixing a Broken ELBO" (arXiv:1711.00464).

    Args:
        num_samples: samples of z per image that the distortion is averaged over.
        enabled: whether it is measured.
    """

    outputs = (
        MetricInfo("elbo", "ELBO (beta = 1)", "nats"),
        MetricInfo("rate", "rate", "nats"),
        MetricInfo("distortion", "distortion", "nats"),
        MetricInfo("bits_per_dim", "bits/dim of the ELBO", decimals=4),
        MetricInfo("generalization_gap", "generalisation gap (train ELBO - this ELBO)", "nats"),
    )
    order = 0

    def __init__(self, num_samples: PositiveInt, enabled: bool) -> None:
        super().__init__(enabled)
        self.num_samples = num_samples

    @override
    def __call__(self, subject: Subject) -> Results:
        estimates = estimate_bounds(subject_bounds(subject, self.num_samples))
        missing = Unavailable(has_density(subject) or "the likelihood is not a probability mass of discrete pixels")
        results: Results = {name: estimate or missing for name, estimate in estimates.items()}
        return results | {"generalization_gap": self._gap(subject, results["elbo"])}

    def _gap(self, subject: Subject, elbo: Estimate | Unavailable) -> Estimate | Unavailable:
        if isinstance(elbo, Unavailable):
            return elbo
        if subject.split == "train":
            return Unavailable("this is the training split")
        train = estimate_bounds(train_bounds(subject, self.num_samples))["elbo"]
        assert train is not None
        se = None if train.se is None or elbo.se is None else math.hypot(train.se, elbo.se)
        return Estimate(train.value - elbo.value, se, train.n + elbo.n)
