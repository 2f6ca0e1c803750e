"""Densities for data on a grid: the expected log-density over uniform dequantisation noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import LOG_2PI, Distribution, promote
from vae_train.distributions.location_scale import LOG_2, Laplace
from vae_train.distributions.normal import Normal
from vae_train.rng import Rng

_INNER, _OUTER = (math.sqrt(3 / 7 - sign * 2 / 7 * math.sqrt(6 / 5)) / 2 for sign in (1, -1))
_WEIGHTS = [(18 + sign * math.sqrt(30)) / 72 for sign in (1, -1)]
NODES = {
    1: ((0.0, 1.0),),
    4: ((-_OUTER, _WEIGHTS[1]), (-_INNER, _WEIGHTS[0]), (_INNER, _WEIGHTS[0]), (_OUTER, _WEIGHTS[1])),
}
"""Points and weights of the Gauss-Legendre quadrature on (-½, ½)."""


class Dequantized(Distribution):
    """A density on the unit interval for data on the grid k / (levels - 1), scored by uniform dequantisation.

    With y = (k + u) / levels and u ~ U(0, 1), Jensen's inequality gives the bound of Theis et al. (2016, eq. 3)

        log P(k) >= E_u[log p(y)] - log levels                                                   (per element)

    The expectation is computed by quadrature, without random noise. `log_prob` is the first term, a
    log-density on the unit interval; bits per dimension add log `levels`.

    Args:
        base: independent elements with values on the scale of y.
        levels: number of values that an element can take.
        nodes: number of quadrature points; 4 are exact for polynomials of degree 7 within a level, 1 if log p is
            linear.
    """

    is_factorized = True

    def __init__(self, base: Distribution, levels: int, nodes: int = 4) -> None:
        self.base, self.levels, self.nodes = base, levels, NODES[nodes]
        self.log_bins = math.log(levels)
        super().__init__(base.batch_shape + base.event_shape, len(base.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self._to_grid(self.base.mean)

    @override
    def error_weight(self) -> Tensor | None:
        return self.base.error_weight()

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        center = self.center(x)
        first, *others = (w * self.base.log_prob_elementwise(center + node / self.levels) for node, w in self.nodes)
        return sum(others, first)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self._to_grid(self.base.sample(rng, num, temperature))

    def center(self, x: Tensor) -> Tensor:
        """The middle of the level of `x` on the scale of y, (k + ½) / levels."""
        return (promote(x) * (self.levels - 1) + 0.5) / self.levels

    def with_scale(self, log_scale: Tensor) -> Dequantized:
        """The same distribution with another scale, if the base has one."""
        return type(self)(self.base.with_scale(log_scale), self.levels)  # type: ignore[attr-defined]

    def _to_grid(self, y: Tensor) -> Tensor:
        return (y * self.levels - 0.5) / (self.levels - 1)


class DequantizedNormal(Dequantized):
    """A normal density for data on the grid k / (levels - 1), in closed form: see `Dequantized`.

    With the centre c of a level, E_u[(y - mean)²] = (c - mean)² + 1 / (12 levels²), so the expectation over u is exact.

    Args:
        base: the density, on the scale of y.
        levels: number of values that an element can take.
    """

    power = 2

    base: Normal

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        log_scale = self.base.log_scale
        return -0.5 * (self.distance(x) * torch.exp(-2 * log_scale) + LOG_2PI) - log_scale

    def distance(self, x: Tensor) -> Tensor:
        """E_u[(y - mean)²] of every element; its mean is the optimal scale²."""
        return self.base.distance(self.center(x)) + 1 / (12 * self.levels**2)


class DequantizedLaplace(Dequantized):
    """A Laplace density for data on the grid k / (levels - 1), in closed form: see `Dequantized`.

    With the centre c and the width w = 1 / levels of a level,

        E_u|y - loc| = |c - loc| outside of it,    (c - loc)² / w + w / 4 inside,    which is smooth in loc.

    Args:
        base: the density, on the scale of y.
        levels: number of values that an element can take.
    """

    power = 1

    base: Laplace

    def distance(self, x: Tensor) -> Tensor:
        """E_u|y - loc| of every element; its mean is the optimal scale."""
        offset = (self.center(x) - self.base.loc).abs()
        return torch.where(offset * self.levels < 0.5, offset**2 * self.levels + 0.25 / self.levels, offset)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        return -self.distance(x) * torch.exp(-self.base.log_scale) - self.base.log_scale - LOG_2
