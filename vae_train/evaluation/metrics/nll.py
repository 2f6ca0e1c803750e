"""Importance-sampling estimate of the log-likelihood."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Batch, Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.bounds import (
    EQUAL_SAMPLES,
    NO_MASS,
    POINT_MASS,
    bits_of_nats,
    has_equal_samples,
    subject_bounds,
)
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results, Unavailable
from vae_train.evaluation.subject import Noise, Subject
from vae_train.model.base import LatentVariableModel
from vae_train.plotting.charts import plot_nll_curve
from vae_train.rng import BlockRng
from vae_train.util.numbers import to_float64
from vae_train.util.progress import progress_bar
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt
from vae_train.util.text import duration

log = logging.getLogger("vae_train")

CURVE_NUM_SAMPLES = (1, 10, 100, 500, 1000, 5000)
"""Numbers of samples at which intermediate estimates are recorded."""

NUM_SAMPLES_CHOICES = (5000, 1000, 500, 100)
"""Numbers of samples that `largest_affordable` chooses from; papers report 5000."""

IMAGES_PER_PASS = BlockRng.BLOCK
"""Images per pass; the noise is generated in blocks of this size."""

TIMED_PASSES = 2
"""Number of timed passes, after a warm-up pass."""

TIMING = Noise(0, "judge", "timing")


class Importance(NamedTuple):
    """Estimates of log p(x) in nats: E[estimate] <= log p(x) for every number of samples."""

    num_samples: tuple[int, ...]
    """Importance samples per image, ascending."""
    log_p: Tensor
    """(len(num_samples), N) float64, an estimate for every image."""
    seconds: float
    """Duration of the estimate."""

    @property
    def samples_per_second(self) -> float:
        """Samples of z per second, over all images."""
        return self.num_samples[-1] * self.log_p.shape[1] / self.seconds


@torch.no_grad()
def estimate_log_likelihood(
    model: LatentVariableModel,
    images: Fetched,
    num_samples: int,
    *,
    noise: Noise,
    chunk: int | None = None,
    progress: Callable[[int], object] = lambda count: None,
) -> Importance:
    """Estimates log 1/K sum_k p(x, z_k) / q(z_k | x), z_k ~ q(z | x), by a streaming log-sum-exp in float64.

    Source: Burda et al., "Importance Weighted Autoencoders" (arXiv:1509.00519), equation 8.

    Args:
        model: the model.
        images: N images.
        num_samples: K, samples of z per image.
        noise: noise of z and of the binarisation. It depends on the block of images and the block of samples; `chunk`
            only affects rounding.
        chunk: samples per image and pass; None for `samples_per_pass`.
        progress: called with the number of images after every block of images.

    Returns:
        The estimates. If all samples have the same weight, see `has_equal_samples`, one sample per image is enough.
    """
    begin = time.perf_counter()
    num_samples = 1 if has_equal_samples(model) else num_samples
    points = (*(k for k in CURVE_NUM_SAMPLES if k < num_samples), num_samples)
    chunk = chunk or samples_per_pass(model, images)
    columns = []
    for start, batch in evaluation_batches(images, IMAGES_PER_PASS, model.device, noise.data):
        log_weights = (
            _log_weights(model, batch, start, first, min(chunk, num_samples - first), noise)
            for first in range(0, num_samples, chunk)
        )
        columns.append(streaming_log_mean_exp(log_weights, points).cpu())
        progress(len(batch.x))
    return Importance(points, torch.cat(columns, 1), time.perf_counter() - begin)


def streaming_log_mean_exp(chunks: Iterable[Tensor], points: Sequence[int]) -> Tensor:
    """Computes log mean exp(w) of the first k values for every k in `points`, as a stream.

    Args:
        chunks: `(K, N)` values each, of N parallel streams.
        points: numbers of values, ascending.

    Returns:
        `(len(points), N)` in float64.
    """
    total, count, means = torch.tensor(-math.inf), 0, list[Tensor]()
    for chunk in chunks:
        values = to_float64(chunk)
        total = total.to(values)
        for point in points:
            if count < point <= count + len(values):
                means.append(torch.logaddexp(total, values[: point - count].logsumexp(0)) - math.log(point))
        total, count = torch.logaddexp(total, values.logsumexp(0)), count + len(values)
    return torch.stack(means)


def samples_per_pass(model: LatentVariableModel, images: Fetched, memory: float = 2**26) -> int:
    """Returns the number of samples per image and pass, a power of two, for activations of about `memory` bytes.

    More samples would not fit the processor's caches and be slower.

    Args:
        model: the model.
        images: the images to score.
        memory: bytes.
    """
    sizes: list[int] = []

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output[0].numel())

    handles = [m.register_forward_hook(record) for m in model.modules() if not list(m.children())]
    try:
        _log_weights(model, images.fetch(torch.zeros(1, dtype=torch.int64)), 0, 0, 1, TIMING)
    finally:
        for handle in handles:
            handle.remove()
    # The factor 4 is for the activation and intermediate values of the likelihood, in float32 each.
    limit = memory / (4 * 4 * IMAGES_PER_PASS * max([*sizes, 1]))
    return 2 ** max(0, min(9, int(math.log2(max(limit, 1)))))


def seconds_per_sample(model: LatentVariableModel, images: Fetched, chunk: int) -> float:
    """Measures the seconds per image and sample of z, over a few passes of `chunk` samples."""
    device, count = model.device, min(IMAGES_PER_PASS, len(images))
    batch = images.fetch(torch.arange(count, device=device), BlockRng(0, TIMING.data, 0, device=device))

    def run(passes: int) -> None:
        for _ in range(passes):
            _log_weights(model, batch, 0, 0, chunk, TIMING)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    run(1)
    begin = time.perf_counter()
    run(TIMED_PASSES)
    return (time.perf_counter() - begin) / (TIMED_PASSES * chunk * count)


def largest_affordable(seconds: float, num_images: int, minutes: float) -> int:
    """Returns the largest of `NUM_SAMPLES_CHOICES` that takes at most `minutes`, else the smallest.

    Args:
        seconds: seconds per image and sample.
        num_images: number of images.
        minutes: the budget.
    """
    return next((k for k in NUM_SAMPLES_CHOICES if seconds * num_images * k <= 60 * minutes), NUM_SAMPLES_CHOICES[-1])


@torch.no_grad()
def _log_weights(model: LatentVariableModel, batch: Batch, start: int, first: int, count: int, noise: Noise) -> Tensor:
    """Computes log p(x, z) - log q(z | x), `(count, B)`, for samples `first` to `first` + `count`."""
    return model(batch, noise.importance(start, first, model.device), count).log_weight()


class NLL(Metric):
    """-log p(x) by importance sampling with q(z | x), with a plot of the estimate over the number of samples.

    Source: Burda et al., "Importance Weighted Autoencoders" (arXiv:1509.00519), equation 8.

    Args:
        k: K, importance samples per image; "auto" for the largest of 5000, 1000, 500, 100 that takes at most `minutes`.
        minutes: time budget of "auto".
        num_samples: samples of z per image for the ELBO, which the plot shows for comparison.
        enabled: whether the metric is computed.
    """

    outputs = (
        MetricInfo("nll", "-log p(x), importance-weighted", "nats", better="lower"),
        MetricInfo("nll_bits_per_dim", "bits/dim of -log p(x)", decimals=4, better="lower"),
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
        if has_equal_samples(subject.model):
            results: Results = {"nll": Estimate.mean_of(-bounds["elbo"], conditions=EQUAL_SAMPLES)}
            bits = bounds.get("bits_per_dim")
            return results | {"nll_bits_per_dim": Unavailable(NO_MASS) if bits is None else Estimate.mean_of(bits)}
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
        per_dim = bits_of_nats(importance.log_p[-1], bounds)
        return {"nll": nll, "nll_bits_per_dim": Estimate.mean_of(per_dim, num_samples=importance.num_samples[-1])}

    def _importance(self, subject: Subject) -> Importance:
        model, images = subject.model, subject.images
        chunk = samples_per_pass(model, images)
        seconds = seconds_per_sample(model, images, chunk)
        k = largest_affordable(seconds, len(images), self.minutes) if self.k == "auto" else self.k
        counts = f"{k:,} importance samples for each of {len(images):,} images"
        log.info("  -log p(x): %s, about %s", counts, duration(seconds * k * len(images)))
        noise = subject.noise("judge")
        with progress_bar(len(images), "-log p(x)") as bar:
            return estimate_log_likelihood(model, images, k, noise=noise, chunk=chunk, progress=bar.update)
