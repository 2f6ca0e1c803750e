"""distortion + beta · ½ |z|² + weight · R(decoder)      (RAE).

Ghosh et al., 2020, From Variational to Deterministic Autoencoders, arXiv:1903.12436, section 3.

l2:                R = sum of the squared weights of the decoder
gradient_penalty:  R = E |d mean(x | z) / dz|²_F, with the squared norm v ↦ |v·J|², v ~ N(0, I)
spectral:          R = sum over the decoder's layers of the squared largest singular value
"""

from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.model.traits import CAPABILITIES, ModelTraits
from vae_train.objective.base import Context, Objective
from vae_train.objective.spectral import squared_spectral_norm
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class RAE(Objective):
    """A deterministic autoencoder whose decoder is regularised by a penalty instead of noise in z.

    Deviations from the paper: "spectral" penalises the largest singular values, whereas the paper divides the
    weights by them; and the norm of the Jacobian is estimated with one random direction v.
    Evaluation leaves out the gradient penalty, which needs a gradient. Sampling needs a prior that is
    fitted to the latents afterwards.

    Args:
        num_samples: samples of z per image.
        beta: weight of the squared norm of z.
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
    def check_compatible(cls, model: ModelTraits, **settings: Any) -> Incompatible | None:
        if any(layer.is_quantized for layer in model.layers):
            return Incompatible(
                "penalises the norm of z, but z consists of codes", {"objective": "elbo", "posterior": "deterministic"}
            )
        if not any(layer.has_density for layer in model.layers):
            return None
        return Incompatible("needs latents without noise", {"posterior": "deterministic", "objective": "wae_mmd"})

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        length = torch.stack([0.5 * latent.z.square().flatten(2).sum(-1).mean() for latent in trace.latents]).sum()
        loss = trace.distortion().mean() + self.beta * length
        terms = {"loss": loss, "code_length": length}
        penalty = self._penalty(trace, context)
        return terms if penalty is None else terms | {"loss": loss + self.weight * penalty, "penalty": penalty}

    def _penalty(self, trace: Trace, context: Context) -> Tensor | None:
        """R, a scalar; None if it is disabled, or needs a gradient while gradients are disabled."""
        if self.regularizer == "none" or (self.regularizer == "gradient_penalty" and not torch.is_grad_enabled()):
            return None
        if self.regularizer == "gradient_penalty":
            return _squared_jacobian(trace, context)
        measure = {"l2": _squares, "spectral": squared_spectral_norm}[self.regularizer]
        # Weights of linear and convolutional layers, without biases, which are vectors.
        return torch.stack([measure(p) for p in context.model.decoder_parameters() if p.dim() > 1]).sum()


def _squared_jacobian(trace: Trace, context: Context) -> Tensor:
    """|J|²_F of the likelihood's mean, the mean over samples, estimated from one direction each."""
    mean, z = trace.px.mean, trace.latents[0].z
    direction = context.rng.normal(mean.shape, mean.dtype)
    (gradient,) = torch.autograd.grad((mean * direction).sum(), z, create_graph=True)
    return gradient.square().flatten(2).sum(-1).mean()


def _squares(weight: Tensor) -> Tensor:
    return weight.square().sum()
