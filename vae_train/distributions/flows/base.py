"""Invertible maps y = f(z) of R^D with a tractable log |det df/dz|, and transformed distributions.

A `Flow` has its parameters: an encoder or a module computed them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Detachable, Distribution, promote
from vae_train.distributions.multivariate import lower_triangle
from vae_train.rng import Rng

EPSILON = 1e-8
"""Added to the squared norm of a vector before dividing by it."""

SUMMARY_SAMPLES = 64
"""Samples of z from which a standard deviation without a closed form is estimated."""

MAX_DIAGONAL = 1 - 1e-6
"""Bound of the diagonals of a Sylvester flow, whose product must exceed -1."""


class Flow(Detachable, ABC):
    """An invertible map with its parameters."""

    @abstractmethod
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(z) with shape `(*N, D)`, and log |det df/dz| with shape `(*N)`, in nats.

        Args:
            z: tensor with shape `(*any, D)`, which broadcasts against the parameters' batch to `(*N, D)`.
        """

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """f⁻¹(y) with shape `(*N, D)`, and log |det df⁻¹/dy| with shape `(*N)`, in nats.

        Args:
            y: tensor with shape `(*any, D)`.

        Raises:
            NotImplementedError: the inverse has no closed form.
        """
        raise NotImplementedError(
            f"a {type(self).__name__} flow has no closed-form inverse, so its density is only known at its own samples"
        )


class Chain(Flow):
    """Several flows in sequence.

    Args:
        flows: the flows in order of application.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        self.flows = list(flows)

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return _composed([flow.forward for flow in self.flows], z)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return _composed([flow.inverse for flow in reversed(self.flows)], y)


def _composed(maps: Sequence[Callable[[Tensor], tuple[Tensor, Tensor]]], z: Tensor) -> tuple[Tensor, Tensor]:
    """Applies the maps in sequence, and sums their log-determinants."""
    z, total = maps[0](z)
    for function in maps[1:]:
        z, log_det = function(z)
        total = total + log_det
    return z, total


class Reversed(Flow):
    """The inverse of another flow.

    Args:
        flow: the other flow, which must have an inverse.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.forward(y)


class Scale(Flow):
    """y = shift + exp(log_scale) · z, elementwise.

    Args:
        shift: tensor with shape `(*batch, D)`.
        log_scale: tensor with shape `(*batch, D)`.
    """

    def __init__(self, shift: Tensor, log_scale: Tensor) -> None:
        self.shift, self.log_scale = shift, log_scale

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y = self.shift + torch.exp(self.log_scale) * z
        return y, self.log_scale.sum(-1).expand(y.shape[:-1])

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = (y - self.shift) * torch.exp(-self.log_scale)
        return z, -self.log_scale.sum(-1).expand(z.shape[:-1])


