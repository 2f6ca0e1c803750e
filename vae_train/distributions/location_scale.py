"""Location-scale families: x = location + scale · t with a standard variable t, elementwise.

Laplace, Huber and Student's t distributions, and densities with the maximum-likelihood
scale of their values.
"""

import copy
import math
from abc import abstractmethod
from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import Self, override

from vae_train.distributions.base import Distribution, promote
from vae_train.distributions.beta import log_gamma
from vae_train.rng import Rng

LOG_2 = math.log(2)
Shape = tuple[int, ...]


class LocationScale(Distribution):
    """Independent elements with log p(x) = log f((x - location) / scale) - log scale for an even density f.

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the scale, broadcasts against `loc`.
        event_ndim: number of trailing event dimensions.
    """

    is_factorized = True

    def __init__(self, loc: Tensor, log_scale: Tensor, event_ndim: int = 1) -> None:
        self.loc, self.log_scale = promote(loc), promote(log_scale)
        # torch.broadcast_shapes imports sympy.
        super().__init__(torch.broadcast_tensors(self.loc, self.log_scale)[0].shape, event_ndim)

    @property
    @override
    def mean(self) -> Tensor:
        return self.loc.expand(self.batch_shape + self.event_shape)

    @property
    @override
    def variance(self) -> Tensor:
        return (self.unit_variance * torch.exp(2 * self.log_scale)).expand(self.batch_shape + self.event_shape)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        return self.unit_terms((promote(x) - self.loc) * torch.exp(-self.log_scale)) - self.log_scale

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        noise = self.unit_sample(rng, (num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        # The sample dimension saves autograd a sum if there is only one sample.
        loc, scale = self.loc.unsqueeze(0), torch.exp(self.log_scale).unsqueeze(0)
        return torch.addcmul(loc, scale, noise, value=temperature)

    @override
    def affine(self, shift: Tensor, log_scale: Tensor) -> Self:
        return self._moved(shift + torch.exp(log_scale) * self.loc, self.log_scale + log_scale)

    def with_scale(self, log_scale: Tensor) -> Self:
        """The same distribution with another scale."""
        return self._moved(self.loc, log_scale)

    def _moved(self, loc: Tensor, log_scale: Tensor) -> Self:
        moved = copy.copy(self)
        LocationScale.__init__(moved, loc, log_scale, len(self.event_shape))
        return moved

    @property
    @abstractmethod
    def unit_variance(self) -> float:
        """The variance of t."""

    @abstractmethod
    def unit_terms(self, t: Tensor) -> Tensor:
        """log f(t), elementwise."""

    @abstractmethod
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        """Samples of t with shape `shape`."""


def centered(rng: Rng, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Random signs, and uniform two-sided tail probabilities in (0, 1), for symmetric distributions.

    Args:
        rng: the source of the noise.
        shape: shape of both.
        dtype: type of both.
    """
    uniform = rng.uniform(shape, dtype) - 0.5
    sign = torch.where(uniform < 0, -1.0, 1.0).to(uniform)
    return sign, (1 - 2 * uniform.abs()).clamp_min(torch.finfo(uniform.dtype).eps)


class Laplace(LocationScale):
    """Independent Laplace distributions, -|x - loc| / scale - log(2 scale).

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the mean absolute deviation, broadcasts against `loc`.
        event_ndim: number of trailing event dimensions.
    """

    unit_variance = 2.0
    power = 1

    def distance(self, x: Tensor) -> Tensor:
        """|x - loc| of every element; its mean is the optimal scale."""
        return (promote(x) - self.loc).abs()

    @override
    def error_weight(self) -> Tensor:
        return torch.exp(-self.log_scale)

    @override
    def unit_terms(self, t: Tensor) -> Tensor:
        return -t.abs() - LOG_2

    @override
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        sign, tail = centered(rng, shape, dtype)
        return -sign * torch.log(tail)


class Huber(LocationScale):
    """Independent elements with density exp(-h((x - loc) / scale)) / (scale Z) and Huber's function h (1964, eq. 2.1)

        h(t) = t² / 2 for |t| <= delta,    delta |t| - delta² / 2 beyond
        Z = √(2π) erf(delta / √2) + 2 exp(-delta² / 2) / delta

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the scale, broadcasts against `loc`.
        delta: where squares end and absolute values begin, in units of the scale.
        event_ndim: number of trailing event dimensions.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, delta: float, event_ndim: int = 1) -> None:
        super().__init__(loc, log_scale, event_ndim)
        self.delta = delta
        self.tails = 2 * math.exp(-(delta**2) / 2) / delta
        self.norm = math.sqrt(2 * math.pi) * math.erf(delta / math.sqrt(2)) + self.tails

    @property
    @override
    def unit_variance(self) -> float:
        d = self.delta
        core = self.norm - self.tails - 2 * d * math.exp(-(d**2) / 2)
        return (core + self.tails * (d**2 + 2 + 2 / d**2)) / self.norm

    @override
    def unit_terms(self, t: Tensor) -> Tensor:
        near = t.abs().clamp_max(self.delta)
        return -near * (t.abs() - 0.5 * near) - math.log(self.norm)

    @override
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        sign, tail = centered(rng, shape, dtype)
        share = self.tails / self.norm
        beyond = self.delta - torch.log(tail / share) / self.delta if share > 0 else torch.zeros_like(tail)
        width = math.sqrt(math.pi / 2) * 2 / self.norm
        inside = math.sqrt(2) * torch.erfinv(((1 - tail) / width).clamp_max(1 - torch.finfo(tail.dtype).eps))
        return sign * torch.where(tail < share, beyond, inside)


class StudentT(LocationScale):
    """Independent t distributions, log p(t) = -(df + 1)/2 · log(1 + t² / df) - log(√df B(½, df/2)).

    Args:
        loc: location with shape `(*batch, *event)`.
        log_scale: logarithm of the scale, broadcasts against `loc`.
        df: degrees of freedom, above 1 for a mean and above 2 for a variance.
        event_ndim: number of trailing event dimensions.
    """

    def __init__(self, loc: Tensor, log_scale: Tensor, df: float, event_ndim: int = 1) -> None:
        super().__init__(loc, log_scale, event_ndim)
        self.df = df
        self.log_norm = 0.5 * math.log(df * math.pi) + math.lgamma(df / 2) - math.lgamma((df + 1) / 2)

    @property
    @override
    def unit_variance(self) -> float:
        return self.df / (self.df - 2) if self.df > 2 else math.inf

    @override
    def unit_terms(self, t: Tensor) -> Tensor:
        return -0.5 * (self.df + 1) * torch.log1p(t * t / self.df) - self.log_norm

    @override
    def unit_sample(self, rng: Rng, shape: Shape, dtype: torch.dtype) -> Tensor:
        normal = rng.normal(shape, dtype)
        half = torch.full((), self.df / 2, dtype=normal.dtype, device=normal.device)
        return normal * torch.exp(0.5 * (math.log(self.df / 2) - log_gamma(rng, shape, half)))


class Scalable(Protocol):
    """Interface for `Fitted`: log p = -distance / (power · scale^power) - log scale."""

    power: int
    """2 for normal densities, 1 for Laplace densities."""

    def distance(self, x: Tensor) -> Tensor:
        """|x - location|^power of every element, with shape `(*any or *batch, *event)`."""

    def with_scale(self, log_scale: Tensor) -> Distribution:
        """The same distribution with another scale."""


def optimal_log_scale(mean_distance: Tensor, power: int, floor: float) -> Tensor:
    """Logarithm of the maximum-likelihood scale, or of `floor` if that is larger.

    Args:
        mean_distance: the mean of |x - location|^power, a scalar.
        power: see `Scalable`.
        floor: lower bound of the scale.
    """
    return torch.log(mean_distance.clamp_min(floor**power)) / power


class Fitted(Distribution):
    """A normal or Laplace density with a single scale, fitted by maximum likelihood.

        scale^power = mean of |x - location|^power        over all observed elements

    The scale has a stop-gradient, which changes no gradient since the likelihood is stationary there. The density
    of a value depends on all other values, so it is only for training (Rybkin et al., 2021, Simple and Effective VAE
    Training with Calibrated Decoders, arXiv:2006.13202, eq. 8).

    Args:
        base: the density, a `Scalable`.
        floor: lower bound of the scale.
    """

    def __init__(self, base: Distribution, floor: float) -> None:
        self.base, self.floor = base, floor
        self.log_bins = base.log_bins
        super().__init__(base.batch_shape + base.event_shape, len(base.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self.base.mean

    @override
    def error_weight(self) -> Tensor | None:
        return self.base.error_weight()  # with the running average of the scale

    def mean_distance(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The mean of |x - location|^power over all observed elements: a scalar without a gradient."""
        base: Scalable = self.base  # type: ignore[assignment]
        with torch.no_grad():
            distance = base.distance(x)
            if mask is None:
                return distance.mean()
            counted = mask.expand_as(distance)
            return torch.where(counted, distance, 0.0).sum() / counted.sum().clamp_min(1)

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        base: Scalable = self.base  # type: ignore[assignment]
        log_scale = optimal_log_scale(self.mean_distance(x, mask), base.power, self.floor)
        return base.with_scale(log_scale).log_prob(x, mask)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self.base.sample(rng, num, temperature)
