"""A latent with shape (C, H, W) is scored as the vector of its elements."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support import BINARY, binary_batch, build, choices, combination_errors, compose, locate
from vae_train.distributions.kl import kl
from vae_train.rng import Rng

MAP, VECTOR = (2, 3, 4), (24,)
VECTORS_ONLY = {"von_mises_fisher", "categorical", "joint"}
CODES = {"fsq", "rvq", "vq"}
"""Posteriors for which a map is not a vector, but has a code per place."""
POSTERIORS = [name for name in choices("model/posterior") if name not in VECTORS_ONLY | CODES]
CONVOLUTIONAL = {"realnvp", "spline"}
"""Priors that are another family for maps."""
UNLIKE_VECTORS = {"uniform_sphere", "categorical", "joint", "uniform_codes", *CONVOLUTIONAL}
PRIORS = [name for name in choices("model/prior") if name not in UNLIKE_VECTORS]


def pair(group, name, **shapes):
    """The same component for a map and for a vector, with the same parameters."""
    node = compose(f"model/{group}={name}").model[group]
    if "components" in node:
        node.components = 4
    parts = []
    for shape in (MAP, VECTOR):
        torch.manual_seed(0)
        parts.append(build(node)(event_shape=shape, **shapes).double())
    first, second = parts
    state = {key: value.view(second.state_dict()[key].shape) for key, value in first.state_dict().items()}
    second.load_state_dict(state)
    return first, second


@pytest.mark.parametrize("name", POSTERIORS)
def test_posteriors_score_a_map_as_a_vector(name):
    of_map, of_vector = pair("posterior", name)
    parameters = torch.randn(5, *of_map.parameter_shape, dtype=torch.float64)
    q, flat = of_map(parameters), of_vector(parameters.reshape(5, *of_vector.parameter_shape))
    z, log_q = q.rsample_and_log_prob(Rng(0, "z"), 3)
    assert z.shape == (3, 5, *MAP)
    assert torch.allclose(q.mean.flatten(1), flat.mean)
    if not locate(compose(f"model/posterior={name}").model.posterior._target_).has_density:
        return
    other, expected = flat.rsample_and_log_prob(Rng(0, "z"), 3)
    assert torch.allclose(z.flatten(2), other)
    log_q = q.log_prob(z) if log_q is None else log_q
    assert torch.allclose(log_q, flat.log_prob(other) if expected is None else expected)


@pytest.mark.parametrize("name", PRIORS)
def test_priors_score_a_map_as_a_vector(name):
    of_map, of_vector = pair("prior", name, data_shape=(1, 4, 4))
    family, flat_family = pair("posterior", "gaussian")
    parameters = torch.randn(4, *family.parameter_shape, dtype=torch.float64)
    p = of_map(lambda x: family(parameters))
    flat = of_vector(lambda x: flat_family(parameters.reshape(4, -1)))
    z = torch.randn(3, 5, *MAP, dtype=torch.float64)
    assert torch.allclose(p.log_prob(z), flat.log_prob(z.flatten(2)))
    assert p.sample(Rng(0, "z"), 2).shape == (2, *MAP)
    q = family(torch.randn(6, *family.parameter_shape, dtype=torch.float64))
    rate = kl(q, p)
    if rate is not None:
        assert torch.allclose(rate, kl(type(q)(q.loc.flatten(1), q.log_scale.flatten(1)), flat))


@pytest.mark.parametrize("name", sorted(CONVOLUTIONAL))
def test_flows_of_maps_have_parameters_for_pairs_of_neighbours_only(name):
    """Four times as many pixels add constants per pixel, not weights per pair of pixels as in a dense network."""
    node = compose(f"model/prior={name}", "model.prior.hidden=[8]").model.prior
    small, large = (build(node)(event_shape=(2, n, n), data_shape=(1, 8, 8)).double() for n in (4, 8))
    weights = [{n: p.shape for n, p in prior.named_parameters() if "constants" not in n} for prior in (small, large)]
    assert weights[0] == weights[1]
    p = large(lambda x: x)
    z = p.sample(Rng(0, "z"), 100)
    assert z.shape == (100, 2, 8, 8)
    assert p.log_prob(z).mean().item() == pytest.approx(-0.5 * 128 * (1 + math.log(2 * math.pi)), abs=3)  # near N(0, I)


@pytest.mark.parametrize("name", sorted(CONVOLUTIONAL))
def test_flows_of_maps_keep_log_probabilities_in_float32(name):
    cfg = compose(
        *BINARY, "model=conv_spatial", "latent_shape=[2,4,4]", f"model/prior={name}", "model.encoder.channels=4"
    )
    model = build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=())
    batch = binary_batch(5)
    exact = model(batch, Rng(0, "z"), 2).rate()
    with torch.autocast("cpu", torch.bfloat16):
        rate = model(batch, Rng(0, "z"), 2).rate()
    assert rate.dtype == torch.float32
    assert torch.allclose(rate, exact, rtol=0.02, atol=0.2)


@pytest.mark.parametrize(
    ("group", "name", "limit", "instead"),
    [
        ("prior", "maf", "1,024", "realnvp"),
        ("posterior", "iaf", "1,024", "gaussian"),
        ("posterior", "spline", "1,024", "gaussian"),
        ("posterior", "sylvester", "256", "gaussian"),
        ("posterior", "full_covariance", "256", "gaussian"),
    ],
)
def test_large_maps_are_not_taken_as_one_vector(group, name, limit, instead):
    cfg = compose(*BINARY, "model=conv_spatial", "latent_shape=[3,32,32]", f"model/{group}={name}")
    (error,) = combination_errors(cfg)
    assert error.where == f"model/{group}={name}"
    assert error.message == (
        f"takes latent_shape=[3, 32, 32] as one vector, which is supported up to {limit} elements; "
        f"use model/{group}={instead}"
    )


def test_a_conditional_model_of_spatial_latents_adds_constant_channels():
    cfg = compose(
        *BINARY, "model=conv_spatial", "latent_shape=[2,4,4]", "model.condition=label", "model.encoder.channels=4"
    )
    model = build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=(10,))
    assert model.decoder.in_shape == (12, 4, 4)
    assert model.sample(3, Rng(0, "x")).mean.shape == (3, 1, 8, 8)


def test_the_configuration_holds_both_the_size_and_the_shape_of_latents():
    assert compose("latent_dim=7").latent_shape == [7]
    assert compose("latent_shape=[2,3,4]").latent_dim == 24
