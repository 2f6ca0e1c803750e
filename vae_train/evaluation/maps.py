"""Two-dimensional maps of encodings: principal components and t-SNE."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vae_train.batch import evenly_spaced
from vae_train.plotting.arrays import Array, to_float_array
from vae_train.rng import generator

MAX_TSNE_POINTS = 2_000
"""Points of a t-SNE or of a projector: with more of them, the one takes minutes and the other's page is slow."""

PERPLEXITY = 30.0
"""Of t-SNE, where there are points enough for it."""

START = 1e-4
"""Standard deviation of the points that t-SNE starts from, as in scikit-learn."""


def pca(codes: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two principal components of codes with the largest variances.

    Args:
        codes: `(N, D)`; if D is 1, the second component is 0.

    Returns:
        `(N, 2)` the codes in these directions, in the codes' own units and centred; and `(2,)` the share of the total
        variance that each of them explains, 0 where nothing varies.
    """
    centred = to_float_array(codes)
    centred = centred - centred.mean(0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)  # (R,), (R, D) with R = min(N, D)
    points, share = np.zeros((len(centred), 2)), np.zeros(2)
    kept = min(2, len(scales))
    points[:, :kept] = centred @ _signed(directions[:kept]).T
    total = (scales**2).sum()
    if total > 0:
        share[:kept] = scales[:kept] ** 2 / total
    return points, share


def _signed(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions `(K, D)` with the sign that makes the largest entry of each positive: an SVD leaves it open.

    Among entries that are equally large but for rounding, the first one decides.
    """
    size = np.abs(directions)
    first = (size >= (1 - 1e-6) * size.max(1, keepdims=True)).argmax(1)
    return directions * np.sign(directions[np.arange(len(directions)), first])[:, None]


def tsne(codes: Array, seed: int, max_points: int = MAX_TSNE_POINTS) -> NDArray[np.float64]:
    """A t-SNE (van der Maaten & Hinton 2008) of at most `max_points` codes: close points were
    close, distances mean little.

    It starts from the two principal components (Kobak & Berens 2019) and a hundredth of noise, and is a function of
    codes and seed. Structure that another seed does not show is none.

    Args:
        codes: `(N, D)`, of which those with the numbers `evenly_spaced(N, max_points)` are used.
        seed: decides the noise.
        max_points: limits M.

    Returns:
        `(M, 2)`, without a unit.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    used = to_float_array(codes)
    used = used[evenly_spaced(len(used), max_points).numpy()]
    start = _start(used, seed)
    if start is None:
        return np.zeros((len(used), 2))
    # A point has N - 1 neighbours; the perplexity, which is how many of them count, is at most a third of these.
    perplexity = min(PERPLEXITY, max(1.0, (len(used) - 1) / 3))
    with threadpool_limits(1):  # or sums, and so the map, would depend on the number of threads
        return to_float_array(TSNE(init=start, perplexity=perplexity).fit_transform(used.astype(np.float32)))


def _start(codes: NDArray[np.float64], seed: int) -> NDArray[np.float32] | None:
    """`(N, 2)` the points that t-SNE starts from; None where all codes are the same.

    The noise parts points that coincide, and leads codes with one dimension off the line that they start on.
    """
    points, _ = pca(codes)
    scale = points[:, 0].std()
    if scale <= 1e-12 * np.abs(codes).max():
        return None
    noise = torch.randn(points.shape, generator=generator(seed, "tsne")).numpy()
    return np.asarray(START * (points / scale + 0.01 * noise), np.float32)
