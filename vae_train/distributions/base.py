"""Distributions that sample with an explicit `Rng`.

`torch.distributions` uses the global generator, which fails under `vmap` and makes a sample depend on all
previous samples. These distributions take an `Rng` instead, but otherwise have the method names of
`torch.distributions`.

Shapes: `*batch` indexes the distributions, `*event` is the shape of one sample. Log-probabilities are in nats, summed
over the event, in float32 or float64; half precisions are promoted.

    >>> import torch
    >>> from vae_train.distributions.normal import Normal
    >>> from vae_train.rng import Rng
    >>> p = Normal(torch.zeros(5, 3), torch.zeros(3))
    >>> p.batch_shape, p.event_shape
    (torch.Size([5]), torch.Size([3]))
    >>> z = p.sample(Rng(0, "example"), num=2)
    >>> z.shape, p.log_prob(z).shape
    (torch.Size([2, 5, 3]), torch.Size([2, 5]))
    >>> torch.equal(z, p.sample(Rng(0, "example"), num=2))
    True
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self, override

from vae_train.rng import Rng

LOG_2PI = math.log(2 * math.pi)


def promote(x: Tensor) -> Tensor:
    """`x` in at least float32."""
    return x if x.dtype == torch.float64 else x.float()


class Detachable:
    """An object whose attributes contain parameters: a distribution, or an invertible map."""

    def detach(self) -> Self:
        """A copy with a stop-gradient on its parameters, but not on the values that it is applied to."""
        detached = copy.copy(self)
        for name, value in vars(self).items():
            setattr(detached, name, _detach(value))
        return detached


def _detach(value: Any) -> Any:
    if isinstance(value, Tensor | Detachable):
        return value.detach()
    if isinstance(value, list | tuple):
        return type(value)(map(_detach, value))
    return value


class Distribution(Detachable, ABC):
    """A posterior, a prior or a likelihood with its parameters.

    Args:
        shape: `(*batch, *event)`.
        event_ndim: number of trailing event dimensions.
    """

    log_bins: float | None = None
    """Nats per element to subtract from `log_prob` for a log-probability; None for densities of continuous data."""
    has_density: bool = True
    """Whether `log_prob` is a log-density or log-probability, unlike for a point mass."""
    is_factorized: bool = False
    """Whether the elements of an event are independent, so that `log_prob_elementwise` exists."""
    summary_note: str | None = None
    """What is unusual about `summary`."""
    parameters: Tensor | None = None
    """The decoder's output for this likelihood; None for other distributions."""

    def __init__(self, shape: torch.Size, event_ndim: int) -> None:
        split = len(shape) - event_ndim
        self.batch_shape, self.event_shape = shape[:split], shape[split:]

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expectation, with shape `(*batch, *event)`."""

    @property
    def variance(self) -> Tensor:
        """The variance of every element, with shape `(*batch, *event)`, for distributions of latents except flows."""
        raise NotImplementedError(f"{type(self).__name__} has no closed-form variance")

    def summary(self, rng: Rng) -> dict[str, Tensor]:
        """The tensors that describe a posterior, by name: "mean", "std", and what a family has besides or instead.

        Args:
            rng: the source of the noise for families without a closed form.

        Returns:
            "mean" and "std" have shape `(*batch, *event)`; all others start with `*batch`.
        """
        return {"mean": self.mean, "std": self.variance.sqrt()}

    def error_weight(self) -> Tensor | None:
        """The weight 1 / scale of |x - location| in -log p(x), which broadcasts against `(*batch, *event)`.

        None for all but Laplace densities.
        """
        return None

    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        """Log-density or log-mass of every element in nats, if they are independent (`is_factorized`).

        Args:
            x: values with shape `(*any, *event)` that broadcasts against `(*batch, *event)`.

        Returns:
            A tensor with shape `(*any or *batch, *event)`.
        """
        raise NotImplementedError(f"the elements of {type(self).__name__} are not independent")

    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-density or log-mass in nats.

        Args:
            x: values with shape `(*any, *event)` that broadcasts against `(*batch, *event)`.
            mask: bool tensor that broadcasts against `x`, True for elements to include.

        Returns:
            A tensor with shape `(*any or *batch)`, the sum over the event.
        """
        if mask is None:
            return self.joint_log_prob(x)
        return self._sum(self.log_prob_elementwise(x), mask)

    def joint_log_prob(self, x: Tensor) -> Tensor:
        """`log_prob` without a mask; the elements may be dependent."""
        return self._sum(self.log_prob_elementwise(x))

    @abstractmethod
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        """Samples with shape `(num, *batch, *event)`; differentiable if the distribution is reparameterised.

        Args:
            rng: the source of the noise.
            num: number of samples of each distribution.
            temperature: factor on the standard deviation, or on the corresponding parameter of the family.
        """

    def rsample_and_log_prob(self, rng: Rng, num: int) -> tuple[Tensor, Tensor | None]:
        """Reparameterised samples, with their log-density if sampling also computes it.

        Args:
            rng: the source of the noise.
            num: number of samples of each distribution.

        Returns:
            Samples with shape `(num, *batch, *event)`, and their log-density with shape `(num, *batch)` or None.
        """
        return self.sample(rng, num), None

    def affine(self, shift: Tensor, log_scale: Tensor) -> Distribution:
        """The distribution of shift + exp(log_scale) · x for x from this one.

        Args:
            shift: tensor with shape `(B, *event)`.
            log_scale: tensor with shape `(B, *event)`.

        Returns:
            A distribution with batch (B,), if this one has batch () or (B,).
        """
        return Affine(self, shift, log_scale)

    def _sum(self, terms: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sums elementwise terms over the event."""
        if mask is not None:
            terms = torch.where(mask, terms, 0.0)
        return terms.flatten(-len(self.event_shape)).sum(-1) if self.event_shape else terms


class Located(Distribution):
    """A distribution that is parameterised by its mean.

    Args:
        loc: the mean, with shape `(*batch, *event)`.
        event_ndim: number of trailing event dimensions.
    """

    def __init__(self, loc: Tensor, event_ndim: int = 1) -> None:
        self.loc = promote(loc)
        super().__init__(self.loc.shape, event_ndim)

    @property
    @override
    def mean(self) -> Tensor:
        return self.loc


class PointMass(Located):
    """A point mass at z = loc. It has no density, and therefore no KL and no ELBO.

    Args:
        loc: the point, with shape `(*batch, *event)`.
        event_ndim: number of trailing event dimensions.
    """

    has_density = False
    summary_note = "the posterior is a point, so std is 0"

    @property
    @override
    def variance(self) -> Tensor:
        return self.loc.new_zeros(self.loc.shape)

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        raise ValueError("a point mass has no density, so rate and ELBO are undefined")

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self.loc.expand(num, *self.loc.shape)


class Affine(Distribution):
    """shift + exp(log_scale) · x for x from another distribution, elementwise.

    Args:
        base: the other distribution, batch () or (B,).
        shift: tensor with shape `(B, *event)`.
        log_scale: tensor with shape `(B, *event)`.
    """

    def __init__(self, base: Distribution, shift: Tensor, log_scale: Tensor) -> None:
        self.base, self.shift, self.log_scale = base, promote(shift), promote(log_scale)
        super().__init__(self.shift.shape, len(base.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self.shift + torch.exp(self.log_scale) * self.base.mean

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        standardized = (promote(x) - self.shift) * torch.exp(-self.log_scale)
        return self.base.log_prob(standardized) - self._sum(self.log_scale)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        same_batch = self.base.batch_shape == self.batch_shape
        x = self.base.sample(rng, num if same_batch else num * self.batch_shape.numel(), temperature)
        return self.shift + torch.exp(self.log_scale) * x.view(num, *self.batch_shape, *self.event_shape)
