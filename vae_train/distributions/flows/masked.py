"""Flows with masked autoregressive networks: MAF, IAF, RealNVP and neural splines.

Masks are Zuko's (Rozet et al., 2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.distributions.flows.base import Chain, Flow
from vae_train.distributions.flows.monotonic import INITIAL_FACTOR, monotonic, monotonic_family


@dataclass(eq=False)
class Autoregressive(Flow):
    """y_i = t(z_i; parameters of z_<i and of a context), t monotonic      (Kingma et al., 2016; Durkan et al., 2019).

    Args:
        layers: weight and bias of every layer of a masked network from z (and the context) to the parameters.
        univariate: Zuko's class of t, constructed from these parameters.
        sizes: number of parameters of each kind per element; if all are 1, they have no dimension.
        passes: number of network evaluations for the inverse: D, or 2 for a coupling.
        context: tensor with shape `(*batch, C)`; None for none.
    """

    layers: list[tuple[Tensor, Tensor]]
    univariate: Any
    sizes: tuple[int, ...]
    passes: int
    context: Tensor | None

    @override
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 would not invert itself
            z = self._broadcast(z)
            y, log_slope = self._map(z).call_and_ladj(z)
            return y, log_slope.sum(-1)

    @override
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            y = self._broadcast(y)
            z = torch.zeros_like(y)
            for _ in range(self.passes):
                known = self._map(z)
                z = known._inverse(y)
            # The last pass had correct parameters, since they only depend on earlier groups.
            return z, -known.log_abs_det_jacobian(z, y).sum(-1)

    def _broadcast(self, z: Tensor) -> Tensor:
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
        return monotonic(self.univariate, self.sizes, values)


class MaskedFlow(nn.Module):
    """A sequence of autoregressive flows, with the order of the elements reversed from each to the next.

    They start near the identity, since the last layers of their networks start near 0.

    Args:
        features: D.
        context: C, size of the context, an additional input of the networks.
        transforms: number of flows.
        hidden: sizes of the hidden layers of each transform's network.
        bins: bins of rational-quadratic splines on [-5, 5]; None for y = shift + scale · z.
        coupling: the second half of the elements only depends on the first, so that the inverse takes two passes.

    Raises:
        ValueError: a coupling of one element, or splines with one bin.
    """

    def __init__(
        self, features: int, context: int, transforms: int, hidden: Sequence[int], bins: int | None, coupling: bool
    ) -> None:
        super().__init__()
        if coupling and features < 2:
            raise ValueError("coupling layers need at least 2 latents")
        self.features, self.groups = features, 2 if coupling else features
        # The network of a single element without a context would have no input, so it gets a constant.
        self.constant = features == 1 and context == 0
        self.univariate, self.sizes = monotonic_family(bins)
        columns = 1 if self.constant else context
        networks = [self._network(number, columns, hidden) for number in range(transforms)]
        self.networks = nn.ModuleList(nn.ModuleList(layers) for layers in networks)

    def forward(self, context: Tensor | None = None) -> Flow:
        """The flow for a context.

        Args:
            context: tensor with shape `(*batch, C)`.
        """
        flows = []
        for network in self.networks:
            masked: list[Any] = list(network.children())
            layers = [(layer.mask * layer.weight, layer.bias) for layer in masked]
            if self.constant:
                context = layers[0][0].new_ones(1)
            flows.append(Autoregressive(layers, self.univariate, self.sizes, self.groups, context))
        return Chain(flows)

    def _network(self, number: int, context: int, hidden: Sequence[int]) -> list[Any]:
        """The layers of one masked network. Its masks are computed from values, so not on the meta device."""
        from zuko.nn import MaskedLinear, MaskedMLP

        device = torch.empty(0).device
        with torch.device("cpu"):
            group = torch.arange(self.features) // -(-self.features // self.groups)
            if number % 2:
                group = group.flip(0)
            visible = torch.cat([group[:, None] > group, torch.ones(self.features, context, dtype=torch.bool)], 1)
            network: Any = MaskedMLP(visible.repeat_interleave(sum(self.sizes), 0), hidden_features=hidden)
            layers = [layer for layer in network if isinstance(layer, MaskedLinear)]
        for layer in layers:
            # A persistent buffer of bools would be averaged and saved with the weights.
            layer.mask = nn.Buffer(layer.mask.to(layer.weight.dtype), persistent=False)
        with torch.no_grad():
            layers[-1].weight.mul_(INITIAL_FACTOR)
            layers[-1].bias.zero_()
        return [layer.to(device) for layer in layers]
