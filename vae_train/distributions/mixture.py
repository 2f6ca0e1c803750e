"""Mixtures, and products of independent distributions."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import LOG_2PI, Distribution, promote
from vae_train.distributions.normal import Normal
from vae_train.rng import Rng


class Mixture(Distribution):
    """M distributions with weights w that sum to 1, log p(x) = log sum_j w_j p_j(x). Its batch is ().

    Samples are reparameterised within components; there is no gradient through the choice of the component.

    Args:
        components: distributions with batch (M,).
        logits: unnormalised log-weights with shape `(M,)`; log-softmax makes them sum to 1.
    """

    def __init__(self, components: Distribution, logits: Tensor) -> None:
        if components.batch_shape != logits.shape or logits.dim() != 1:
            raise ValueError(
                f"a mixture takes components with batch (M,) and M weights, not {tuple(components.batch_shape)} and "
                f"{tuple(logits.shape)}"
            )
        self.components = components
        self.log_weights = promote(logits).log_softmax(-1)
        self.log_bins, self.has_density = components.log_bins, components.has_density
        super().__init__(components.event_shape, len(components.event_shape))

    @property
    @override
    def mean(self) -> Tensor:
        return self._average(self.components.mean)

    @property
    @override
    def variance(self) -> Tensor:
        distance = self.components.mean - self.mean
        return self._average(self.components.variance + distance * distance)

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        # The products need float64, which Apple's GPUs lack.
        if type(self.components) is Normal and x.device.type != "mps":
            each = _normal_log_probs(self.components, x)
        else:
            each = self.components.log_prob(promote(x).unsqueeze(-len(self.event_shape) - 1))
        return torch.logsumexp(each + self.log_weights, -1)  # (*any, M) -> (*any)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        uniform = rng.uniform((num, 1), self.log_weights.dtype)
        chosen = (uniform >= self.log_weights.exp().cumsum(-1)[:-1]).sum(-1)  # (num,)
        if type(self.components) is not Normal:
            return self.components.sample(rng, num, temperature)[torch.arange(num, device=chosen.device), chosen]
        noise = rng.normal((num, *self.event_shape), self.components.loc.dtype)
        scale = torch.exp(self.components.log_scale).expand(self.components.mean.shape)
        return torch.addcmul(self.components.mean[chosen], scale[chosen], noise, value=temperature)

    def _average(self, values: Tensor) -> Tensor:
        return torch.tensordot(self.log_weights.exp().to(values.dtype), values, 1)


def _normal_log_probs(components: Normal, x: Tensor) -> Tensor:
    """Log-density of every component, `(*any, M)`, by one matrix product instead of a tensor `(*any, M, D)`.

        -½ sum_d ((x_d - m_d) / s_d)² = [x², x] · [-½ / s², m / s²] - ½ sum_d (m_d / s_d)²

    For small scales the terms are far larger than their sum, so the product is in float64: float32
    leaves errors of 1e-3 nats, and its TF32 or bfloat16 product (of autocast) whole nats. Per sample it costs 4 M D
    operations, little beside the networks even on processors that are slow at float64.
    """
    ndim = len(components.event_shape)
    mean = components.mean.flatten(-ndim).double() if ndim else components.mean[..., None].double()  # (M, D)
    log_scale = components.log_scale.expand(components.mean.shape).double().reshape(mean.shape)
    values = x.flatten(-ndim).double() if ndim else x[..., None].double()  # (*any, D)
    precision = torch.exp(-2 * log_scale)
    shifted = mean * precision
    constant = -0.5 * (mean * shifted).sum(-1) - log_scale.sum(-1) - 0.5 * LOG_2PI * mean.shape[-1]  # (M,)
    factors = torch.cat([-0.5 * precision, shifted], -1)  # (M, 2 D)
    powers = torch.cat([values * values, values], -1).reshape(-1, factors.shape[-1])
    log_probs = torch.addmm(constant, powers, factors.mT).view(*values.shape[:-1], -1)
    return log_probs.to(torch.promote_types(promote(x).dtype, components.loc.dtype))


class Product(Distribution):
    """Independent distributions whose events are concatenated along the last dimension, log p(x) = sum_i log p_i(x_i).

    Args:
        parts: distributions with the same batch shape, and event shapes that only differ in the last dimension.
    """

    def __init__(self, parts: Sequence[Distribution]) -> None:
        self.parts = tuple(parts)
        self.sizes = [part.event_shape[-1] for part in parts]
        first = parts[0]
        if any(p.batch_shape != first.batch_shape or p.event_shape[:-1] != first.event_shape[:-1] for p in parts):
            shapes = ", ".join(f"{(*p.batch_shape, *p.event_shape)}" for p in parts)
            raise ValueError(f"the parts of a product may differ in the last dimension only, not {shapes}")
        self.has_density = all(part.has_density for part in parts)
        self.summary_note = next((part.summary_note for part in parts if part.summary_note), None)
        event = torch.Size([*first.event_shape[:-1], sum(self.sizes)])
        super().__init__(first.batch_shape + event, len(event))

    @property
    @override
    def mean(self) -> Tensor:
        return torch.cat([part.mean for part in self.parts], -1)

    @property
    @override
    def variance(self) -> Tensor:
        return torch.cat([part.variance for part in self.parts], -1)

    @override
    def summary(self, rng: Rng) -> dict[str, Tensor]:
        """The tensors of all parts, concatenated by name along the last dimension."""
        found: dict[str, list[Tensor]] = {}
        for part in self.parts:
            for name, tensor in part.summary(rng).items():
                found.setdefault(name, []).append(tensor)
        return {name: torch.cat(tensors, -1) for name, tensors in found.items()}

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        return torch.stack([part.log_prob(own) for part, own in zip(self.parts, self.split(x), strict=True)]).sum(0)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return torch.cat([part.sample(rng, num, temperature) for part in self.parts], -1)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The elements of `x` that belong to each part."""
        return x.split(self.sizes, -1)
