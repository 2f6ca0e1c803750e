"""distortion + beta · ½ |z|² + weight · R(decoder)      (regularised autoencoder; Ghosh et al., 2020, section 3).

l2:                R = sum of the squared weights of the decoder
gradient_penalty:  R = E |d mean(x | z) / dz|²_F, with the squared norm v ↦ |v·J|², v ~ N(0, I)
spectral:          R = sum over the decoder's layers of the squared largest singular value
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.model.family import CAPABILITIES
from vae_train.model.trace import Trace
from vae_train.objective.base import Objective
from vae_train.util.ranges import NonNegativeFloat, PositiveInt

POWER_STEPS = 10
"""Steps of the power iteration; it starts from the same vector every time and keeps nothing."""


class RAE(Objective):
    """A deterministic autoencoder, whose decoder is smooth because a penalty says so and not because z is noisy.

    What differs from the paper: "spectral" punishes the largest singular
    values where the paper divides the weights by them, and the Jacobian's norm is estimated with one random direction
    (its expectation over v is the norm itself). The gradient penalty needs a gradient: evaluation, which has none,
    leaves it out of the loss. Samples need a density that is fitted to the codes afterwards.

    Args:
        num_samples: draws of z per image.
        beta: weight of the codes' squared length.
        regularizer: R.
        weight: weight of R.
    """

    capabilities = CAPABILITIES - {"compile", "vmap"}  # a gradient within the loss
    needs_density = False

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        regularizer: Literal["l2", "gradient_penalty", "spectral", "none"],
        weight: NonNegativeFloat,
    ) -> None:
        super().__init__(num_samples)
        self.beta, self.regularizer, self.weight = beta, regularizer, weight

    @classmethod
    @override
    def refusal(cls, posterior: Any, prior: Any, likelihood: Any, **knobs: Any) -> str | None:
        if not posterior.has_density:
            return None
        return "is meant for codes without noise. Use model/posterior=deterministic, or objective=wae_mmd"

    @override
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        length = torch.stack([0.5 * latent.z.square().flatten(2).sum(-1).mean() for latent in trace.latents]).sum()
        loss = trace.distortion().mean() + self.beta * length
        terms = {"loss": loss, "code_length": length}
        penalty = self._penalty(trace)
        return terms if penalty is None else terms | {"loss": loss + self.weight * penalty, "penalty": penalty}

    def _penalty(self, trace: Trace) -> Tensor | None:
        """R, a scalar; None where there is none or where it cannot be had."""
        if self.regularizer == "none" or (self.regularizer == "gradient_penalty" and not torch.is_grad_enabled()):
            return None
        if self.regularizer == "gradient_penalty":
            return _jacobian(trace)
        assert trace.decoder is not None, "this objective needs a model that hands its decoder on"
        measure = {"l2": _squares, "spectral": _largest_singular_value}[self.regularizer]
        return _over_weights(trace.decoder, measure)


def _jacobian(trace: Trace) -> Tensor:
    """|J|²_F of the likelihood's mean, the mean over draws, estimated from one direction each."""
    mean, z = trace.px.mean, trace.latents[0].z
    assert trace.rng is not None
    direction = trace.rng.normal(mean.shape, mean.dtype)
    (gradient,) = torch.autograd.grad((mean * direction).sum(), z, create_graph=True)
    return gradient.square().flatten(2).sum(-1).mean()


def _over_weights(decoder: nn.Module, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """The sum of `measure` over the weights of linear maps and convolutions."""
    return torch.stack([measure(p) for p in decoder.parameters() if p.dim() > 1]).sum()


def _squares(weight: Tensor) -> Tensor:
    return weight.square().sum()


def _largest_singular_value(weight: Tensor) -> Tensor:
    """sigma², by power iteration; of the matrix `(out, everything else)`."""
    matrix = weight.flatten(1)
    with torch.no_grad():
        right = torch.full_like(matrix[0], matrix.shape[1] ** -0.5)
        right = right + 0.1 * torch.linspace(-1.0, 1.0, len(right), dtype=right.dtype, device=right.device)
        for _ in range(POWER_STEPS):
            left = nn.functional.normalize(matrix @ right, dim=0)
            right = nn.functional.normalize(matrix.T @ left, dim=0)
    return (left @ matrix @ right).square()
