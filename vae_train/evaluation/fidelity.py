"""How like the originals images are: pair by pair, and as two sets of features.

A reconstruction is compared with its original (`psnr`, `ssim`, `ms_ssim`). Samples have no original: what is compared
are the features of many of them with the features of as many real images (`vae_train.evaluation.features`), by their
first two moments (`frechet_distance`), by all moments up to the third (`kernel_distance`), or by who is whose neighbour
(`precision_recall`, `density_coverage`). All four depend on the features, and the first on the numbers of images too:
figures compare only where both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from vae_train.rng import generator
from vae_train.util.errors import RunError

Figure = dict[str, float | int]

SSIM_SIDE = 6
"""Pixels that both sides of an image must have for SSIM: more than half a window, which is mirrored at the borders."""

MS_SSIM_SIDE = 176
"""Pixels that both sides of an image must have for MS-SSIM: at the last of five scales they are a window, 11."""

CHUNK = 1000
"""Features whose distances to all others are held at a time: 80 MB where there are 10,000 others."""

ROUNDING = 1e-12
"""Differences of squared distances that count as none, in units of the largest squared norm."""


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio -10 log10(mean (x - y)²) in dB with shape `(N,)`; infinite where images are equal.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: what they are compared with, alike.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(x, y, data_range=1.0, reduction="none", dim=(1, 2, 3))


def ssim(x: Tensor, y: Tensor) -> Tensor | None:
    """Structural similarity with shape `(N,)`, 1 for equal images (Wang et al., 2004, eq. 13).

    The window is theirs at every size: Gaussian, standard deviation 1.5, 11 x 11 pixels. Images are mirrored at their
    borders, so that 28 x 28 pixels give as many values; of 8 x 8 pixels every window sees a mirrored part.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: what they are compared with, alike.

    Returns:
        The means over pixels and channels, or None where a side is below `SSIM_SIDE`: signals, vectors.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    if min(x.shape[-2:]) < SSIM_SIDE:
        return None
    found = similarity(_fine(x), _fine(y), data_range=1.0, reduction="none", sigma=1.5, kernel_size=11)
    assert isinstance(found, Tensor)
    return found


