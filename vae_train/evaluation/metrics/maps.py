"""Maps of encodings: a histogram of z1, z1 against z2, or principal components and t-SNE of more latents."""

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.evaluation.encodings import MAX_ENCODED_IMAGES, Encodings, encodings, single_latent
from vae_train.evaluation.metrics.base import Metric, Results
from vae_train.evaluation.subject import Subject, Subset
from vae_train.plotting.maps import Plane, plot_line, plot_maps, plot_projector
from vae_train.rng import generator

MAX_TSNE_POINTS = 2_000
"""Maximal number of points of t-SNE and TensorBoard's projector; more take minutes and make the page slow."""

MAX_PERPLEXITY = 30.0

INITIAL_STD = 1e-4
"""Standard deviation of the initial points of t-SNE, as in scikit-learn."""


class Maps(Metric):
    """Maps of encodings, and the files of TensorBoard's projector.

    One latent is plotted as a histogram with the density of a normal prior. Two are plotted against each other, with
    contours of a normal prior; for more there are PCA and t-SNE.
    """

    outputs = ()
    requires = (single_latent,)
    order = 33

    @override
    def __call__(self, subject: Subject) -> Results:
        e = encodings(subject)
        index = evenly_spaced(len(e.mean), MAX_TSNE_POINTS)
        points = e.mean.cpu().numpy()[index.numpy()]
        labels = None if e.y is None else e.y[:, 0].cpu().numpy()[index.numpy()]
        names = next((list(map(str, f.values)) for f in subject.data.facts.factors[:1] if f.values is not None), None)
        if points.shape[1] == 1:
            plot_line(points[:, 0], labels, names, _normal(e), subject.plot_path("map"))
        else:
            plot_maps(_planes(e, points, subject.seed), labels, names, subject.plot_path("map"))
        x = Subset(subject.images, MAX_ENCODED_IMAGES).fetch(index.to(subject.model.device)).x
        plot_projector(subject.board / subject.name, points, labels, subject.to_pixels(x), names)
        return {}


def _normal(e: Encodings) -> tuple[float, float] | None:
    """Mean and standard deviation of a normal prior of one latent."""
    return None if e.p is None else (float(e.p.loc), float(e.prior_std))


def _planes(e: Encodings, points: NDArray[Any], seed: int) -> list[Plane]:
    """Maps the means `(N, D)` of some posteriors, D > 1."""
    if points.shape[1] == 2:
        prior = None if e.p is None else (e.p.loc.cpu().numpy(), e.prior_std.cpu().numpy())
        title = "means of q(z | x)" + ("" if prior is None else ", and contours of the prior")
        return [Plane(title, points, ("z1", "z2"), prior)]
    plane, share = pca(points)
    first, second = (f"principal component {1 + i} ({100 * s:.0f} % of the variance)" for i, s in enumerate(share))
    return [Plane("PCA", plane, (first, second)), Plane("t-SNE (distances mean little)", tsne(points, seed))]


def pca(latents: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Projects latents on their two principal components with the largest variances.

    Args:
        latents: `(N, D)`; if D is 1, the second component is 0.

    Returns:
        `(N, 2)` the centred latents in these directions, in their original scale; and `(2,)` the fraction of the total
        variance that each direction explains, 0 if nothing varies.
    """
    centered = torch.as_tensor(latents).detach().cpu().double().numpy()
    centered = centered - centered.mean(0)
    _, scales, directions = np.linalg.svd(centered, full_matrices=False)  # (R,), (R, D) with R = min(N, D)
    points, share = np.zeros((len(centered), 2)), np.zeros(2)
    count = min(2, len(scales))
    points[:, :count] = centered @ _signed(directions[:count]).T
    total = (scales**2).sum()
    if total > 0:
        share[:count] = scales[:count] ** 2 / total
    return points, share


def _signed(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fixes the signs of directions `(K, D)`, which an SVD leaves open, so that the largest entry of each is positive.

    Among entries that are equal up to rounding, the first one decides.
    """
    size = np.abs(directions)
    first = (size >= (1 - 1e-6) * size.max(1, keepdims=True)).argmax(1)
    return directions * np.sign(directions[np.arange(len(directions)), first])[:, None]


def tsne(latents: ArrayLike, seed: int, max_points: int = MAX_TSNE_POINTS) -> NDArray[np.float64]:
    """Maps at most `max_points` latents by t-SNE: close points were close, distances mean little.

    The map starts from the two principal components with 1 % noise, and is a function of latents and seed.
    Do not trust structure that another seed does not show.

    Source: van der Maaten & Hinton, "Visualizing Data using t-SNE" (JMLR 2008); Kobak & Berens, "The art of using t-SNE
    for single-cell transcriptomics" (2019, doi:10.1038/s41467-019-13056-x).

    Args:
        latents: `(N, D)`, of which at most `max_points` evenly spaced ones are used.
        seed: seed of the noise.
        max_points: limits M.

    Returns:
        `(M, 2)`, in arbitrary units.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    points = torch.as_tensor(latents).detach().cpu().double().numpy()
    points = points[evenly_spaced(len(points), max_points).numpy()]
    plane, _ = pca(points)
    scale = plane[:, 0].std()
    if scale <= 1e-12 * np.abs(points).max():
        return np.zeros((len(points), 2))
    # The noise separates coinciding points, and moves one-dimensional latents off their initial line.
    noise = torch.randn(plane.shape, generator=generator(seed, "tsne")).numpy()
    start = np.asarray(INITIAL_STD * (plane / scale + 0.01 * noise), np.float32)
    # The perplexity, the effective number of neighbours, is at most a third of the N - 1 neighbours.
    perplexity = min(MAX_PERPLEXITY, max(1.0, (len(points) - 1) / 3))
    with threadpool_limits(1):  # otherwise rounding, and thus the map, would depend on the number of threads
        return np.asarray(TSNE(init=start, perplexity=perplexity).fit_transform(points.astype(np.float32)), np.float64)
