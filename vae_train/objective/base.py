"""What an objective is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn

from vae_train.model.base import Prior
from vae_train.model.family import CAPABILITIES, Likelihood, Posterior
from vae_train.model.trace import Latent, Trace
from vae_train.objective.bounds import Gradient
from vae_train.util.numbers import Number
from vae_train.util.ranges import PositiveInt


class Objective(nn.Module, ABC):
    """Trace -> scalars.

    Args:
        num_samples: K, draws of z per image that it asks the model for.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    needs_density: ClassVar[bool] = True
    """Whether it uses log q(z | x) or the rate, which a point mass has not."""
    needs_likelihood: ClassVar[bool] = False
    """Whether it averages exp(log p(x | z)), which only a likelihood can stand for."""
    per_image: ClassVar[bool] = True
    """Whether the loss is a mean over images. Otherwise it compares the images of a batch, which cannot be cut."""
    critic_lr: float | None = None
    """Learning rate of its own parameters, where it is not that of the model."""

    def __init__(self, num_samples: PositiveInt) -> None:
        super().__init__()
        self.num_samples = num_samples

    @classmethod
    def refusal(
        cls, posterior: type[Posterior], prior: type[Prior], likelihood: type[Likelihood], **knobs: Any
    ) -> str | None:
        """Why this objective makes no sense for such a model, and what would; None where it does.

        Args:
            posterior: the class of q(z | x).
            prior: the class of p(z).
            likelihood: the class of p(x | z).
            knobs: its own settings.
        """
        if cls.needs_density and not posterior.has_density:
            return (
                "needs the density q(z | x), and the posterior is a point mass: there is no KL and no bound. "
                "Use objective=rae or objective=wae_mmd, or model/posterior=gaussian"
            )
        if cls.needs_likelihood and likelihood.warning:
            return f"weighs draws by p(x | z), and there is none ({likelihood.warning}). Use objective=elbo"
        return None

    @classmethod
    def couples_batch(cls, **knobs: Any) -> bool:
        """Whether with such settings the images of a batch are compared, see `per_image`."""
        return not cls.per_image

    def update_state(self, scalars: dict[str, Tensor]) -> None:
        """Moves a state of its own, in place, with every update; evaluation never calls it.

        Args:
            scalars: what `forward` and every run report, over the whole batch, detached.
        """

    @abstractmethod
    def forward(self, trace: Trace, step: int | Tensor) -> dict[str, Tensor]:
        """The scalars of one batch, means over its images.

        Args:
            trace: what inference left behind.
            step: number of the update, for schedules.

        Returns:
            "loss", which is minimised, and whatever else is worth logging: tensors with shape `()`, never floats. An
            objective with parameters of its own (a critic) also returns "critic_loss", which these minimise while the
            model minimises "loss"; one that gives q(z | x) another gradient also "encoder_loss", which the parameters
            of q minimise while the others minimise "loss".
        """


class ImportanceWeighted(Objective):
    """An objective of importance weights, whose draws may come in groups.

    Args:
        num_samples: draws of z per image.
        groups: in how many groups of one size they are.
        gradient: how q(z | x) is trained, see `vae_train.objective.bounds`.

    Raises:
        ValueError: the draws make no groups of one size.
    """

    needs_likelihood = True

    def __init__(self, num_samples: PositiveInt, groups: PositiveInt, gradient: Gradient) -> None:
        super().__init__(num_samples)
        if num_samples % groups:
            raise ValueError(
                f"num_samples={num_samples} draws make no {groups} groups of one size: give a multiple of "
                f"groups={groups}"
            )
        self.groups, self.gradient = groups, gradient

    @classmethod
    def refusal(cls, posterior: Any, prior: Any, likelihood: Any, **knobs: Any) -> str | None:
        """See `Objective.refusal`; q(z | x) cannot always be trained through its draws alone."""
        why, gradient = super().refusal(posterior, prior, likelihood, **knobs), knobs["gradient"]
        if why or gradient == "standard":
            return why
        through = f"with gradient={gradient} trains q(z | x) through its draws alone, and"
        usual = "Use objective.gradient=standard, or model/posterior=gaussian"
        if not posterior.supports_stop_gradient:
            return f"{through} this posterior cannot hold the parameters of its density. {usual}"
        if posterior.support in ("categorical", "joint"):
            return f"{through} categories cannot be moved a little. {usual}"
        if gradient == "dreg" and prior.uses_encoder:
            return (
                "with gradient=dreg weighs all that reaches the encoder by squares, and this prior is made of the "
                "encoder too. Use objective.gradient=standard, or model/prior=standard_normal"
            )
        return None

    def log_weight(self, trace: Trace) -> Tensor:
        """Log-weights with shape `(K, B)`, with the parameters of q held where the gradient asks for that."""
        return trace.log_weight(stop_gradient=self.gradient != "standard")


def filled(value: Number, like: Tensor) -> Tensor:
    """`value` as a tensor with shape `()`, of the kind of `like`."""
    # A fill needs no copy from the host, which would wait for the device.
    return value.to(like.dtype) if isinstance(value, Tensor) else like.new_full((), value)


def unit_rates(latent: Latent) -> Tensor:
    """KL(q || p) of every element of z, closed where it can be, else from the draws: `(B, *event)`, in nats."""
    closed = latent.rate_elementwise()
    return (
        (latent.q.log_prob_elementwise(latent.z) - latent.p.log_prob_elementwise(latent.z)).mean(0)
        if closed is None
        else closed
    )


def prior_draws(trace: Trace) -> Tensor:
    """Draws from the prior of the first latent, one for every image of the batch: `(B, *event)`."""
    latent, rng = trace.latents[0], trace.rng
    assert rng is not None, "this objective needs a model that hands its noise on"
    if latent.p.batch_shape:
        return latent.p.sample(rng, 1)[0]
    return latent.p.sample(rng, latent.z.shape[1])


def factorized_refusal(posterior: type[Posterior], what: str) -> str | None:
    """Why `what` needs the elements of z to be independent given x; None where they are."""
    if posterior.is_factorized:
        return None
    return f"{what}, and the elements of z are not independent given x here. Use model/posterior=gaussian"