def ms_ssim(x: Tensor, y: Tensor) -> Tensor | None:
    """Structural similarity at five scales with shape `(N,)`, 1 for equal images (Wang et al., 2003, eq. 7).

    Window as in `ssim`, weights of the scales as in the paper; a negative term counts as 0.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: what they are compared with, alike.

    Returns:
        The values, or None where a side is below `MS_SSIM_SIDE`: fewer scales would be another measure.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as similarity

    if min(x.shape[-2:]) < MS_SSIM_SIDE:
        return None
    x, y = _fine(x), _fine(y)
    return similarity(x, y, data_range=1.0, reduction="none", normalize="relu", sigma=1.5, kernel_size=11)


def _fine(x: Tensor) -> Tensor:
    """Images in float64, where the device has it: variances are differences, and flat images have small ones."""
    return x if x.device.type == "mps" else x.double()


def frechet_distance(real: Tensor, sampled: Tensor) -> float:
    """|m - m'|² + tr(S + S' - 2 (S S')^½): the squared 2-Wasserstein distance of two Gaussians with the moments of the
    features (Heusel et al., 2017, arXiv:1706.08500, eq. 6). Biased upwards by an amount that falls with N.

    No root of a covariance is taken. With centred features A and A', S = Aᵀ A and S' = A'ᵀ A', and the trace of the
    root is the sum of the singular values of A A'ᵀ, which fewer images than features do not make inaccurate.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
    """
    real, sampled = _checked(real, sampled, least=2)
    shift = (real.mean(0) - sampled.mean(0)).square().sum()
    first, second = _root(real), _root(sampled)  # (min(N, d), d), (min(M, d), d)
    shared = torch.linalg.svdvals(first @ second.T).sum()
    distance = shift + first.square().sum() + second.square().sum() - 2 * shared
    return max(0.0, distance.item())


def _root(features: Tensor) -> Tensor:
    """A triangular R with Rᵀ R = the covariance of the features (divided by N - 1)."""
    centred = (features - features.mean(0)) / math.sqrt(len(features) - 1)
    return torch.linalg.qr(centred, mode="r").R


def kernel_distance(
    real: Tensor, sampled: Tensor, *, seed: int = 0, num_subsets: int = 100, subset_size: int = 1000
) -> Figure:
    """Unbiased squared maximum mean discrepancy with the kernel (a · b / d + 1)³ (Binkowski et al., 2018,
    arXiv:1801.01401, section 4): the mean over subsets, which are drawn without replacement.

    Its expectation is 0 where both sets come from one distribution, whatever N is; single values may be negative.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        seed: decides the subsets.
        num_subsets: how many.
        subset_size: features of either kind in a subset; at most N and M.

    Returns:
        "value" and "se", the standard error over the subsets. It is too small where these overlap, as they do with more
        of them than N / subset_size, and NaN where there is only one: all features in a subset are the same subset.
    """
    real, sampled = _checked(real, sampled, least=2)
    size = min(subset_size, len(real), len(sampled))
    if size == max(len(real), len(sampled)):
        return {"value": _discrepancy(real, sampled), "se": math.nan}
    source = generator(seed, "kernel distance")
    values = torch.tensor(
        [_discrepancy(*(_subset(part, size, source) for part in (real, sampled))) for _ in range(num_subsets)],
        dtype=torch.float64,
    )
    spread = values.std().item() if num_subsets > 1 else math.nan
    return {"value": values.mean().item(), "se": spread / math.sqrt(num_subsets)}


def _subset(features: Tensor, size: int, source: torch.Generator) -> Tensor:
    return features[torch.randperm(len(features), generator=source)[:size].to(features.device)]


def _discrepancy(x: Tensor, y: Tensor) -> float:
    """Unbiased MMD² of `(n, d)` and `(m, d)`: the kernel of a feature with itself is left out."""
    within = sum(_mean_off_diagonal(_kernel(part, part)) for part in (x, y))
    return within - 2 * _kernel(x, y).mean().item()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3  # (n, m)


def _mean_off_diagonal(k: Tensor) -> float:
    return (k.sum() - k.trace()).item() / (len(k) * (len(k) - 1))


def precision_recall(real: Tensor, sampled: Tensor, *, k: int = 3, chunk: int = CHUNK) -> dict[str, float]:
    """Shares of samples among the real images, and of real images among the samples (Kynkaanniemi et al., 2019,
    arXiv:1904.06991, eq. 1 and 2).

    A set's support is taken to be the union of closed balls, around each of its features and up to its k-th nearest
    neighbour. One outlier makes a large ball: see `density_coverage`.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        k: which neighbour a ball reaches to.
        chunk: features whose distances are held at a time; changes nothing else.

    Returns:
        "precision" (quality) and "recall" (variety), between 0 and 1.
    """
    real, sampled, slack = _centred(real, sampled, least=k + 1)
    return {
        "precision": _share_covered(sampled, real, _radii(real, k, chunk) + slack, chunk),
        "recall": _share_covered(real, sampled, _radii(sampled, k, chunk) + slack, chunk),
    }


def density_coverage(real: Tensor, sampled: Tensor, *, k: int = 5, chunk: int = CHUNK) -> dict[str, float]:
    """Precision and recall that outliers among the samples do not change (Naeem et al., 2020, arXiv:2002.09797, eq. 5
    and 6).

    There are balls around real images only, and they are open, as in the authors' program: two equal sets have density
    1 and coverage 1.

    Args:
        real: features of real images, `(N, d)`.
        sampled: features of samples, `(M, d)`.
        k: which neighbour a ball reaches to.
        chunk: features whose distances are held at a time; changes nothing else.

    Returns:
        "density", the mean number of balls around a sample divided by k, which may exceed 1; "coverage", the share of
        balls with a sample in them.
    """
    real, sampled, slack = _centred(real, sampled, least=k + 1)
    radii, inside, covered = _radii(real, k, chunk) - slack, 0, 0
    for start, squares in _squared_distances(real, sampled, chunk):
        within = squares < radii[start : start + len(squares), None]  # (n, M)
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    return {"density": inside / (k * len(sampled)), "coverage": covered / len(real)}


def _share_covered(points: Tensor, centres: Tensor, radii: Tensor, chunk: int) -> float:
    """Share of the points `(n, d)` that lie in a ball around one of the centres `(m, d)`; squared radii `(m,)`."""
    covered = sum(int((squares <= radii).any(1).sum()) for _, squares in _squared_distances(points, centres, chunk))
    return covered / len(points)


def _radii(features: Tensor, k: int, chunk: int) -> Tensor:
    """Squared distance of each feature to its k-th nearest neighbour, with shape `(N,)`; it is no neighbour itself."""
    nearest = (squares.kthvalue(k + 1, dim=1).values for _, squares in _squared_distances(features, features, chunk))
    return torch.cat(list(nearest))


def _squared_distances(x: Tensor, y: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """|x_i - y_j|² for `chunk` rows of x after the other, with shape `(chunk, M)`, and the number of the first one."""
    norms = y.square().sum(1)
    for start in range(0, len(x), chunk):
        rows = x[start : start + chunk]
        squares = torch.addmm(norms.expand(len(rows), -1), rows, y.T, alpha=-2)
        yield start, squares.add_(rows.square().sum(1, keepdim=True)).clamp_(min=0)


def _centred(real: Tensor, sampled: Tensor, least: int) -> tuple[Tensor, Tensor, float]:
    """The features less their common mean, which costs digits of a squared distance, and the error that is left.

    A distance that is compared with itself, of equal images, then comes out as equal whatever it was rounded to.
    """
    real, sampled = _checked(real, sampled, least)
    mean = (real.mean(0) + sampled.mean(0)) / 2
    real, sampled = real - mean, sampled - mean
    largest = max(part.square().sum(1).max().item() for part in (real, sampled))
    return real, sampled, ROUNDING * largest


def _checked(real: Tensor, sampled: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """The features in float64.

    Raises:
        ValueError: they cannot be compared, or are too few.
        RunError: some are not finite, as those of a model that has diverged.
    """
    if real.ndim != 2 or sampled.ndim != 2 or real.shape[1] != sampled.shape[1]:
        raise ValueError(f"features must be (N, d) and (M, d), not {tuple(real.shape)} and {tuple(sampled.shape)}")
    if min(len(real), len(sampled)) < least:
        raise ValueError(f"at least {least} features of either kind are needed, not {len(real)} and {len(sampled)}")
    for name, features in (("real images", real), ("samples", sampled)):
        if not features.isfinite().all():
            raise RunError(f"the features of the {name} are not finite")
    return real.double(), sampled.double()
