"""Metrics of samples: distances and neighbourhoods of features of samples and real images."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.samples import feature_sets, image_data, min_images
from vae_train.evaluation.subject import Subject
from vae_train.rng import generator
from vae_train.util.errors import RunError

CHUNK_ROWS = 1000
"""Rows of the distance matrix per pass: 80 MB for 10,000 columns."""

ROUNDING = 1e-12
"""Tolerance for equal squared distances, relative to the largest squared norm."""


TRUSTED_RATIO = 10
"""Images per feature dimension above which the bias of the Fréchet distance is small."""


class SampleMetric(Metric):
    """A comparison of samples with real images by their features. Subclasses define `outputs` and `compare`.

    Args:
        inception: file with weights of Inception v3; None for features learned from the data's labels.
        enabled: whether the metric is computed.
    """

    requires = (image_data, min_images(2))
    fid_title: ClassVar[str | None] = None
    """Its title with the features that define FID."""

    def __init__(self, inception: str | None, enabled: bool) -> None:
        super().__init__(enabled)
        self.inception = inception

    @override
    def __call__(self, subject: Subject) -> Results:
        real, sampled, features = feature_sets(subject, self.inception)
        caution = self.caution(min(len(real), len(sampled)), real.shape[1])
        about: dict[str, Any] = {"conditions": f"{len(sampled):,} samples, {features.name}{caution}"}
        if features.is_fid and (title := self.fid_title):
            about["title"] = title
        values = self.compare(real, sampled, subject.seed)
        return {name: Estimate(value, se, len(real), about) for name, (value, se) in values.items()}

    def caution(self, count: int, size: int) -> str:
        """Warns if a value cannot be trusted at this number of images; empty if it can.

        Args:
            count: number of images.
            size: dimension of the features.
        """
        return ""

    @abstractmethod
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        """Compares features `(N, d)` of real images and samples; returns value and standard error by output."""


def validated(real: Tensor, sampled: Tensor, minimum: int) -> tuple[Tensor, Tensor]:
    """Returns the features in float64.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        minimum: least number of each.

    Raises:
        ValueError: they cannot be compared, or are too few.
        RunError: some are not finite, as for a model that has diverged.
    """
    if real.ndim != 2 or sampled.ndim != 2 or real.shape[1] != sampled.shape[1]:
        raise ValueError(f"features must be (N, d) and (M, d), not {tuple(real.shape)} and {tuple(sampled.shape)}")
    if min(len(real), len(sampled)) < minimum:
        raise ValueError(f"needs at least {minimum} real images and samples, got {len(real)} and {len(sampled)}")
    for name, features in (("real images", real), ("samples", sampled)):
        if not features.isfinite().all():
            raise RunError(f"the features of the {name} are not finite")
    return real.double(), sampled.double()


class FrechetDistance(SampleMetric):
    """Fréchet distance of samples; only called FID with the features that define FID.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium"
    (arXiv:1706.08500), equation 6.
    """

    outputs = (MetricInfo("frechet_distance", "Fréchet distance of samples", better="lower"),)
    order = 53
    fid_title = "FID"

    @override
    def caution(self, count: int, size: int) -> str:
        return "" if count >= TRUSTED_RATIO * size else f"; biased upwards: {count:,} images are too few"

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {"frechet_distance": (frechet_distance(real, sampled), None)}


def frechet_distance(real: Tensor, sampled: Tensor) -> float:
    """Computes |m - m'|² + tr(S + S' - 2 (S S')^½), the squared 2-Wasserstein distance of two Gaussians.

    m and S are the mean and covariance of the features. The estimate has an upward bias that decreases with N.

    The root of a covariance is avoided. With centred features A and A', S = Aᵀ A and S' = A'ᵀ A', and the trace of the
    root is the sum of the singular values of A A'ᵀ, which is accurate even for fewer images than features.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
    """
    real, sampled = validated(real, sampled, minimum=2)
    shift = (real.mean(0) - sampled.mean(0)).square().sum()
    first, second = _root(real), _root(sampled)  # (min(N, d), d), (min(M, d), d)
    shared = torch.linalg.svdvals(first @ second.T).sum()
    distance = shift + first.square().sum() + second.square().sum() - 2 * shared
    return max(0.0, distance.item())


def _root(features: Tensor) -> Tensor:
    """Returns a triangular R with Rᵀ R = the covariance of the features (divided by N - 1)."""
    centered = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(centered, mode="r").R


class KernelDistance(SampleMetric):
    """Kernel distance of samples.

    Source: Binkowski et al., "Demystifying MMD GANs" (arXiv:1801.01401), section 4.
    """

    outputs = (MetricInfo("kernel_distance", "kernel distance of samples", decimals=5, better="lower"),)
    order = 54

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {"kernel_distance": kernel_distance(real, sampled, seed=seed)}


def kernel_distance(
    real: Tensor, sampled: Tensor, *, seed: int = 0, num_subsets: int = 100, subset_size: int = 1000
) -> tuple[float, float | None]:
    """Computes the unbiased squared maximum mean discrepancy with the kernel (a · b / d + 1)³, averaged over subsets.

    Its expectation is 0 if both sets come from one distribution, whatever N is; single values may be negative.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        seed: seed of the subsets, which are sampled without replacement.
        num_subsets: number of subsets.
        subset_size: images and samples in a subset; at most N and M.

    Returns:
        The value and its standard error over the subsets. The error is too small if subsets overlap, as for more
        subsets than N / subset_size, and None if every subset has all features.
    """
    real, sampled = validated(real, sampled, minimum=2)
    size = min(subset_size, len(real), len(sampled))
    if size == max(len(real), len(sampled)):
        return _discrepancy(real, sampled), None
    source = generator(seed, "kernel distance")
    pairs = ((_subset(real, size, source), _subset(sampled, size, source)) for _ in range(num_subsets))
    values = torch.tensor([_discrepancy(*pair) for pair in pairs], dtype=torch.float64)
    return values.mean().item(), values.std().item() / math.sqrt(num_subsets) if num_subsets > 1 else None


def _subset(features: Tensor, size: int, source: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=source)[:size].to(features.device)]


def _discrepancy(x: Tensor, y: Tensor) -> float:
    """Computes the unbiased MMD² of `(n, d)` and `(m, d)`, which excludes the kernel of a feature with itself."""
    within = sum(_mean_off_diagonal(_kernel(features, features)) for features in (x, y))
    return within - 2 * _kernel(x, y).mean().item()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3  # (n, m)


def _mean_off_diagonal(k: Tensor) -> float:
    return (k.sum() - k.trace()).item() / (len(k) * (len(k) - 1))


class PrecisionRecall(SampleMetric):
    """Fractions of samples near real images (precision) and of real images near samples (recall).

    Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models"
    (arXiv:1904.06991), equations 1 and 2.
    """

    outputs = (
        MetricInfo("precision", "precision of samples", decimals=3, better="higher"),
        MetricInfo("recall", "recall of samples", decimals=3, better="higher"),
    )
    requires = (image_data, min_images(4))
    order = 55

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {name: (value, None) for name, value in precision_recall(real, sampled).items()}


def precision_recall(real: Tensor, sampled: Tensor, *, k: int = 3, chunk: int = CHUNK_ROWS) -> dict[str, float]:
    """Computes the fraction of each set that lies within the other's support.

    The support of a set is the union of closed balls around its features, each up to the k-th nearest neighbour. One
    outlier creates a large ball; density and coverage avoid this.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        k: the neighbour that defines the radius of a ball.
        chunk: rows of the distance matrix per pass; does not affect the result.

    Returns:
        "precision" (quality) and "recall" (variety), between 0 and 1.
    """
    real, sampled, slack = _centered(real, sampled, minimum=k + 1)
    return {
        "precision": _share_covered(sampled, real, _squared_radii(real, k, chunk) + slack, chunk),
        "recall": _share_covered(real, sampled, _squared_radii(sampled, k, chunk) + slack, chunk),
    }


def _share_covered(points: Tensor, centers: Tensor, radii: Tensor, chunk: int) -> float:
    """Computes the fraction of points `(n, d)` within a ball around any centre `(m, d)`, with squared radii `(m,)`."""
    covered = sum(int((squares <= radii).any(1).sum()) for _, squares in _squared_distances(points, centers, chunk))
    return covered / len(points)


class DensityCoverage(SampleMetric):
    """Density and coverage: like precision and recall, but robust to outliers.

    Source: Naeem et al., "Reliable Fidelity and Diversity Metrics for Generative Models" (arXiv:2002.09797), equations
    5 and 6.
    """

    outputs = (
        MetricInfo("density", "density of samples", decimals=3, better="higher"),
        MetricInfo("coverage", "coverage of samples", decimals=3, better="higher"),
    )
    requires = (image_data, min_images(6))
    order = 56

    @override
    def compare(self, real: Tensor, sampled: Tensor, seed: int) -> dict[str, tuple[float, float | None]]:
        return {name: (value, None) for name, value in density_coverage(real, sampled).items()}


def density_coverage(real: Tensor, sampled: Tensor, *, k: int = 5, chunk: int = CHUNK_ROWS) -> dict[str, float]:
    """Counts samples in open balls around real images, each up to the k-th nearest neighbour.

    The balls are open, as in the authors' code, so that equal sets have density 1 and coverage 1.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        k: the neighbour that defines the radius of a ball.
        chunk: rows of the distance matrix per pass; does not affect the result.

    Returns:
        "density", the mean number of balls around a sample divided by k, which may exceed 1; "coverage", the fraction
        of balls that contain a sample.
    """
    real, sampled, slack = _centered(real, sampled, minimum=k + 1)
    radii, inside, covered = _squared_radii(real, k, chunk) - slack, 0, 0
    for start, squares in _squared_distances(real, sampled, chunk):
        within = squares < radii[start : start + len(squares), None]  # (n, M)
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    return {"density": inside / (k * len(sampled)), "coverage": covered / len(real)}


def _centered(real: Tensor, sampled: Tensor, minimum: int) -> tuple[Tensor, Tensor, float]:
    """Subtracts the common mean, for more precise squared distances, and returns the remaining rounding error.

    With this error as slack, equal images have equal distances in spite of rounding.
    """
    real, sampled = validated(real, sampled, minimum)
    mean = (real.mean(0) + sampled.mean(0)) / 2
    real, sampled = real - mean, sampled - mean
    largest = max(features.square().sum(1).max().item() for features in (real, sampled))
    return real, sampled, ROUNDING * largest


def _squared_distances(x: Tensor, y: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Yields |x_i - y_j|² `(chunk, M)` for consecutive chunks of x, with the index of the first row of each."""
    norms = y.square().sum(1)
    for start in range(0, len(x), chunk):
        rows = x[start : start + chunk]
        squares = torch.addmm(norms.expand(len(rows), -1), rows, y.T, alpha=-2)
        yield start, squares.add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)


def _squared_radii(features: Tensor, k: int, chunk: int) -> Tensor:
    """Returns the squared distance of each feature to its k-th nearest neighbour, `(N,)`."""
    nearest = (squares.kthvalue(k + 1, dim=1).values for _, squares in _squared_distances(features, features, chunk))
    return torch.cat(list(nearest))
