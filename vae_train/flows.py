"""Invertible maps y = f(z) of R^D that know log |det df/dz|.

A `Flow` has its parameters in place: what an encoder or a module gave. `MaskedFlow` is a module that makes flows whose
parameters come from networks (MAF, IAF, RealNVP, neural splines); its masks and its maps of one number are Zuko's
(Rozet et al., 2022), the only use of that library in this program.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_train.distributions.multivariate import lower_triangle

SMALL = 1e-8
"""Added to the squared length of a vector that is divided by."""

REACH = 1 - 1e-6
"""Bound of the diagonals of a Sylvester flow, whose product must stay above -1."""


class Flow(ABC):
    """An invertible map with all its parameters."""

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
            NotImplementedError: there is no formula for the inverse.
        """
        raise NotImplementedError(
            f"a {type(self).__name__} flow has no inverse in closed form: it knows the density of its own draws only"
        )

    def detach(self) -> Flow:
        """The same map with its parameters held: gradients reach z, but not what made the parameters."""
        held = copy.copy(self)
        for name, value in vars(self).items():
            setattr(held, name, _held(value))
        return held


def _held(value: Any) -> Any:
    if isinstance(value, Tensor | Flow):
        return value.detach()
    if isinstance(value, list | tuple):
        return type(value)(map(_held, value))
    return value


class Chain(Flow):
    """One flow after the other.

    Args:
        flows: the first to be applied first.
    """

    def __init__(self, flows: Sequence[Flow]) -> None:
        self.flows = list(flows)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        z, total = self.flows[0].forward(z)
        for flow in self.flows[1:]:
            z, log_det = flow.forward(z)
            total = total + log_det
        return z, total

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.inverse`."""
        y, total = self.flows[-1].inverse(y)
        for flow in reversed(self.flows[:-1]):
            y, log_det = flow.inverse(y)
            total = total + log_det
        return y, total


class Reversed(Flow):
    """The inverse of another flow.

    Args:
        flow: the other, which has an inverse.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        return self.flow.inverse(z)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.inverse`."""
        return self.flow.forward(y)


class Scale(Flow):
    """y = shift + exp(log_scale) · z, elementwise.

    Args:
        shift: tensor with shape `(*batch, D)`.
        log_scale: tensor with shape `(*batch, D)`.
    """

    def __init__(self, shift: Tensor, log_scale: Tensor) -> None:
        self.shift, self.log_scale = shift, log_scale

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        y = self.shift + torch.exp(self.log_scale) * z
        return y, self.log_scale.sum(-1).expand(y.shape[:-1])

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.inverse`."""
        z = (y - self.shift) * torch.exp(-self.log_scale)
        return z, -self.log_scale.sum(-1).expand(z.shape[:-1])


class Planar(Flow):
    """y = z + û tanh(wᵀz + b)      (Rezende & Mohamed, 2015, eq. 10 to 12).

    u is moved along w to û, for which wᵀû = softplus(wᵀu) - 1 > -1: then f is invertible (their appendix A.1).

    Args:
        u: tensor with shape `(*batch, D)`.
        w: tensor with shape `(*batch, D)`.
        b: tensor with shape `(*batch, 1)`.
    """

    def __init__(self, u: Tensor, w: Tensor, b: Tensor) -> None:
        self.w, self.b = w, b
        inner = (w * u).sum(-1, keepdim=True)
        self.u = u + (F.softplus(inner) - 1 - inner) * w / (w.square().sum(-1, keepdim=True) + SMALL)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
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

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        turned = self._turned(z, range(self.reflections.shape[-2]))  # Qᵀz
        bent = torch.tanh((self.second @ turned[..., None])[..., 0] + self.b)
        product = (self.first * self.second).diagonal(dim1=-2, dim2=-1)
        log_det = torch.log1p((1 - bent.square()) * product).sum(-1)
        moved = (self.first @ bent[..., None])[..., 0]
        return z + self._turned(moved, reversed(range(self.reflections.shape[-2]))), log_det

    def _turned(self, z: Tensor, order: Any) -> Tensor:
        """`z` after the reflections: in ascending order Qᵀz, in descending order Qz."""
        for number in order:
            v = self.reflections[..., number, :]
            z = z - 2 * v * (v * z).sum(-1, keepdim=True)
        return z


def _bounded(values: Tensor, size: int) -> Tensor:
    """An upper triangular matrix whose diagonal is within (-1, 1)."""
    free = lower_triangle(values, size).mT
    diagonal = REACH * torch.tanh(free.diagonal(dim1=-2, dim2=-1))
    return free.triu(1) + torch.diag_embed(diagonal)


