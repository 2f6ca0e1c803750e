"""Base classes of flow posteriors and of posteriors on codes."""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Batch, Images, Shape, evenly_spaced
from vae_train.distributions.base import promote
from vae_train.distributions.codes import QuantizedPoint
from vae_train.distributions.flows.base import Chain, Flow, Transformed
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.normal import Normal
from vae_train.model.codes.codebooks import Codebooks, Learning
from vae_train.model.codes.usage import count_codes, usage_of
from vae_train.model.family import Posterior
from vae_train.model.trace import Latent
from vae_train.util.errors import UsageError

VECTORS_PER_CODE = 32
"""Vectors of training images per code for the start of a codebook, if there are so many."""

IMAGES_PER_PASS = 256


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
        num_codebooks: see `Codebook`.
    """

    support = "codes"
    is_factorized = False
    collapse_advice: ClassVar[str]
    """What to try if few codes are in use."""
    is_quantized = True

    def __init__(self, event_shape: Shape, num_codes: int, num_codebooks: int = 1) -> None:
        super().__init__(event_shape)
        self.num_codes, self.num_codebooks = num_codes, num_codebooks
        self.usage = nn.Buffer(torch.zeros(num_codebooks, num_codes))
        """How often every code occurred per image, summed over the updates since the last call of `epoch_metrics`."""
        self.channels, *places = self.event_shape
        self.places: Shape = tuple(places)
        self.code_shape = self.places

    @abstractmethod
    def embed(self, indices: Tensor) -> Tensor:
        """See `Codebook.embed`."""

    @abstractmethod
    def indices(self, z: Tensor) -> Tensor:
        """See `Codebook.indices`."""

    @abstractmethod
    def forward(self, parameters: Tensor) -> QuantizedPoint:
        """The point with batch `(*N,)` for parameters with shape `(*N, *event_shape)`."""

    @override
    def statistics(self, latent: Latent) -> dict[str, Tensor]:
        if not torch.is_grad_enabled():  # in evaluation
            return {}
        codes: Tensor = latent.q.codes  # type: ignore[attr-defined]
        return {"counts": count_codes(codes, self.num_codebooks, self.num_codes) / len(codes)}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        self.usage.add_(statistics["counts"])

    @override
    def epoch_metrics(self) -> dict[str, float]:
        usage = usage_of(self.usage)
        self.usage.zero_()
        return {"codes_used": float(usage.used), "code_perplexity": usage.perplexity}

    def to_vectors(self, z: Tensor) -> Tensor:
        """Moves the channels of z to the end: `(*N, *places, C)`."""
        return z.movedim(-len(self.event_shape), -1)

    def from_vectors(self, vectors: Tensor) -> Tensor:
        """The inverse of `to_vectors`."""
        return vectors.movedim(-1, -len(self.event_shape))


class LearnedCodePosterior(CodePosterior):
    """A point mass on the codes of learned codebooks; the parameters are the vectors before quantisation.

    The gradient of z is passed to the encoder as if nothing had been quantised (straight-through). The auxiliary loss
    of an image is

        commitment · sum |v - sg(e)|²  (+ sum |sg(v) - e|² where the codebook is learned by gradients)

    over the vectors v of its codes and their nearest e, with a stop-gradient sg (van den Oord et al., 2017,
    arXiv:1711.00937, eq. 3).

    Args:
        event_shape: shape of z: (C,) for one code, (C, H, W) for H x W codes, of C numbers each.
        num_codebooks: Q, number of codebooks, see `Codebooks`.
        num_codes: size of each codebook.
        learning: "ema" for moving averages of the encoder's outputs; "gradient" for the second term of the loss.
        decay: decay of the moving averages, also of how often a code is used.
        commitment: weight of the first term of the loss, in nats per squared unit of z.
        revive: a code that is used less than this fraction of the average is replaced; 0 for never.
        start: "data" for k-means of the vectors of training images; "random" for normal numbers.
    """

    collapse_advice = (
        "raise model.posterior.revive, lower lr, or use fewer codes (model.posterior.num_codes) or model/posterior=fsq"
    )

    def __init__(
        self,
        event_shape: Shape,
        num_codebooks: int,
        num_codes: int,
        learning: Learning,
        decay: float,
        commitment: float,
        revive: float,
        start: Literal["data", "random"],
    ) -> None:
        super().__init__(event_shape, num_codes, num_codebooks)
        self.commitment, self.start = commitment, start
        self.codebooks = Codebooks(num_codebooks, num_codes, self.channels, learning, decay, revive)

    @override
    @torch.no_grad()
    def initialize(self, images: Images, encode: Callable[[Batch], Tensor]) -> None:
        if self.start == "random":
            return
        per_image = math.prod(self.places)
        count = min(len(images), -(-VECTORS_PER_CODE * self.num_codes // per_image))
        if count * per_image < self.num_codes:
            raise UsageError(
                f"model.posterior.num_codes={self.num_codes}: exceeds the {count * per_image:,} vectors of all "
                "training images; use fewer codes, or model.posterior.start=random"
            )
        device = self.codebooks.vectors.device
        numbers = evenly_spaced(len(images), count).to(device).split(IMAGES_PER_PASS)
        vectors = torch.cat([self.to_vectors(promote(encode(images.fetch(rows)))).flatten(0, -2) for rows in numbers])
        self.codebooks.fit(vectors, per_image)

    @override
    def forward(self, parameters: Tensor) -> QuantizedPoint:
        vectors = self.to_vectors(promote(parameters))
        with torch.autocast(parameters.device.type, enabled=False):
            quantized = self.codebooks(vectors)
        # The value is exactly that of the codes.
        z = self.from_vectors(quantized.vectors.detach() + (vectors - vectors.detach()))
        return QuantizedPoint(z, self.to_indices(quantized.codes), len(self.event_shape), quantized)

    @override
    def auxiliary(self, q: QuantizedPoint) -> Tensor:
        commitment, error = self.codebooks.distances(q.source)
        loss = self.commitment * commitment
        if self.codebooks.learning == "gradient":
            loss = loss + error
        return loss.flatten(1).sum(1) if self.places else loss

    @override
    def statistics(self, latent: Latent) -> dict[str, Tensor]:
        q: Any = latent.q
        if q.noise is None:  # in evaluation
            return {}
        _, codes, residuals = q.source
        batch, num_codebooks = len(codes), codes.shape[-1]
        noise = self.to_vectors(q.noise).reshape(batch, -1, self.channels)
        residuals = residuals.reshape(batch, -1, num_codebooks, self.channels)
        return self.codebooks.statistics(residuals, codes.reshape(batch, -1, num_codebooks), noise)

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        super().update_state(statistics)
        self.codebooks.update(statistics)

    @override
    def embed(self, indices: Tensor) -> Tensor:
        return self.from_vectors(self.codebooks.embed(self.to_codes(indices)))

    @override
    def indices(self, z: Tensor) -> Tensor:
        return self.to_indices(self.codebooks(self.to_vectors(promote(z))).codes)

    @abstractmethod
    def to_indices(self, codes: Tensor) -> Tensor:
        """Indices `(*N, *code_shape)` of codes `(*N, *places, Q)`."""

    @abstractmethod
    def to_codes(self, indices: Tensor) -> Tensor:
        """The inverse of `to_indices`."""
