"""distortion + beta · rate + perceptual distance + w · adversarial(mean(x | z)): the first stage of latent generators.

Esser et al., 2021, Taming Transformers, arXiv:2012.09841, eq. 5 to 7; Rombach et al., 2022, High-Resolution Image
Synthesis with Latent Diffusion Models, arXiv:2112.10752, appendix G, whose weights are those of convention = "ldm".
With a Laplace likelihood of scale b and D values per image:

    r    = distortion + weight_p · d(x, x̂) · (D / (2 b) if convention is "ldm", else 1)
    loss = r + beta · rate + weight · balance · adversarial,      balance = |dr / dW| / |d adversarial / dW|

x̂ is the mean of p(x | z), d the perceptual distance and W the last weight of the decoder. Latent diffusion has
L1 / s + log s for pixels in [-1, 1], s = 1, and adds the perceptual distance to the L1 of every value before it sums
over D. For pixels in [0, 1], this is the negative log-likelihood of a Laplace density with scale b = s / 2.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import WholeBatch
from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.model.traits import CAPABILITIES
from vae_train.objective.adversarial import Kind, adversarial_loss, critic_loss, gradient_ratio, observed
from vae_train.objective.base import Context, WeightedRate, scalar_like
from vae_train.objective.critics import PatchCritic, smallest_side
from vae_train.objective.perceptual import Perceptual
from vae_train.objective.schedule import BetaSchedule
from vae_train.util.ranges import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

KERNEL = 4
"""Side of the kernels of the critic's last layers, as in the paper."""