class Autoregressive(Flow):
    """y_i = t(z_i; parameters of z_<i and of a context), t monotonic      (Kingma et al., 2016; Durkan et al., 2019).

    Args:
        layers: weight and bias of every layer of a masked network from z (and the context) to the parameters.
        univariate: Zuko's class of t, made of these parameters.
        sizes: how many parameters of each kind t takes for one element; where all are 1, they have no dimension.
        passes: evaluations of the network that the inverse takes; D, or 2 for a coupling.
        context: tensor with shape `(*batch, C)`; None for none.
    """

    def __init__(
        self,
        layers: list[tuple[Tensor, Tensor]],
        univariate: Any,
        sizes: tuple[int, ...],
        passes: int,
        context: Tensor | None,
    ) -> None:
        self.layers, self.univariate, self.sizes, self.passes, self.context = layers, univariate, sizes, passes, context

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.forward`."""
        with torch.autocast(z.device.type, enabled=False):  # half a precision is no inverse of itself
            z = self._spread(z)
            y, log_slope = self._map(z).call_and_ladj(z)
            return y, log_slope.sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """See `Flow.inverse`: every pass makes one more group of elements right."""
        with torch.autocast(y.device.type, enabled=False):
            y = self._spread(y)
            z = torch.zeros_like(y)
            for _ in range(self.passes):
                known = self._map(z)
                z = known._inverse(y)
            # The last pass had all the parameters right, since these hang on the groups before.
            return z, -known.log_abs_det_jacobian(z, y).sum(-1)

    def _spread(self, z: Tensor) -> Tensor:
        """`z` with shape `(*N, D)`."""
        if self.context is None:
            return z
        return z.expand(torch.broadcast_tensors(z[..., :1], self.context[..., :1])[0].shape[:-1] + z.shape[-1:])

    def _map(self, z: Tensor) -> Any:
        """t for all elements of `z`."""
        h = z if self.context is None else torch.cat([z, self.context.expand(*z.shape[:-1], -1)], -1)
        *inner, last = self.layers
        for weight, bias in inner:
            h = F.elu(F.linear(h, weight, bias))
        values = F.linear(h, *last).unflatten(-1, (-1, sum(self.sizes)))  # (*N, D, parameters)
        parts = values.split(self.sizes, -1)
        if all(size == 1 for size in self.sizes):
            parts = tuple(part.squeeze(-1) for part in parts)
        return self.univariate(*parts)


def _masked(layer: Any) -> tuple[Tensor, Tensor]:
    """Weight and bias of one of Zuko's masked layers."""
    return layer.mask * layer.weight, layer.bias


class MaskedFlow(nn.Module):
    """Autoregressive flows, one after the other, with the order of the elements reversed from each to the next.

    They start near the identity: their networks' last layers start near 0.

    Args:
        features: D.
        context: C, numbers that the networks see beside z.
        transforms: how many flows.
        hidden: sizes of the hidden layers of each one's network.
        bins: of the rational-quadratic splines on [-5, 5] that t is; None for y = shift + scale · z.
        coupling: the second half of the elements depends on the first alone, so that the inverse takes two passes.

    Raises:
        ValueError: a coupling of one element, or splines of one bin.
    """

    def __init__(
        self, features: int, context: int, transforms: int, hidden: Sequence[int], bins: int | None, coupling: bool
    ) -> None:
        from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

        super().__init__()
        if coupling and features < 2:
            raise ValueError("couples two halves of z, which needs at least 2 latents; use maf or spline for one")
        if bins == 1:
            raise ValueError("a spline with bins=1 is the identity: use at least 2")
        self.features, self.groups = features, 2 if coupling else features
        # A single element without a context would have a network without an input: it sees a constant.
        self.constant = features == 1 and context == 0
        self.univariate = MonotonicAffineTransform if bins is None else MonotonicRQSTransform
        self.sizes = (1, 1) if bins is None else (bins, bins, bins - 1)
        columns = 1 if self.constant else context
        made = [self._network(number, columns, hidden) for number in range(transforms)]
        self.networks = nn.ModuleList(nn.ModuleList(layers) for layers in made)

    def forward(self, context: Tensor | None = None) -> Flow:
        """The flow for a context.

        Args:
            context: tensor with shape `(*batch, C)`.
        """
        flows = []
        for network in self.networks:
            layers = [_masked(layer) for layer in network.children()]
            if self.constant:
                context = layers[0][0].new_ones(1)
            flows.append(Autoregressive(layers, self.univariate, self.sizes, self.groups, context))
        return Chain(flows)

    def _network(self, number: int, context: int, hidden: Sequence[int]) -> list[Any]:
        """The layers of one masked network; its masks are found by looking at numbers, so not on the meta device."""
        from zuko.nn import MaskedLinear, MaskedMLP

        wanted = torch.empty(0).device
        with torch.device("cpu"):
            group = torch.arange(self.features) // -(-self.features // self.groups)
            if number % 2:
                group = group.flip(0)
            sees = torch.cat([group[:, None] > group, torch.ones(self.features, context, dtype=torch.bool)], 1)
            made: Any = MaskedMLP(sees.repeat_interleave(sum(self.sizes), 0), hidden_features=hidden)
            layers = [layer for layer in made if isinstance(layer, MaskedLinear)]
        for layer in layers:
            mask = layer.mask.to(layer.weight.dtype)
            del layer.mask  # a bool would be averaged with the weights, and be saved with them
            layer.register_buffer("mask", mask, persistent=False)
        with torch.no_grad():
            layers[-1].weight.mul_(0.01)
            layers[-1].bias.zero_()
        return [layer.to(wanted) for layer in layers]
