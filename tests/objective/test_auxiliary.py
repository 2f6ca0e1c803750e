"""A loss of a latent's own, such as a commitment loss: every objective adds it, and no bound contains it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.support import SMALL, binary_batch, build_model, build_objective, choices, compose
from vae_train.rng import Rng

OVERRIDES = {
    "piwae": ("objective.num_samples=4", "objective.groups=2"),
    "miwae": ("objective.num_samples=4", "objective.groups=2"),
    "factor_vae": ("objective.hidden=[8]",),
    "wae_gan": ("objective.hidden=[8]",),
    "first_stage": ("objective.channels=4", "objective.start_step=0"),
    "vae_gan": ("objective.channels=4", "objective.start=0"),
}


@pytest.mark.parametrize("name", choices("objective"))
def test_every_objective_adds_the_auxiliary_loss_of_a_latent(name):
    cfg = compose(*SMALL, f"objective={name}", *OVERRIDES.get(name, ()))
    model, objective = build_model(cfg, (1, 8, 8), 2), build_objective(cfg)

    def scalars(weight):
        rng = Rng(0, "x")
        trace = model(binary_batch(5), rng, objective.num_samples)
        (latent,) = trace.latents
        auxiliary = latent.q.mean.square().flatten(1).sum(-1)  # (B,), depends on the encoder
        trace = replace(trace, latents=(replace(latent, auxiliary=weight * auxiliary if weight else None),))
        return objective(model, trace, 5, rng), trace, auxiliary.mean()

    (plain, before, _), (added, after, auxiliary) = scalars(0), scalars(3)
    assert torch.equal(before.elbo(), after.elbo())
    assert torch.allclose(added["auxiliary"], 3 * auxiliary)
    for loss in ("loss", "encoder_loss"):
        if loss in plain:
            assert torch.allclose(added[loss], plain[loss] + 3 * auxiliary, rtol=1e-5)
    assert "critic_loss" not in plain or torch.equal(added["critic_loss"], plain["critic_loss"])


def test_auxiliary_losses_of_several_layers_are_summed():
    trace = build_model(compose(*SMALL), (1, 8, 8), 2)(binary_batch(5), Rng(0, "x"))
    (latent,) = trace.latents
    one, two = replace(latent, auxiliary=torch.ones(5)), replace(latent, auxiliary=2 * torch.ones(5))
    assert torch.equal(replace(trace, latents=(one, latent, two)).auxiliary(), 3 * torch.ones(5))
