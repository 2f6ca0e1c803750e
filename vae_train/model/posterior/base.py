"""Base classes of flow posteriors and of posteriors on codes."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.codes import QuantizedPoint
from vae_train.distributions.flows.base import Chain, Flow, Transformed
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.normal import Normal
from vae_train.model.family import Posterior


class FlowPosterior(Posterior):
    """Flows on top of a normal distribution; the parameters are its mean, its log-variance, and those of the flows.

    Args:
        event_shape: shape of z.
        num_flow_parameters: number of parameters of the flows.
    """

    is_factorized = False

    def __init__(self, event_shape: Shape, num_flow_parameters: int) -> None:
        super().__init__(event_shape)
        self.parameter_shape = (2 * self.size + num_flow_parameters,)

    def parts(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and logarithm of the scale with shape `(*N, D)`, and the other parameters."""
        mean, log_variance, others = promote(parameters).tensor_split([self.size, 2 * self.size], -1)
        return mean, 0.5 * log_variance, others

    def normal(self, mean: Tensor, log_scale: Tensor) -> Normal:
        """The normal distribution of z for moments with shape `(*N, D)`."""
        mean, log_scale = (t.unflatten(-1, self.event_shape) for t in (mean, log_scale))
        return Normal(mean, log_scale, len(self.event_shape))


class EncodedFlowPosterior(FlowPosterior):
    """Flows whose parameters all come from the encoder, as in van den Berg et al. (2018).

    They have no closed-form inverse, so log q(z | x) is only tractable at their own samples.

    Args:
        event_shape: shape of z.
        flows: T, the number of flows.
        num_flow_parameters: number of parameters of each flow.
    """

    has_tractable_density = False
    supports_stop_gradient = False

    def __init__(self, event_shape: Shape, flows: int, num_flow_parameters: int) -> None:
        super().__init__(event_shape, flows * num_flow_parameters)
        self.flows = flows

    @abstractmethod
    def flow(self, values: Tensor) -> Flow:
        """One flow, from its parameters with shape `(*N, num_flow_parameters)`."""

    @override
    def forward(self, parameters: Tensor) -> Transformed:
        mean, log_scale, values = self.parts(parameters)
        flows = [self.flow(v) for v in values.unflatten(-1, (self.flows, -1)).unbind(-2)]
        return Transformed(self.normal(mean, log_scale), Chain(flows))


class MaskedFlowPosterior(FlowPosterior):
    """Masked autoregressive flows on top of a normal distribution.

    The masked networks are shared by all images and receive a context, the third part of the parameters. Sampling
    also computes log q(z | x); for other values of z it takes D passes through each network.

    Args:
        event_shape: shape of z.
        flows: T, the number of flows.
        hidden: sizes of the hidden layers of each flow's network.
        context: size of the context.
        bins: bins of each flow's spline; None for affine flows.
    """

    max_map_size = 1024

    def __init__(self, event_shape: Shape, flows: int, hidden: Sequence[int], context: int, bins: int | None) -> None:
        super().__init__(event_shape, context)
        self.flow = MaskedFlow(self.size, context, flows, hidden, bins, coupling=False)


class CodePosterior(Posterior):
    """A point mass on codes, see `vae_train.distributions.codes.Codebook`.

    Args:
        event_shape: shape of z: (C,) for one code, (C, H, W) for H x W codes, of C numbers each.
        num_codes: number of values of an index.
    """

    support = "codes"
    is_factorized = False
    is_quantized = True

    def __init__(self, event_shape: Shape, num_codes: int) -> None:
        super().__init__(event_shape)
        self.num_codes = num_codes
        self.channels, *places = self.event_shape
        self.code_shape: Shape = tuple(places)

    @abstractmethod
    def embed(self, indices: Tensor) -> Tensor:
        """See `Codebook.embed`."""

    @abstractmethod
    def indices(self, z: Tensor) -> Tensor:
        """See `Codebook.indices`."""

    @abstractmethod
    def forward(self, parameters: Tensor) -> QuantizedPoint:
        """The point with batch `(*N,)` for parameters with shape `(*N, *event_shape)`."""

    def to_vectors(self, z: Tensor) -> Tensor:
        """Moves the channels of z to the end: `(*N, *places, C)`."""
        return z.movedim(-len(self.event_shape), -1)

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """The inverse of `to_vectors`."""
        return vectors.movedim(-1, -len(self.event_shape))
