"""A latent with shape (C, H, W) is scored as the vector of its elements."""

from __future__ import annotations

import pytest
import torch

from tests.support import BINARY, build, choices, compose, locate
from vae_train.distributions.kl import kl
from vae_train.rng import Rng

MAP, VECTOR = (2, 3, 4), (24,)
VECTORS_ONLY = {"von_mises_fisher", "categorical", "joint"}
POSTERIORS = [name for name in choices("model/posterior") if name not in VECTORS_ONLY]
PRIORS = [name for name in choices("model/prior") if name not in ("uniform_sphere", "categorical", "joint")]


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