class FirstStage(WeightedRate):
    """The negative ELBO with a perceptual distance and an adversarial loss; for a Laplace likelihood, or any other.

    Args:
        num_samples: samples of z per image.
        beta: weight of the rate; 1e-6 in latent diffusion.
        beta_schedule: a factor on beta as a function of the step.
        convention: the unit of the weight of the perceptual distance, see above: "ldm" for nats per value at b = 1/2,
            "nats" for nats per image. Other likelihoods than Laplace count as b = 1/2.
        perceptual: the perceptual distance with its weight.
        weight: weight of the adversarial loss; 0 for none, without a critic.
        adaptive: scale this weight by the ratio of the gradients at the decoder's last weight. Evaluation uses the
            ratio of the last update.
        kind: the adversarial losses, see `vae_train.objective.adversarial`.
        r1: weight of the penalty on the critic's gradient at real images; 0 for none.
        start_step: optimiser step at which the critic starts. Captured steps (`execution=graph`) cannot leave it out
            before, so that its optimiser counts these steps, with gradients of 0.
        channels: channels of the critic's first layer.
        layers: layers of the critic with stride 2; fewer where the images are too small for them.
        critic_lr: the critic's learning rate; None for that of the model.
        data_shape: (C, H, W) of an image.
    """

    capabilities = CAPABILITIES - {"compile", "vmap"}  # gradients within the loss
    monitored = "reconstruction"
    gathers = True

    def __init__(
        self,
        num_samples: PositiveInt,
        beta: NonNegativeFloat,
        beta_schedule: BetaSchedule,
        convention: Literal["ldm", "nats"],
        perceptual: Perceptual,
        weight: NonNegativeFloat,
        adaptive: bool,
        kind: Kind,
        r1: NonNegativeFloat,
        start_step: NonNegativeInt,
        channels: PositiveInt,
        layers: PositiveInt,
        critic_lr: PositiveFloat | None,
        data_shape: tuple[int, ...],
    ) -> None:
        super().__init__(num_samples, beta, beta_schedule)
        self.convention, self.perceptual = convention, perceptual
        self.weight, self.adaptive, self.kind, self.r1, self.critic_lr = weight, adaptive, kind, r1, critic_lr
        self.start_step = start_step
        self.notes = tuple(filter(None, [perceptual.note])) if perceptual.weight else ()
        self.resolved = {f"perceptual.{name}": value for name, value in perceptual.resolved.items()}
        self.critic: PatchCritic | None = None
        if weight:
            self.settled_step = max(self.settled_step, float(start_step))
            fitting = [n for n in range(1, layers + 1) if smallest_side(n, KERNEL) <= min(data_shape[1:])]
            self.critic = PatchCritic(data_shape, channels, max(fitting, default=1), KERNEL)
            self.balance = nn.Buffer(torch.ones(()))

    @classmethod
    @override
    def couples_batch(cls, **settings: Any) -> bool:
        return bool(settings["weight"] and settings["adaptive"])  # the ratio of gradients is not a mean over images

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        distortion, rate = trace.distortion().mean(), trace.rate().mean()
        beta = self.beta_at(context.step, rate)
        reconstructed = observed(trace, trace.px.mean)
        real, fake = observed(trace, trace.x), reconstructed.flatten(0, 1)
        scalars, reconstruction = {"beta": beta}, distortion
        if self.perceptual.weight:
            distance = self.perceptual(fake, real.expand_as(reconstructed).flatten(0, 1))
            weights = self.perceptual.weight * self._values(trace) * distance.view(reconstructed.shape[:2])
            reconstruction = distortion + weights.mean()
            scalars["perceptual"] = distance.mean()
        scalars["reconstruction"] = reconstruction + beta * rate
        if self.critic is None:
            return {"loss": scalars["reconstruction"], **scalars}
        if isinstance(context.step, int) and context.step < self.start_step:  # spares the critic
            zero = torch.zeros_like(rate.detach())
            scalars |= {"adversarial": zero, "balance": self.balance.to(rate.dtype, copy=True)}
            return {"loss": scalars["reconstruction"], "critic_loss": zero, **scalars}
        active = scalar_like(1.0 * (context.step >= self.start_step), rate)
        real, fake = 2 * real - 1, 2 * fake - 1
        adversarial = adversarial_loss(self.critic(fake), self.kind)
        balance = self._balance(reconstruction, adversarial, _last_weight(context.model, trace), context.whole)
        loss = scalars["reconstruction"] + active * self.weight * balance * adversarial
        # Each loss only trains its own parameters: those of the critic, or those of the model.
        loss_of_critic = active * critic_loss(self.critic, real.detach(), fake.detach(), self.kind, self.r1)
        scalars |= {"adversarial": adversarial, "balance": balance}
        return {"loss": loss, "critic_loss": loss_of_critic, **scalars}

    @override
    def statistics(self, trace: Trace, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        return {} if self.critic is None else {"balance": scalars["balance"]}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        if statistics:
            self.balance.copy_(statistics["balance"])

    def _values(self, trace: Trace) -> Tensor | float:
        """The number of values that the perceptual distance counts for, D / (2 b), broadcasts against (K, B)."""
        if self.convention == "nats":
            return 1.0
        values, error_weight = trace.x[0].numel(), trace.px.error_weight()
        if error_weight is None:
            return values
        # Without a gradient, so that a learned scale stays that of the pixels alone.
        each = error_weight.detach().expand(trace.px.batch_shape + trace.px.event_shape)
        return values / 2 * each.flatten(2).mean(-1)

    def _balance(self, reconstruction: Tensor, adversarial: Tensor, at: Tensor, whole: WholeBatch) -> Tensor:
        if not self.adaptive:
            return torch.ones_like(reconstruction)
        if not torch.is_grad_enabled():
            return self.balance.to(reconstruction.dtype, copy=True)
        return gradient_ratio(reconstruction, adversarial, at, whole)


def _last_weight(model: LatentVariableModel, trace: Trace) -> Tensor:
    """The last weight of the decoder, or its output if it is frozen."""
    weights = [p for p in model.decoder_parameters() if p.dim() > 1 and p.requires_grad]
    if weights:
        return weights[-1]
    assert trace.px.parameters is not None, "p(x | z) has no decoder output"
    return trace.px.parameters
