from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from torch import nn

from vae_train.model.blocks.layers import Activation, Norm, initialize, nonlinearity, norm2d


@pytest.mark.parametrize("name", get_args(Activation))
def test_every_activation_is_there(name):
    assert nonlinearity(name)(torch.linspace(-1, 1, 5)).isfinite().all()


@pytest.mark.parametrize("channels", [1, 3, 8, 12, 32])
@pytest.mark.parametrize("name", get_args(Norm))
def test_every_norm_takes_any_number_of_channels_and_one_image_at_a_time(name, channels):
    h = torch.randn(3, channels, 5, 4)
    whole = norm2d(name, channels)(h)
    assert whole.shape == h.shape
    assert torch.allclose(whole[1:2], norm2d(name, channels)(h[1:2]), atol=1e-6)


def test_group_and_layer_norm_normalise():
    h = 3 + 2 * torch.randn(2, 16, 6, 6)
    for name in ("group", "layer"):
        out = norm2d(name, 16)(h)
        assert out.mean((1, 2, 3)).abs().max() < 1e-5
        assert (out.var((1, 2, 3), correction=0) - 1).abs().max() < 1e-3


@pytest.mark.parametrize(("init", "variance"), [("glorot", 2 / (400 + 600)), ("he", 2 / 400), ("torch", 1 / (3 * 400))])
def test_weights_start_with_the_variance_of_their_paper(init, variance):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(400, 600), nn.ReLU())
    initialize(network, init)
    assert network[0].weight.var().item() == pytest.approx(variance, rel=0.02)
    assert network[0].weight.mean().abs() < 5 * math.sqrt(variance / 240_000)
    assert (network[0].bias == 0).all() == (init != "torch")


def test_initialising_reaches_every_layer_of_convolutional_networks():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    before = [p.clone() for p in network.parameters()]
    initialize(network, "he")
    assert all(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
