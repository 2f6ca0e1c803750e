"""Training a prior on encodings by maximum likelihood."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vae_train.model.prior.fitted.base import FittedPrior, GradientTraining
from vae_train.rng import generator

EVALUATION_STEPS = 50
"""Updates between evaluations on held-out encodings."""


def train_prior(prior: FittedPrior, z: Tensor, held_out: Tensor, seed: int, settings: GradientTraining) -> None:
    """Trains a prior until held-out encodings get no likelier, and restores the best weights.

    Args:
        prior: the prior.
        z: (N, D) encodings.
        held_out: (M, D) further ones.
        seed: decides the batches.
        settings: steps, patience, batch size and learning rate.
    """
    z, held_out = (t.to(next(prior.parameters())) for t in (z, held_out))
    optimizer = torch.optim.Adam(prior.parameters(), settings.lr)
    best, state, waited = -math.inf, copy_state(prior), 0
    for step in range(settings.steps + 1):
        if step % EVALUATION_STEPS == 0 or step == settings.steps:
            value = prior.log_prob(held_out).mean().item()
            if value > best:
                best, state, waited = value, copy_state(prior), 0
            elif (waited := waited + 1) >= settings.patience:
                break
        if step < settings.steps:
            size = min(settings.batch_size, len(z))
            rows = torch.randint(len(z), (size,), generator=generator(seed, "expost", step)).to(z.device)
            loss = -prior(prior.log_prob).log_prob(z[rows].unflatten(-1, prior.event_shape)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    prior.load_state_dict(state)


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies the state of a module."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
