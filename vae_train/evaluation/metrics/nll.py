"""Importance-sampling estimate of the log-likelihood."""

import logging
import math
import sys
from dataclasses import replace
from typing import Literal

from tqdm import tqdm
from typing_extensions import override

from vae_train.evaluation.bounds import NO_MASS, POINT_MASS, subject_bounds
from vae_train.evaluation.importance import (
    Importance,
    estimate_log_likelihood,
    largest_affordable,
    samples_per_pass,
    seconds_per_sample,
)
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results, Unavailable
from vae_train.evaluation.subject import Subject
from vae_train.plotting.charts import plot_nll_curve
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from vae_train.util.text import duration

log = logging.getLogger("vae_train")


class NLL(Metric):
    """-log p(x) by importance sampling with q(z | x), with a plot of the estimate over the number of samples.

    Source: Burda et al., "Importance Weighted Autoencoders" (arXiv:1509.00519), equation 8.

    Args:
        k: K, importance samples per image; "auto" for the largest of 5000, 1000, 500, 100 that takes at most `minutes`.
        minutes: time budget of "auto".
        num_samples: as for the bound, which the plot shows too.
        enabled: whether it is measured.
    """

    outputs = (
        MetricInfo("nll", "-log p(x), importance-weighted", "nats"),
        MetricInfo("nll_bits_per_dim", "bits/dim of -log p(x)", decimals=4),
    )
    order = 10

    def __init__(
        self, k: Literal["auto"] | NonNegativeInt, minutes: PositiveFloat, num_samples: PositiveInt, enabled: bool
    ) -> None:
        super().__init__(enabled)
        self.k, self.minutes, self.num_samples = k, minutes, num_samples

    @override
    def __call__(self, subject: Subject) -> Results:
        bounds = subject_bounds(subject, self.num_samples)
        if "elbo" not in bounds:
            return self.unavailable(POINT_MASS)
        if self.k == 0:
            return self.unavailable("disabled by k=0")
        importance = self._importance(subject)
        curve = [Estimate.mean_of(-row, num_samples=k) for k, row in zip(*importance[:2], strict=True)]
        elbo = Estimate.mean_of(bounds["elbo"])
        values, errors = [e.value for e in curve], [e.se or 0.0 for e in curve]
        plot_nll_curve(importance.num_samples, values, errors, elbo.value, subject.plot_path("nll"))
        speed = f"{importance.samples_per_second:,.0f} samples/s"
        about = {"conditions": speed, "curve": [e.to_dict() for e in curve]}
        nll = replace(curve[-1], about={**curve[-1].about, **about})
        if "bits_per_dim" not in bounds:
            return {"nll": nll, "nll_bits_per_dim": Unavailable(NO_MASS)}
        # Nats and bits differ by a factor and a constant, which the estimates of the ELBO in both units show.
        size = math.prod(subject.data.facts.data_shape)
        offset = Estimate.mean_of(bounds["bits_per_dim"]).value * math.log(2) + elbo.value / size
        per_dim = (-importance.log_p[-1] / size + offset) / math.log(2)
        return {"nll": nll, "nll_bits_per_dim": Estimate.mean_of(per_dim, num_samples=importance.num_samples[-1])}

    def _importance(self, subject: Subject) -> Importance:
        model, images, device = subject.model, subject.images, subject.device
        chunk = samples_per_pass(model, images, device)
        seconds = seconds_per_sample(model, images, device, chunk, subject.seed)
        k = largest_affordable(seconds, len(images), self.minutes) if self.k == "auto" else self.k
        time = duration(seconds * k * len(images))
        log.info(
            "  -log p(x): %s importance samples for each of %s images, about %s", f"{k:,}", f"{len(images):,}", time
        )
        with tqdm(total=len(images), desc="-log p(x)", unit="", leave=False, disable=not sys.stderr.isatty()) as bar:
            return estimate_log_likelihood(
                model, images, k, seed=subject.seed, device=device, chunk=min(chunk, k), progress=bar.update
            )
