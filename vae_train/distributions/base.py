"""Distributions whose noise comes in from outside.

`torch.distributions` draws from the global generator, which raises under `vmap` and makes a number depend on all
numbers drawn before it. These take a `Draw` instead and otherwise say the same things by the same names.

Shapes: `*batch` numbers the distributions, `*event` is one draw. Log-probabilities are in nats, summed over the event,
in at least float32: half precisions are promoted, float64 stays float64.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor

from vae_train.draws import Draw

LOG_2PI = math.log(2 * math.pi)

D = TypeVar("D", bound="Distribution")


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
    dense: bool = True
    """Whether there is a density or mass that `log_prob` is the logarithm of; a point mass has none."""
    factorised: bool = False
    """Whether the elements of an event are independent, so that `terms` exists."""

    def __init__(self, shape: torch.Size, event_ndim: int) -> None:
        split = len(shape) - event_ndim
        self.batch_shape, self.event_shape = shape[:split], shape[split:]

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expectation, with shape `(*batch, *event)`."""

    @property
    def variance(self) -> Tensor:
        """The variance of every element, with shape `(*batch, *event)`."""
        raise NotImplementedError(f"the variance of {type(self).__name__} is not known in closed form")

    def terms(self, x: Tensor) -> Tensor:
        """Log-density or log-mass of every element in nats, where they are independent (`factorised`).

        Args:
            x: values with shape `(*any, *event)` that broadcasts against `(*batch, *event)`.

        Returns:
            A tensor with shape `(*any or *batch, *event)`.
        """
        raise NotImplementedError(f"the elements of {type(self).__name__} are not independent")

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """Log-density or log-mass in nats.

        Args:
            x: values with shape `(*any, *event)` that broadcasts against `(*batch, *event)`.
            observed: bool tensor that broadcasts against `x`; elements that are False do not count.

        Returns:
            A tensor with shape `(*any or *batch)`, the sum over the event.
        """
        return self._sum(self.terms(x), observed)

    @abstractmethod
    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """Draws with shape `(num, *batch, *event)`; differentiable where the distribution is reparameterised.

        Args:
            draw: the source of the noise.
            num: how many draws of each distribution.
            temperature: factor on the standard deviation, where there is one.
        """

    def scored(self, draw: Draw, num: int) -> tuple[Tensor, Tensor | None]:
        """`sample`, and the log-density of the draws where that comes with drawing them.

        Args:
            draw: the source of the noise.
            num: how many draws of each distribution.

        Returns:
            Draws with shape `(num, *batch, *event)`, and their log-density with shape `(num, *batch)`; None leaves it
            to `log_prob`.
        """
        return self.sample(draw, num), None

    def detach(self: D) -> D:
        """The same distribution with its parameters held: gradients reach x, but not what made the parameters."""
        held = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor | Distribution):
                setattr(held, name, value.detach())
        return held

    def affine(self, shift: Tensor, log_scale: Tensor) -> Distribution:
        """The distribution of shift + exp(log_scale) · x for x from this one.

        Args:
            shift: tensor with shape `(B, *event)`.
            log_scale: tensor with shape `(B, *event)`.

        Returns:
            A distribution with batch (B,), where this one has batch () or (B,).
        """
        return Affine(self, shift, log_scale)

    def _sum(self, terms: Tensor, observed: Tensor | None = None) -> Tensor:
        """Sums elementwise terms over the event."""
        if observed is not None:
            terms = torch.where(observed, terms, 0.0)
        return terms.flatten(-len(self.event_shape)).sum(-1) if self.event_shape else terms


class Affine(Distribution):
    """shift + exp(log_scale) · x for x from another distribution, elementwise.

    Args:
        base: the other distribution, batch () or (B,).
        shift: tensor with shape `(B, *event)`.
        log_scale: tensor with shape `(B, *event)`.
    """

    def __init__(self, base: Distribution, shift: Tensor, log_scale: Tensor) -> None:
        self.base, self.shift, self.log_scale = base, promote(shift), promote(log_scale)
        self.factorised = base.factorised
        super().__init__(self.shift.shape, len(base.event_shape))

    @property
    def mean(self) -> Tensor:
        """See `Distribution.mean`."""
        return self.shift + torch.exp(self.log_scale) * self.base.mean

    @property
    def variance(self) -> Tensor:
        """See `Distribution.variance`."""
        return torch.exp(2 * self.log_scale) * self.base.variance

    def terms(self, x: Tensor) -> Tensor:
        """See `Distribution.terms`."""
        return self.base.terms(self._back(x)) - self.log_scale

    def log_prob(self, x: Tensor, observed: Tensor | None = None) -> Tensor:
        """See `Distribution.log_prob`."""
        if observed is not None:
            return self._sum(self.terms(x), observed)
        return self.base.log_prob(self._back(x)) - self._sum(self.log_scale)

    def sample(self, draw: Draw, num: int, temperature: float = 1.0) -> Tensor:
        """See `Distribution.sample`."""
        own = self.base.batch_shape == self.batch_shape
        drawn = self.base.sample(draw, num if own else num * self.batch_shape.numel(), temperature)
        return self.shift + torch.exp(self.log_scale) * drawn.view(num, *self.batch_shape, *self.event_shape)

    def _back(self, x: Tensor) -> Tensor:
        return (promote(x) - self.shift) * torch.exp(-self.log_scale)
