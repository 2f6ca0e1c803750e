"""Distributions of codes: arrays of indices into a codebook, and the vectors that the codebook has for them.

Shapes: an image has `*code` codes, for instance (H, W) for a map of codes or () for a single one. z has the vectors of
these codes.
"""

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, PointMass, promote
from vae_train.rng import Rng

Shape = tuple[int, ...]


@runtime_checkable
class Codebook(Protocol):
    """Maps indices to vectors, and vectors to indices."""

    event_shape: Shape
    """Shape of z."""
    code_shape: Shape
    """Shape of the indices of one z."""
    num_codes: int
    """Number of values of an index."""
    num_codebooks: int
    """1 if all codes are from one codebook; else the last dimension of `code_shape`, whose codes have one each."""

    def embed(self, indices: Tensor) -> Tensor:
        """z with shape `(*N, *event_shape)` for int64 indices with shape `(*N, *code_shape)`."""

    def indices(self, z: Tensor) -> Tensor:
        """The codes nearest to z: int64 `(*N, *code_shape)` for z with shape `(*N, *event_shape)`."""


class QuantizedPoint(PointMass):
    """A point mass on codes: log q(z) = 0 at its vectors. Its rate is -log p(codes), and all its samples are equal.

    Args:
        loc: the vectors of the codes, with shape `(*batch, *event)`; their gradient is that of the encoder's output.
        codes: int64 indices with shape `(*batch, *code)`.
        event_ndim: number of trailing event dimensions.
        source: what the codes were computed from, for losses and updates of a codebook; None if it needs neither.
    """

    has_density = True
    summary_note = "mean has the vectors of the codes; the posterior is a point, so std is 0"

    def __init__(self, loc: Tensor, codes: Tensor, event_ndim: int = 1, source: Any = None) -> None:
        super().__init__(loc, event_ndim)
        self.codes, self.source = codes, source
        self.noise: Tensor | None = None
        """Standard normal numbers with shape `(*batch, *event)` for updates of the codebook, drawn with a sample."""

    @override
    def summary(self, rng: Rng) -> dict[str, Tensor]:
        """Also "codes", the indices, int64 `(*batch, *code)`."""
        return super().summary(rng) | {"codes": self.codes}

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        num_different = self._sum((promote(x) != self.loc).to(self.loc.dtype))
        return torch.where(num_different == 0, 0.0, -math.inf).to(self.loc.dtype)

    @override
    def rsample_and_log_prob(self, rng: Rng, num: int) -> tuple[Tensor, Tensor]:
        if self.source is not None and torch.is_grad_enabled():
            self.noise = rng.normal((1, *self.loc.shape), self.loc.dtype)[0]
        return self.sample(rng, num), self.loc.new_zeros(num, *self.batch_shape)


class UniformCodes(Distribution):
    """Independent indices with equal probabilities 1 / K.

    Args:
        log_mass: log 1 / K, with shape `()`.
        num_codes: K, the number of values of an index.
        code_shape: shape of an array of indices.
    """

    def __init__(self, log_mass: Tensor, num_codes: int, code_shape: Shape) -> None:
        self.log_mass, self.num_codes = promote(log_mass), num_codes
        super().__init__(torch.Size(code_shape), len(code_shape))

    @property
    @override
    def mean(self) -> Tensor:
        raise NotImplementedError("indices have no mean")

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        leading = x.shape[: x.dim() - len(self.event_shape)]
        return (self.log_mass * self.event_shape.numel()).expand(leading)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        """See `Distribution.sample`. At every temperature all indices are equally likely."""
        uniform = rng.uniform((num, *self.event_shape), self.log_mass.dtype)
        return (uniform * self.num_codes).long().clamp_max(self.num_codes - 1)


class Codes(Distribution):
    """The distribution of z = embed(indices) for indices from another distribution: log p(z) = log p(indices of z).

    Args:
        base: a distribution of indices, with the event shape of the codebook's `code_shape`.
        codebook: maps indices to z.
    """

    def __init__(self, base: Distribution, codebook: Codebook) -> None:
        self.base, self.codebook = base, codebook
        super().__init__(base.batch_shape + torch.Size(codebook.event_shape), len(codebook.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        raise NotImplementedError("codes have no closed-form mean")

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        return self.base.log_prob(self.codebook.indices(x))

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self.codebook.embed(self.base.sample(rng, num, temperature))
