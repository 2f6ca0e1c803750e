"""Where a decoder starts, with every likelihood."""

from __future__ import annotations

import pytest
import torch

from tests.support import InMemory, build_model, choices, compose, levels_for, loaded, model_errors
from vae_train.model.base import Network
from vae_train.model.start import MAX_PIXELS, PENALTY, spaced_images

IMAGES = 100
ARCHITECTURES = {"mlp": ["model.decoder.hidden=[16]"], "conv": ["model.encoder.channels=4"]}


def digits(levels):
    """Digits as a split, grey or binary."""
    x = loaded(compose("data.binarize=none")).training().fetch(torch.arange(IMAGES)).x
    return InMemory(x.round() if levels == 2 else x)


def likelihood(name):
    return compose(f"model/likelihood={name}").model.likelihood


def made(name, architecture, start="data"):
    cfg = compose(f"model={architecture}", *ARCHITECTURES[architecture])
    cfg.model.likelihood, cfg.model.output_bias = likelihood(name), start
    return build_model(cfg, (1, 8, 8), levels_for(likelihood(name)))


def likeliest(model, images):
    """Mean log-likelihood of the images when the decoder says nothing but its bias."""
    parameters = model.decoder.output_bias().expand(model.likelihood.parameter_shape)
    with torch.no_grad():
        return model.likelihood(parameters[None]).log_prob(images.x).mean()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", choices("model/likelihood"))
def test_the_images_are_likelier_from_the_bias_alone_and_nowhere_near_likelier(name, architecture):
    model, images = made(name, architecture).double(), digits(levels_for(likelihood(name)))
    images.x = images.x.double()
    states = {key: value.clone() for key, value in model.state_dict().items()}
    before = likeliest(model, images)
    model.initialize(images)
    after = likeliest(model, images)
    assert after > before
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, states[key])}
    assert len(moved) == 1
    assert next(iter(moved)).startswith("decoder.")
    assert next(iter(moved)).endswith(".bias")
    found = model.decoder.output_bias().detach()
    for seed in range(5):
        aside = 0.1 * torch.randn(found.shape, generator=torch.Generator().manual_seed(seed), dtype=found.dtype)
        with torch.no_grad():
            model.decoder.output_bias().add_(aside)
            assert likeliest(model, images) < after + PENALTY * 0.1 * found.norm() * found.numel() ** 0.5
            model.decoder.output_bias().sub_(aside)


def test_the_bias_of_bernoulli_pixels_is_the_log_odds_of_the_mean_image():
    model, images = made("bernoulli", "mlp"), digits(2)
    model.initialize(images)
    mean = images.x.mean(0)
    found = model.decoder.output_bias()
    grey = (mean > 0.02) & (mean < 0.98)
    assert grey.sum() > 20
    torch.testing.assert_close(found[grey], torch.logit(mean[grey]), atol=0.02, rtol=0.01)
    black = found[mean == 0]
    assert len(black) > 5
    assert (black < -6).all()
    assert (black > -9).all()


def centers(images):
    """The middle of every level's interval, which is what a dequantised density sees."""
    return (16 * images.x + 0.5) / 17


def test_the_bias_of_normal_pixels_is_the_mean_image():
    model, images = made("gaussian", "mlp"), digits(17)
    model.initialize(images)
    torch.testing.assert_close(model.decoder.output_bias(), centers(images).mean(0), atol=1e-3, rtol=0)


def test_a_bias_per_channel_of_normal_pixels_is_the_mean_of_the_channel():
    model, images = made("gaussian", "conv"), digits(17)
    model.initialize(images)
    torch.testing.assert_close(model.decoder.output_bias().flatten(), centers(images).mean()[None], atol=1e-3, rtol=0)


def test_it_is_left_alone_where_nobody_asks():
    model, images = made("bernoulli", "mlp", start="init"), digits(2)
    before = model.decoder.output_bias().clone()
    model.initialize(images)
    assert torch.equal(model.decoder.output_bias(), before)


def test_a_decoder_without_a_last_bias_is_refused_before_anything_is_written(monkeypatch):
    monkeypatch.setattr("vae_train.model.architecture.mlp.MLP.output_bias", Network.output_bias)
    found = model_errors(compose("model.output_bias=data"))
    assert len(found) == 1
    assert "needs a decoder with a last bias" in found[0].message


def test_images_are_taken_from_the_first_to_the_last():
    images = digits(17)
    assert torch.equal(spaced_images(images, IMAGES, images.x), images.x)
    assert torch.equal(spaced_images(images, 2, images.x), images.x[[0, -1]])
    assert MAX_PIXELS // 784 > 5000
