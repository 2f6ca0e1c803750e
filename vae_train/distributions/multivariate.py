"""Normal distributions with dependent elements.

    full:      N(x; mean, L Lᵀ)                with L lower triangular
    low rank:  N(x; mean, diag(scale²) + V Vᵀ)  with V of `rank` columns

The second uses Woodbury's identity and the matrix determinant lemma, so that only rank x rank matrices are factorised:

    Σ⁻¹ = S⁻² - S⁻² V C⁻¹ Vᵀ S⁻²,   log det Σ = log det C + 2 sum log scale,   C = I + Vᵀ S⁻² V.

Events with several dimensions are flattened in row-major order.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import LOG_2PI, Distribution, Located, promote
from vae_train.rng import Rng


def lower_triangle(values: Tensor, size: int) -> Tensor:
    """Arranges values in a lower triangular matrix by reshaping, without indices, which a graph would keep.

    Args:
        values: tensor with shape `(*N, size (size + 1) / 2)`.
        size: rows and columns of the matrix.

    Returns:
        A tensor with shape `(*N, size, size)`.
    """
    doubled = torch.cat([values[..., size:], values.flip(-1)], -1)  # (*N, size²)
    return doubled.unflatten(-1, (size, size)).tril()


class MultivariateNormal(Located):
    """A normal distribution with the covariance L Lᵀ.

    Args:
        mean: tensor with shape `(*batch, *event)`.
        factor: L with shape `(*batch, D, D)`, lower triangular with a positive diagonal; D is the event's size.
        event_ndim: number of trailing event dimensions, at least 1.
    """

    def __init__(self, mean: Tensor, factor: Tensor, event_ndim: int = 1) -> None:
        super().__init__(mean, event_ndim)
        self.factor = promote(factor)

    @property
    @override
    def variance(self) -> Tensor:
        return self.factor.square().sum(-1).view(self.loc.shape)

    @property
    def log_det(self) -> Tensor:
        """log det L, half of that of the covariance, with shape `(*batch)`."""
        return self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        return self._score(_solved(self.factor, _flat(promote(x) - self.loc, self)))

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self._placed(temperature * self._noise(rng, num))

    @override
    def rsample_and_log_prob(self, rng: Rng, num: int) -> tuple[Tensor, Tensor]:
        noise = self._noise(rng, num)
        return self._placed(noise), self._score(noise)

    def _noise(self, rng: Rng, num: int) -> Tensor:
        return _flat(rng.normal((num, *self.batch_shape, *self.event_shape), self.loc.dtype), self)

    def _placed(self, noise: Tensor) -> Tensor:
        return self.loc + _times(self.factor, noise).view(-1, *self.loc.shape)

    def _score(self, noise: Tensor) -> Tensor:
        return -0.5 * (noise.square().sum(-1) + noise.shape[-1] * LOG_2PI) - self.log_det


class LowRankNormal(Located):
    """A normal distribution with the covariance diag(scale²) + V Vᵀ.

    Args:
        mean: tensor with shape `(*batch, *event)`.
        log_scale: logarithm of the diagonal part's standard deviation, with shape `(*batch, *event)`.
        directions: V with shape `(*batch, D, rank)`; D is the event's size.
        event_ndim: number of trailing event dimensions, at least 1.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor, directions: Tensor, event_ndim: int = 1) -> None:
        super().__init__(mean, event_ndim)
        self.log_scale, self.directions = promote(log_scale), promote(directions)

    @property
    @override
    def variance(self) -> Tensor:
        return torch.exp(2 * self.log_scale) + self.directions.square().sum(-1).view(self.loc.shape)

    @property
    def log_det(self) -> Tensor:
        """Half of log det of the covariance, with shape `(*batch)`."""
        return self._log_det(self._factor())

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        scaled = _flat((promote(x) - self.loc) * torch.exp(-self.log_scale), self)  # S⁻¹ (x - mean)
        factor = self._factor()
        solved = _solved(factor, _times(self._scaled().mT, scaled))  # of Vᵀ S⁻² (x - mean)
        distance = scaled.square().sum(-1) - solved.square().sum(-1)
        return -0.5 * (distance + scaled.shape[-1] * LOG_2PI) - self._log_det(factor)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        own = rng.normal((num, *self.loc.shape), self.loc.dtype)
        shared = rng.normal((num, *self.batch_shape, self.directions.shape[-1]), self.loc.dtype)
        common = _times(self.directions, shared).view(own.shape)
        return self.loc + temperature * (torch.exp(self.log_scale) * own + common)

    def _scaled(self) -> Tensor:
        """S⁻¹ V with shape `(*batch, D, rank)`."""
        return self.directions * torch.exp(-_flat(self.log_scale, self))[..., None]

    def _factor(self) -> Tensor:
        """The Cholesky factor of C, without a check that would wait, since the eigenvalues are at least 1."""
        scaled = self._scaled()
        identity = torch.eye(scaled.shape[-1], dtype=scaled.dtype, device=scaled.device)
        return torch.linalg.cholesky_ex(identity + scaled.mT @ scaled).L

    def _log_det(self, factor: Tensor) -> Tensor:
        return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + self._sum(self.log_scale)


def _flat(x: Tensor, about: Distribution) -> Tensor:
    """`x` with the event flattened to `(D,)`."""
    return x.flatten(-len(about.event_shape))


def _times(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Matrices `(*batch, R, D)` times vectors `(*any, *batch, D)`: `(*any, *batch, R)`."""
    return _each(lambda columns: matrix @ columns, matrix, vectors)


def _solved(factor: Tensor, vectors: Tensor) -> Tensor:
    """Inverses of lower triangular matrices `(*batch, D, D)` times vectors `(*any, *batch, D)`."""
    return _each(lambda columns: torch.linalg.solve_triangular(factor, columns, upper=False), factor, vectors)


def _each(function: Callable[[Tensor], Tensor], matrix: Tensor, vectors: Tensor) -> Tensor:
    """Applies a function of columns `(*batch, D, A)` to vectors `(*any, *batch, D)`, without copying matrices."""
    further = vectors.shape[: vectors.dim() - matrix.dim() + 1]
    columns = vectors.reshape(-1, *vectors.shape[len(further) :]).movedim(0, -1)
    return function(columns).movedim(-1, 0).reshape(*vectors.shape[:-1], -1)
