"""distortion + beta · sum_i γ_i · max(λ, rate_i) + spectral · sum of the weights' largest singular values      (NVAE).

Vahdat & Kautz, 2020, NVAE: A Deep Hierarchical Variational Autoencoder, arXiv:2007.03898, section 3.2 and appendix A.
In training, until beta has reached its maximum, the weight of layer i of L is proportional to the mean rate of the
elements of its z,

    γ_i = L · a_i / sum_j a_j,      a_i = (mean rate of layer i over the batch + 0.01) / number of elements of z_i

and a constant for the gradient. A layer that carries little costs little, so that it is not given up while the others
learn. Afterwards, and in evaluation, all γ_i are 1.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.model.traits import ModelTraits
from vae_train.objective.base import Context, WeightedRate
from vae_train.objective.schedule import BetaSchedule
from vae_train.objective.spectral import squared_spectral_norm
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import NonNegativeFloat, PositiveInt

MIN_RATE = 0.01
"""Nats that are added to the rate of every layer, so that its weight is never 0."""


class Balanced(WeightedRate):
    """The negative ELBO with balanced layers and a penalty on singular values, for models with many layers.

    Args:
        num_samples: samples of z per image.
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step; layers are balanced until its maximum.
        free_bits: λ, rate of a layer in nats below which the loss does not decrease further; 0 for none.
        spectral: weight of the largest singular values of all linear layers and convolutions, in nats; 0 for none.
    """

    gathers = True

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        free_bits: NonNegativeFloat,
        spectral: NonNegativeFloat,
    ) -> None:
        super().__init__(num_samples, beta, beta_schedule)
        self.free_bits, self.spectral = free_bits, spectral

    @classmethod
    @override
    def check_compatible(cls, model: ModelTraits, **settings: Any) -> Incompatible | None:
        error = super().check_compatible(model, **settings)
        if error is not None or not any(layer.is_quantized for layer in model.layers):
            return error
        reason = "balances rates, but the rate of a point mass on codes has no gradient"
        return Incompatible(reason, {"objective": "elbo"})

    @classmethod
    @override
    def couples_batch(cls, **settings: Any) -> bool:
        return True  # weights and free bits follow the mean rates of the batch

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        rates = context.whole.mean(torch.stack([latent.rate().mean() for latent in trace.latents]))
        beta = self.beta_at(context.step, rates)
        floored = rates.clamp(min=self.free_bits)
        if torch.is_grad_enabled():
            floored = torch.where(beta < self.beta, self._weights(trace, rates), 1.0) * floored
        loss = trace.distortion().mean() + beta * floored.sum()
        terms = {"loss": loss, "beta": beta}
        if not self.spectral:
            return terms
        norms = singular_values(context.model)
        return terms | {"loss": loss + self.spectral * norms.to(loss.dtype), "singular_values": norms}

    def _weights(self, trace: Trace, rates: Tensor) -> Tensor:
        """γ of every layer, with mean 1."""
        means = zip(rates.detach().unbind(), trace.latents, strict=True)
        each = torch.stack([(rate + MIN_RATE) / latent.z[0, 0].numel() for rate, latent in means])
        return each / each.mean()


def singular_values(model: LatentVariableModel) -> Tensor:
    """The largest singular values of all linear layers and convolutions, summed."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)]
    return torch.stack([squared_spectral_norm(weight).clamp_min(1e-12).sqrt() for weight in weights]).sum()
