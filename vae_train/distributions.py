"""Distributions whose noise comes in from outside.

`torch.distributions` draws from the global generator, which raises under `vmap` and makes a number depend on all
numbers drawn before it. These take a `Draw` instead and otherwise say the same things by the same names.

Shapes: `*batch` numbers the distributions, `*event` is one draw. Log-probabilities are in nats, summed over the event,
in at least float32: half precisions are promoted, float64 stays float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.draws import Draw

LOG_2PI = math.log(2 * math.pi)


def promote(x: Tensor) -> Tensor:
    """`x` in at least float32."""
    return x if x.dtype == torch.float64 else x.float()


class Distribution(ABC):
    """What a posterior, a prior or a likelihood returns.

    Args:
        shape: `(*batch, *event)`.
        event_ndim: how many of the last dimensions are the event.
    """

    log_bins: float | None = None
    """What turns `log_prob` into a log-mass: nats per element to subtract; None for densities of continuous data."""

    def __init__(self, shape: torch.Size, event_ndim: int) -> None:
        split = len(shape) - event_ndim
        self.batch_shape, self.event_shape = shape[:split], shape[split:]

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expectation, with shape `(*batch, *event)`."""

    @abstractmethod
    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Log-density or log-mass in nats.

        Args:
            x: values with shape `(*any, *event)` that broadcasts against `(*batch, *event)`.
            observed: bool tensor that broadcasts against `x`; elements that are False do not count.

        Returns:
            A tensor with shape `(*any or *batch)`, the sum over the event.
        """

    @abstractmethod
    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Draws with shape `(num, *batch, *event)`; differentiable where the distribution is reparameterised.

        Args:
            draw: the source of the noise.
            num: how many draws of each distribution.
            temperature: factor on the standard deviation, where there is one.
        """

    def _sum(self, terms: Tensor, observed: Tensor | None) -> Tensor:
        """Sums elementwise terms over the event."""
        if observed is not None:
            terms = torch.where(observed, terms, 0.0)
        return terms.flatten(-len(self.event_shape)).sum(-1) if self.event_shape else terms


class Normal(Distribution):
    """Independent normal distributions, log N(x; mean, scale²).

    Args:
        mean: tensor with shape `(*batch, *event)`.
        log_scale: logarithm of the standard deviation, broadcasts against `mean`.
        event_ndim: how many of the last dimensions are the event.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor, event_ndim: int = 1) -> None:
        self.loc, self.log_scale = promote(mean), promote(log_scale)
        # torch.broadcast_shapes imports sympy.
        super().__init__(torch.broadcast_tensors(self.loc, self.log_scale)[0].shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """The mean, with shape `(*batch, *event)`."""
        return self.loc.expand(self.batch_shape + self.event_shape)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Log-density of `x`, see `Distribution.log_prob`."""
        z = (promote(x) - self.loc) * torch.exp(-self.log_scale)
        return self._sum(-0.5 * (z * z + LOG_2PI) - self.log_scale, observed)

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Reparameterised draws mean + temperature · scale · ε, see `Distribution.sample`."""
        noise = draw.normal((num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        return torch.addcmul(self.loc, torch.exp(self.log_scale), noise, value=temperature)


class DequantizedNormal(Distribution):
    """A normal density for data on the grid k / (levels - 1), scored by uniform dequantisation in closed form.

    With y = (k + u) / levels and u ~ U(0, 1), Jensen's inequality gives the bound of Theis et al. (2016, eq. 3)

        log P(k) >= E_u[log N(y; mean, scale²)] - log levels                                      (per element)
        E_u[(y - mean)²] = ((k + ½) / levels - mean)² + 1 / (12 levels²)

    so the expectation over u is taken exactly: no dequantisation noise, in training or in evaluation. `log_prob` is the
    first term, a log-density on the unit interval; bits per dimension add log `levels`.

    Args:
        mean: tensor with shape `(*batch, *event)`, on the scale of y.
        log_scale: logarithm of the standard deviation on the scale of y, broadcasts against `mean`.
        levels: number of values that an element can take.
        event_ndim: how many of the last dimensions are the event.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor, levels: int, event_ndim: int) -> None:
        self.loc, self.log_scale, self.levels = promote(mean), promote(log_scale), levels
        self.log_bins = math.log(levels)
        # torch.broadcast_shapes imports sympy.
        super().__init__(torch.broadcast_tensors(self.loc, self.log_scale)[0].shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """The mean on the grid's own scale, with shape `(*batch, *event)`."""
        return self._to_grid(self.loc.expand(self.batch_shape + self.event_shape))

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Expected log-density of the dequantised `x`, see `Distribution.log_prob`; `x` holds k / (levels - 1)."""
        center = (promote(x) * (self.levels - 1) + 0.5) / self.levels
        square = (center - self.loc) ** 2 + 1 / (12 * self.levels**2)
        return self._sum(-0.5 * (square * torch.exp(-2 * self.log_scale) + LOG_2PI) - self.log_scale, observed)

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Draws on the grid's own scale, not rounded to it, see `Distribution.sample`."""
        noise = draw.normal((num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        return self._to_grid(self.loc + temperature * torch.exp(self.log_scale) * noise)

    def _to_grid(self, y: Tensor) -> Tensor:
        return (y * self.levels - 0.5) / (self.levels - 1)


class Bernoulli(Distribution):
    """Independent Bernoulli distributions, x·logits - log(1 + e^logits).

    For x strictly between 0 and 1 this is the cross-entropy of tutorials, which is no log-likelihood of x.

    Args:
        logits: log-odds with shape `(*batch, *event)`.
        event_ndim: how many of the last dimensions are the event.
        binary: whether x will be 0 or 1; without that there is no mass, and no bits per dimension.
    """

    def __init__(self, logits: Tensor, event_ndim: int = 1, binary: bool = True) -> None:
        self.logits = promote(logits)
        self.log_bins = 0.0 if binary else None
        super().__init__(self.logits.shape, event_ndim)

    @property
    def mean(self) -> Tensor:
        """The probability of 1, with shape `(*batch, *event)`."""
        return torch.sigmoid(self.logits)

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Log-mass of `x`, see `Distribution.log_prob`."""
        # softplus - x · logits in one pass over the pixels, where the obvious way to write it has two.
        return -self._sum(torch.addcmul(F.softplus(self.logits), promote(x), self.logits, value=-1), observed)

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Draws of 0 and 1, without a gradient; a temperature divides the logits, see `Distribution.sample`."""
        uniform = draw.uniform((num, *self.batch_shape, *self.event_shape), self.logits.dtype)
        if temperature == 0.0:
            return (self.logits > 0).to(uniform.dtype).expand(uniform.shape)
        return (uniform < torch.sigmoid(self.logits / temperature)).to(uniform.dtype)
