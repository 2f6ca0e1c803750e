"""Trains a prior on encodings by maximum likelihood, with the learner."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Shape
from vae_train.distributions.base import Distribution
from vae_train.model.base import LatentVariableModel
from vae_train.model.prior.fitted.base import FittedPrior, GradientTraining, no_encoder
from vae_train.model.trace import Latent, Trace
from vae_train.model.traits import ModelTraits
from vae_train.objective.elbo import ELBO
from vae_train.objective.schedule import ConstantBeta
from vae_train.rng import BlockRng, Rng, generator
from vae_train.training.learner import Learner
from vae_train.training.lr import ConstantRate
from vae_train.training.step import StepInputs

EVALUATION_STEPS = 50
"""Updates between evaluations on held-out encodings."""


class DensityModel(LatentVariableModel):
    """A prior as a model p(x) of encodings x, without latents: its negative ELBO is -log p(x).

    Args:
        prior: the density.
    """

    def __init__(self, prior: FittedPrior) -> None:
        super().__init__()
        self.prior, self.data_shape, self.levels = prior, prior.event_shape, None

    @classmethod
    @override
    def traits(cls, **settings: Any) -> ModelTraits:
        return ModelTraits(layers=())

    @override
    def forward(self, batch: Batch, rng: Rng, num_samples: int = 1) -> Trace:
        return Trace(x=batch.x[None], latents=(), px=self.prior(no_encoder), mask=None)

    @property
    @override
    def latent_shapes(self) -> tuple[Shape, ...]:
        return ()

    @override
    def infer(
        self, x: Tensor, y: Tensor | None, rng: Rng, num_samples: int = 1, temperature: float = 1.0
    ) -> tuple[Latent, ...]:
        return ()

    @override
    def decode_latents(self, z: Sequence[Tensor], y: Tensor | None = None) -> Distribution:
        return self.prior(no_encoder)

    @override
    def sample(
        self, num: int, rng: Rng, temperature: float | Sequence[float] = 1.0, y: Tensor | None = None
    ) -> Distribution:
        return self.prior(no_encoder)


def train_prior(prior: FittedPrior, z: Tensor, held_out: Tensor, seed: int, settings: GradientTraining) -> None:
    """Trains a prior with early stopping on held-out encodings, and restores the best weights.

    Args:
        prior: the prior.
        z: (N, D) encodings.
        held_out: (M, D) other encodings.
        seed: seed of the batches.
        settings: steps, patience, batch size and learning rate.
    """
    z, held_out = (t.to(next(prior.parameters())).unflatten(-1, prior.event_shape) for t in (z, held_out))
    learner = Learner(
        model=DensityModel(prior),
        objective=ELBO(1.0, ConstantBeta(1.0), 1, None, 1.0, 0.0, "dimension", steps_per_epoch=1.0),
        optimizer=partial(torch.optim.Adam, lr=settings.lr),
        lr_schedule=ConstantRate(1.0, 1.0, 0.0),
        seed=seed,
        clip_norm=None,
        ema=None,
        grad_accumulation=1,
        precision="float32",
    )
    best, state, waited = math.inf, copy.deepcopy(prior.state_dict()), 0
    for step in range(settings.steps + 1):
        if step % EVALUATION_STEPS == 0 or step == settings.steps:
            value = learner.evaluate(Batch(held_out), 0, step)["distortion"].item()
            if value < best:
                best, state, waited = value, copy.deepcopy(prior.state_dict()), 0
            elif (waited := waited + 1) >= settings.patience:
                break
        if step < settings.steps:
            size = min(settings.batch_size, len(z))
            rows = torch.randint(len(z), (size,), generator=generator(seed, "expost", step)).to(z.device)
            rng = BlockRng(seed, "expost", 0, device=z.device)  # the loss needs no noise
            learner.step(StepInputs(Batch(z[rows]), step, learner.rates(step), rng))
    prior.load_state_dict(state)