class Planar(Flow):
    """y = z + û tanh(wᵀz + b)      (Rezende & Mohamed, 2015, arXiv:1505.05770, eq. 10 to 12).

    u is shifted along w to û with wᵀû = softplus(wᵀu) - 1 > -1, so that f is invertible (their appendix A.1).

    Args:
        u: tensor with shape `(*batch, D)`.
        w: tensor with shape `(*batch, D)`.
        b: tensor with shape `(*batch, 1)`.
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b
        inner = (w * u).sum(-1, keepdim=True)
        self.u = u + (F.softplus(inner) - 1 - inner) * w / (w.square().sum(-1, keepdim=True) + EPSILON)

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        bent = torch.tanh((self.w * z).sum(-1, keepdim=True) + self.b)  # (*N, 1)
        slope = (1 - bent.square()) * (self.w * self.u).sum(-1, keepdim=True)
        return z + self.u * bent, torch.log1p(slope).squeeze(-1)


class Sylvester(Flow):
    """y = z + Q R₁ tanh(R₂ Qᵀz + b), Q a product of Householder reflections (van den Berg et al., 2018, eq. 13 and 20).

    R₁ and R₂ are upper triangular. Their diagonals are within (-1, 1), so that 1 + h' r₁ r₂ > 0 and f is invertible;
    log |det df/dz| = sum log(1 + h' r₁ r₂) over the diagonals.

    Args:
        reflections: tensor with shape `(*batch, H, D)`, the vectors that Q reflects along.
        first: R₁ before its diagonal is bounded, as `(*batch, D (D + 1) / 2)` values.
        second: R₂, likewise.
        b: tensor with shape `(*batch, D)`.
    """

    def __init__(self, reflections: Tensor, first: Tensor, second: Tensor, b: Tensor) -> None:
        self.reflections, self.b = F.normalize(reflections, dim=-1), b
        self.first, self.second = (_bounded(values, b.shape[-1]) for values in (first, second))

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        turned = self._reflect(z, range(self.reflections.shape[-2]))  # Qᵀz
        bent = torch.tanh((self.second @ turned[..., None])[..., 0] + self.b)
        product = (self.first * self.second).diagonal(dim1=-2, dim2=-1)
        log_det = torch.log1p((1 - bent.square()) * product).sum(-1)
        moved = (self.first @ bent[..., None])[..., 0]
        return z + self._reflect(moved, reversed(range(self.reflections.shape[-2]))), log_det

    def _reflect(self, z: Tensor, order: Any) -> Tensor:
        """`z` after the reflections: in ascending order Qᵀz, in descending order Qz."""
        for number in order:
            v = self.reflections[..., number, :]
            z = z - 2 * v * (v * z).sum(-1, keepdim=True)
        return z


def _bounded(values: Tensor, size: int) -> Tensor:
    """An upper triangular matrix whose diagonal is within (-1, 1)."""
    free = lower_triangle(values, size).mT
    diagonal = MAX_DIAGONAL * torch.tanh(free.diagonal(dim1=-2, dim2=-1))
    return free.triu(1) + torch.diag_embed(diagonal)


class Transformed(Distribution):
    """The distribution of y = f(z) for z from another distribution: log p(y) = log p(z) - log |det df/dz|.

    Rezende & Mohamed, 2015, Variational Inference with Normalizing Flows, arXiv:1505.05770, eq. 5.
    Sampling takes one pass through f, which also gives the log-density of the samples (`rsample_and_log_prob`). The
    log-density of other values needs the inverse of f, which not every flow has. Events with several dimensions are
    flattened before they pass through f.

    Args:
        base: the distribution of z, which determines batch and event shapes.
        flow: f, on the flattened event.
    """

    summary_note = f"mean is the image of the base's mean, and std is estimated from {SUMMARY_SAMPLES} samples"

    def __init__(self, base: Distribution, flow: Flow) -> None:
        self.base, self.flow = base, flow
        super().__init__(base.batch_shape + base.event_shape, len(base.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self._through(self.base.mean)[0]

    @override
    def summary(self, rng: Rng) -> dict[str, Tensor]:
        """ "mean" is the image of the base's mean; "std" is estimated from `SUMMARY_SAMPLES` samples."""
        return {"mean": self.mean, "std": self.sample(rng, SUMMARY_SAMPLES).std(0)}

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        event_ndim = len(self.event_shape)
        z, log_det = self.flow.inverse(promote(x).flatten(-event_ndim))
        return self.base.log_prob(z.unflatten(-1, self.event_shape)) + log_det

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self._through(self.base.sample(rng, num, temperature))[0]

    @override
    def rsample_and_log_prob(self, rng: Rng, num: int) -> tuple[Tensor, Tensor]:
        z = self.base.sample(rng, num)
        y, log_det = self._through(z)
        return y, self.base.log_prob(z) - log_det

    def _through(self, z: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det = self.flow.forward(z.flatten(-len(self.event_shape)))
        return y.unflatten(-1, self.event_shape), log_det
