"""Hierarchical VAEs with two latent vectors, and VampPrior on the topmost."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support import (
    BINARY,
    LAYERED,
    InMemory,
    binary_batch,
    build_learner,
    build_model,
    combination_errors,
    compose,
    update,
)
from vae_train.batch import Batch
from vae_train.rng import Rng

MODELS = pytest.mark.parametrize("name", ["hvae", "convhvae"])


def config(name, *overrides):
    return compose(f"model={name}", *LAYERED[name], *BINARY, *overrides)


def small(name, *overrides):
    return build_model(config(name, *overrides), (1, 8, 8), 2)


def vamp(name, components):
    return small(name, "model/prior=vamp", f"model.prior.components={components}")


@pytest.mark.parametrize(("name", "count"), [("hvae", 2_431_024), ("convhvae", 2_210_861)])
def test_the_defaults_have_as_many_parameters_as_the_authors_code(name, count):
    model = build_model(compose(f"model={name}", *BINARY), (1, 28, 28), 2)
    assert sum(p.numel() for p in model.parameters()) == count
    assert model.latent_shapes == ((40,), (40,))


@MODELS
def test_vamp_prior_is_the_mean_of_the_topmost_posteriors_of_its_pseudo_inputs(name):
    model = vamp(name, 5).double()
    batch = Batch(binary_batch(3).x.double())
    top, bottom = model(batch, Rng(0, "x"), 2).latents
    each = [model.infer(u[None], None, Rng(0, "unused"))[0].q.log_prob(top.z) for u in model.prior.pseudo_inputs]
    assert torch.allclose(top.p.log_prob(top.z), torch.stack(each).logsumexp(0) - math.log(5))
    assert bottom.p.batch_shape == (2, 3)


@MODELS
def test_an_image_that_is_the_only_pseudo_input_has_no_topmost_rate(name):
    model = vamp(name, 1)
    batch = Batch(model.prior.pseudo_inputs.detach().clone())
    top, bottom = model(batch, Rng(0, "x"), 50).latents
    assert torch.allclose(top.rate(), torch.zeros(1), atol=1e-4)
    assert bottom.rate() > 1e-3


@MODELS
def test_pseudo_inputs_start_as_training_images_and_learn(name):
    cfg = config(name, "model/prior=vamp", "model.prior.components=4", "lr=0.01", "execution=eager")
    model = build_model(cfg, (1, 8, 8), 2)
    model.initialize(InMemory(binary_batch(10).x))
    start = model.prior.pseudo_inputs.detach().clone()
    assert torch.equal(start, binary_batch(10).x[[0, 3, 6, 9]])
    learner = build_learner(cfg, model)
    losses = [update(learner, binary_batch(10), step)["loss"].item() for step in range(20)]
    assert losses[-1] < losses[0]
    assert not torch.equal(model.prior.pseudo_inputs, start)
    assert model.sample(3, Rng(0, "x"), [0.5, 1.0]).mean.shape == (3, 1, 8, 8)


@pytest.mark.parametrize("prior", ["diagonal", "mixture", "realnvp", "maf", "spline", "exemplar"])
def test_the_topmost_layer_may_have_any_prior_of_vectors(prior):
    cfg = config("hvae", f"model/prior={prior}", "execution=eager")
    if "components" in cfg.model.prior:
        cfg.model.prior.components = 4
    assert combination_errors(cfg) == []
    model = build_model(cfg, (1, 8, 8), 2)
    model.initialize(InMemory(binary_batch(10).x))
    scalars = update(build_learner(cfg, model), binary_batch(6), 0)
    assert scalars["rate_1"] + scalars["rate_2"] == pytest.approx(scalars["rate"].item(), rel=1e-5)
    assert model.sample(4, Rng(0, "x")).mean.shape == (4, 1, 8, 8)


@MODELS
def test_other_numbers_of_layers_and_other_spaces_are_refused(name):
    (error,) = combination_errors(config(name, "model.latents=[4,3,2]"))
    assert (error.where, error.message) == (
        "model.latents=[4, 3, 2]",
        "has 3 sizes, but the model has 2 layers; use model.latents=[40,40] or model=lvae",
    )
    (error,) = combination_errors(config(name, "model/prior=uniform_sphere"))
    assert error.where == "model/prior=uniform_sphere"


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 10, 10), (1, 1, 12)])
def test_convolutions_take_any_size(shape):
    model = build_model(config("convhvae"), shape, 2)
    trace = model(binary_batch(2, shape), Rng(0, "x"))
    assert trace.px.mean.shape == (1, 2, *shape)
