"""Groups of images that share the value of a factor."""

from collections.abc import Iterator

import numpy as np

from vae_train.evaluation.factors import Integers

MAX_GROUPS_PER_CHUNK = 1_000


class FactorGroups:
    """Samples images that share the value of a factor.

    Args:
        factors: `(N, F)`; in each column at least one value occurs twice.
        seed: seed of the samples.
    """

    def __init__(self, factors: Integers, seed: int) -> None:
        self.num_factors, self._rng = factors.shape[1], np.random.default_rng(seed)
        self._order = np.argsort(factors, axis=0, kind="stable")  # (N, F)
        counted = [np.unique(values, return_inverse=True, return_counts=True)[1:] for values in factors.T]
        self._first = np.stack([(np.cumsum(counts) - counts)[rank] for rank, counts in counted], 1)  # (N, F)
        self._count = np.stack([counts[rank] for rank, counts in counted], 1)  # (N, F)

    def images(self, factor: Integers) -> Integers:
        """Samples an image for each of the factors `(B,)`, among those whose value occurs more than once."""
        images = np.empty(len(factor), np.int64)
        for f in range(self.num_factors):
            rows = factor == f
            images[rows] = self._rng.choice(np.flatnonzero(self._count[:, f] > 1), rows.sum())
        return images

    def partners(self, image: Integers, factor: Integers, count: int) -> Integers:
        """Samples `(B, count)` images that share the factor `(B,)` with the images `(B,)`, possibly the same ones."""
        offset = self._rng.integers(0, self._count[image, factor][:, None], (len(image), count))
        return self._order[self._first[image, factor][:, None] + offset, factor[:, None]]

    def chunks(self, total: int) -> Iterator[Integers]:
        """Samples `total` factors uniformly, in chunks `(B,)`."""
        for start in range(0, total, MAX_GROUPS_PER_CHUNK):
            yield self._rng.integers(0, self.num_factors, min(MAX_GROUPS_PER_CHUNK, total - start))
