"""Base classes of objectives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import WHOLE, WholeBatch
from vae_train.model.base import LatentVariableModel
from vae_train.model.trace import Trace
from vae_train.model.traits import CAPABILITIES, ModelTraits, component
from vae_train.objective.schedule import BetaSchedule, ConstantBeta
from vae_train.rng import Rng
from vae_train.util.errors import Incompatible
from vae_train.util.numbers import Number
from vae_train.util.ranges import NonNegativeFloat, PositiveInt


class Context(NamedTuple):
    """Additional inputs of some objectives."""

    model: LatentVariableModel
    """The model that computed the trace."""
    step: int | Tensor
    """Number of the update, for schedules."""
    rng: Rng
    """The batch's noise, after the model has used its part."""
    whole: WholeBatch = WHOLE
    """The whole batch, if other processes have the rest of it."""


class Objective(nn.Module, ABC):
    """Maps a trace to scalars, including the loss.

    Args:
        num_samples: K, samples of z per image.
    """

    capabilities: ClassVar[frozenset[str]] = CAPABILITIES
    needs_density: ClassVar[bool] = True
    """Whether it needs log q(z | x) or the rate, which a point mass lacks."""
    needs_factorized: ClassVar[str | None] = None
    """Why it needs a factorised posterior, for instance "to estimate total correlation"; None if it does not."""
    codes_error: ClassVar[str | None] = None
    """Why it cannot train a point mass on codes, whose samples are all equal; None if it can."""
    needs_single_layer: ClassVar[str | None] = None
    """What it computes of z that only exists for a single layer of latents, for instance "the total correlation of z";
    None if it takes any number of layers."""
    needs_likelihood: ClassVar[bool] = False
    """Whether it averages exp(log p(x | z)), which only makes sense for a likelihood."""
    per_image: ClassVar[bool] = True
    """Whether the loss is a mean over images, so that a batch can be split into microbatches."""
    gathers: ClassVar[bool] = False
    """Whether a loss that depends on the whole batch uses `Context.whole`, so that processes can share a batch."""
    is_adaptive: ClassVar[bool] = False
    """Whether weights or a critic adapt in training, so that losses of different epochs are not comparable."""
    monitored: ClassVar[str] = "loss"
    """The scalar by which validations with the final weights are compared."""
    notes: tuple[str, ...] = ()
    """What is unusual about it, for the log."""
    resolved: Mapping[str, Any] = MappingProxyType({})
    """Values of settings that were only known when it was built, by path below the objective."""
    settled_step, peak_step = 0.0, 0.0
    """The steps at which scheduled weights become constant, and at which they first reach their maximum."""
    critic_lr: float | None = None
    """Learning rate of the objective's own parameters; None for that of the model."""
    whole_batch: Callable[[Rng], WholeBatch] | None = None
    """Maps the noise of a part of a batch to the whole batch, if several processes share batches of training."""

    def __init__(self, num_samples: PositiveInt) -> None:
        super().__init__()
        self.num_samples = num_samples

    @classmethod
    def check_compatible(cls, model: ModelTraits, **settings: Any) -> Incompatible | None:
        """Why this objective cannot train a model; None if it can.

        Args:
            model: traits of the model.
            settings: arguments of the constructor.
        """
        if cls.needs_single_layer is not None and len(model.layers) > 1:
            reason = f"is defined by {cls.needs_single_layer}, but the model has several layers of latents"
            return Incompatible(reason, {"objective": "elbo", "model": "conv"})
        if cls.needs_density and not all(layer.has_density for layer in model.layers):
            reason = "needs the density q(z | x), but the posterior is a point mass"
            return Incompatible(reason, {"objective": "rae", "posterior": "gaussian"})
        if any(layer.is_quantized for layer in model.layers):
            if cls.codes_error is not None:
                return Incompatible(cls.codes_error, {"objective": "elbo", "posterior": "gaussian"})
            if settings.get("num_samples", 1) > 1:
                reason = "averages over several samples of z, but those of a point mass on codes are all equal"
                return Incompatible(reason, {"objective.num_samples": "1"})
        if cls.needs_likelihood and model.warning:
            reason = f"needs a likelihood for its importance weights ({model.warning})"
            return Incompatible(reason, {"objective": "elbo"})
        return None if cls.needs_factorized is None else require_factorized(model, cls.needs_factorized)

    def weights(self, step: int) -> dict[str, float]:
        """The scheduled weights at a step by name."""
        return {}

    @classmethod
    def couples_batch(cls, **settings: Any) -> bool:
        """Whether an image's loss depends on the rest of its batch, so that a batch cannot be split.

        Args:
            settings: arguments of the constructor.
        """
        return not cls.per_image

    def forward(self, model: LatentVariableModel, trace: Trace, step: int | Tensor, rng: Rng) -> dict[str, Tensor]:
        """Computes the scalars of a batch: means over its images, including the auxiliary losses of the latents.

        Args:
            model: the model that computed the trace.
            trace: one pass of inference.
            step: number of the update, for schedules.
            rng: the batch's noise, after the model has used its part.

        Returns:
            "loss", which is minimised, and scalars for the log: tensors with shape `()`. An objective with
            its own parameters (a critic) also returns "critic_loss", which these minimise while the model minimises
            "loss". If there is an "encoder_loss", the parameters of q(z | x) minimise it, and the others "loss".
        """
        whole_batch = self.whole_batch if torch.is_grad_enabled() else None  # evaluation shares no batch
        whole = WHOLE if whole_batch is None else whole_batch(rng)
        scalars = self.scalars(trace, Context(model, step, rng, whole))
        auxiliary = trace.auxiliary()
        if auxiliary is None:
            return scalars
        auxiliary = auxiliary.mean()
        losses = {name: loss + auxiliary for name, loss in scalars.items() if name in ("loss", "encoder_loss")}
        return {**scalars, **losses, "auxiliary": auxiliary}

    @abstractmethod
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        """Computes what `forward` returns, without the auxiliary losses of the latents."""

    def statistics(self, trace: Trace, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        """Means over the batch for `update_state`; empty if the objective has no state.

        Args:
            trace: one pass of training.
            scalars: what `forward` returned for it.
        """
        return {}

    def update_state(self, statistics: dict[str, Tensor]) -> None:
        """Updates the state in place, once per step, after the gradients.

        Args:
            statistics: the result of `statistics`, detached and averaged over the whole batch.
        """


class WeightedRate(Objective):
    """An objective that weights the rate by beta, which may follow a schedule.

    Args:
        num_samples: K, samples of z per image.
        beta: weight of the rate.
        beta_schedule: a factor on beta as a function of the step.
    """

    def __init__(self, num_samples: PositiveInt, beta: NonNegativeFloat, beta_schedule: BetaSchedule) -> None:
        super().__init__(num_samples)
        self.beta, self.beta_schedule = beta, beta_schedule
        steps = beta_schedule.steps_per_epoch
        self.settled_step, self.peak_step = beta_schedule.end * steps, beta_schedule.peak * steps

    @classmethod
    @override
    def check_compatible(cls, model: ModelTraits, **settings: Any) -> Incompatible | None:
        error = super().check_compatible(model, **settings)
        if error is not None or not any(layer.is_quantized for layer in model.layers):
            return error
        schedule, _ = component(settings["beta_schedule"])
        reason = "weights the rate by {}, but the rate of a point mass on codes has no gradient"
        if settings["beta"] != 1:
            return Incompatible(reason.format(f"beta={settings['beta']:g}"), {"beta": "1"})
        if schedule is not ConstantBeta:
            return Incompatible(reason.format("a schedule"), {"objective/beta_schedule": "constant"})
        return None

    @override
    def weights(self, step: int) -> dict[str, float]:
        return {"beta": float(self.beta * self.beta_schedule(step))}

    def beta_at(self, step: int | Tensor, like: Tensor) -> Tensor:
        """beta at a step as a tensor with shape `()`, with the device and type of `like`."""
        return scalar_like(self.beta * self.beta_schedule(step), like)


def scalar_like(value: Number, like: Tensor) -> Tensor:
    """`value` as a tensor with shape `()`, with the device and type of `like`."""
    # A copy from the host would wait for the device, but a fill does not.
    return value.to(like.dtype) if isinstance(value, Tensor) else like.new_full((), value)


def sample_prior(trace: Trace, rng: Rng) -> Tensor:
    """One sample from the prior of the only layer for every image of the batch: `(B, *event)`."""
    latent = trace.latents[0]
    if latent.p.batch_shape:
        return latent.p.sample(rng, 1)[0]
    if rng.rows is None:
        return latent.p.sample(rng, latent.z.shape[1])
    start, stop, total = rng.rows
    with rng.uncut():  # a sample of a prior without a batch has no dimension of images
        return latent.p.sample(rng, total)[start:stop]


def all_latents(trace: Trace, context: Context) -> tuple[Tensor, Tensor]:
    """z of the only layer `(K, B, D)`, and samples from its prior `(B, D)`, for all images of the whole batch."""
    z, prior_z = trace.latents[0].z.flatten(2), sample_prior(trace, context.rng).flatten(1)
    return context.whole.gather(z, 1), context.whole.gather(prior_z, 0)


def require_factorized(model: ModelTraits, purpose: str) -> Incompatible | None:
    """Why an objective that needs a factorised posterior cannot train a model; None if it can.

    Args:
        model: traits of the model.
        purpose: what the objective needs it for, for instance "to estimate total correlation".
    """
    if all(layer.is_factorized for layer in model.layers):
        return None
    return Incompatible(f"needs a factorised posterior {purpose}", {"posterior": "gaussian"})
