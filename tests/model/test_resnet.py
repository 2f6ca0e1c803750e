"""Residual networks: any image, any latent, and what each knob promises."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support import (
    BINARY,
    InMemory,
    binary_batch,
    build,
    build_learner,
    build_model,
    compose,
    model_errors,
    update,
)
from vae_train.model.architecture.resnet import ResNetDecoder, ResNetEncoder
from vae_train.model.blocks.elu import FastELU
from vae_train.model.blocks.resampling import Resample, resampling_matrix
from vae_train.model.blocks.residual import BlockStyle, ResidualBlock, SelfAttention, start_as_identity, upsampling
from vae_train.model.blocks.weight_norm import WeightNormConv2d, WeightNormLinear, normalize_output
from vae_train.rng import Rng

IMAGES = [(1, 8, 8), (3, 13, 10), (2, 1, 21), (1, 6, 1), (1, 1, 1)]
KNOBS = {"channels": 4, "depth": None, "max_channels": 8, "blocks": 1, "full_size_blocks": 0, "attention": 16}
KNOBS |= {"kernel": 3, "dense": 6, "activation": "silu", "norm": "group", "init": "glorot", "checkpointing": False}


def encoder(image, latent, **knobs):
    torch.manual_seed(0)
    return ResNetEncoder(image, latent, downsample=knobs.pop("downsample", "stride"), **KNOBS | knobs)


def decoder(latent, image, **knobs):
    torch.manual_seed(0)
    return ResNetDecoder(latent, image, upsample=knobs.pop("upsample", "nearest"), **KNOBS | knobs)


def halved(network):
    """How often the encoder halves its image."""
    return sum(isinstance(m, ResidualBlock) and isinstance(m.shortcut[0], nn.AvgPool2d) for m in network.layers)


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_has_a_vector_and_maps_of_every_size_up_to_its_own(image):
    _, height, width = image
    maps = [(2, h, w) for h in range(1, height + 1, 3) for w in range(1, width + 1, 3)]
    for latent in [(5,), (2, height, width), *maps[:12]]:
        z = encoder(image, latent)(torch.rand(2, *image))
        assert z.shape == (2, *latent)
        assert decoder(latent, image)(z).shape == (2, *image)


@pytest.mark.parametrize(
    ("image", "latent", "halvings"),
    [
        ((1, 28, 28), (5,), 3),
        ((3, 64, 48), (5,), 4),
        ((1, 1, 100), (5,), 5),
        ((1, 4, 4), (5,), 0),
        ((3, 224, 224), (6, 10, 10), 4),
        ((3, 224, 224), (6, 14, 14), 4),
        ((3, 224, 224), (6, 15, 14), 3),
        ((3, 64, 64), (4, 16, 4), 2),
    ],
)
def test_images_are_halved_down_to_the_next_larger_scale(image, latent, halvings):
    with torch.device("meta"):
        assert halved(encoder(image, latent)) == halvings


@pytest.mark.parametrize(("before", "after"), [(14, 10), (7, 14), (5, 1), (3, 3), (9, 4), (1, 6)])
def test_resampling_is_antialiased_interpolation(before, after):
    matrix = resampling_matrix(before, after)
    torch.testing.assert_close(matrix.sum(1), torch.ones(after))
    h = torch.randn(2, 3, before, before)
    expected = F.interpolate(h, (after, after), mode="bilinear", antialias=True)
    torch.testing.assert_close(Resample((before, before), (after, after))(h), expected)


def test_features_are_resampled_but_neither_the_latent_nor_its_moments():
    """A convolution lies between the resampled features and z on both sides."""
    image, latent = (3, 14, 14), (2, 5, 5)
    kinds = [type(layer) for layer in encoder(image, latent).layers]
    assert kinds[-2:] == [Resample, nn.Conv2d]
    kinds = [type(layer) for layer in decoder(latent, image).layers]
    assert kinds[:2] == [nn.Conv2d, Resample]


@pytest.mark.parametrize(
    ("latent", "knobs", "message"),
    [
        ((2, 9, 8), {}, "latents of 9x8 are larger than images of 8x8 pixels"),
        ((2, 3, 3), {"depth": 2}, "2 halvings of 8x8 pixels give 2x2, less than latents of 3x3; use at most 1"),
        ((5,), {"depth": 4}, "cannot have 4 halvings: 8x8 pixels can be halved 3 times"),
        ((5,), {"channels": [4, 4], "depth": 2}, r"depth=2 contradicts channels=\[4, 4\]"),
        ((5,), {"channels": []}, r"channels=\[\] has no scale"),
        ((5,), {"blocks": [1, 2]}, r"blocks=\[1, 2\] has 2 numbers, but 8x8 pixels are halved 1 time"),
    ],
)
def test_impossible_scales_are_refused(latent, knobs, message):
    with pytest.raises(ValueError, match=message):
        encoder((1, 8, 8), latent, **knobs)
    with pytest.raises(ValueError, match=message):
        decoder(latent, (1, 8, 8), **knobs)


def test_a_spatial_model_without_such_a_scale_suggests_this_one():
    (error,) = model_errors(compose("model=conv_spatial", "latent_shape=[2,3,3]"))
    assert error.message.endswith("use latent_shape=[4,4,4] or model=resnet")
    assert model_errors(compose("model=resnet", "latent_shape=[2,3,3]")) == []


@pytest.mark.parametrize("norm", ["none", "group", "weight"])
@pytest.mark.parametrize("block", ["residual", "attention"])
def test_a_block_starts_as_the_identity_and_learns(block, norm):
    style, h = BlockStyle(3, "silu", norm, checkpointing=False), torch.randn(2, 8, 5, 5)
    made = ResidualBlock(8, 8, style) if block == "residual" else SelfAttention(8, style)
    start_as_identity(made)
    assert torch.equal(made(h), h)
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        made(h).pow(3).sum().backward()
        optimizer.step()
    assert not torch.allclose(made(h), h)


@pytest.mark.parametrize("channels", [4, 64, 96, 192])
def test_attention_mixes_all_pixels_and_its_order_does_not_matter(channels):
    style = BlockStyle(3, "silu", "none", checkpointing=False)
    torch.manual_seed(0)
    attention, h = SelfAttention(channels, style).double(), torch.randn(1, channels, 4, 3, dtype=torch.float64)
    flipped = attention(h.flip(-1)).flip(-1)
    torch.testing.assert_close(attention(h), flipped)
    (gradient,) = torch.autograd.grad(attention(h.requires_grad_())[0, 0, 0, 0], h)
    assert (gradient.abs().sum((0, 1)) > 0).all()


def test_attention_is_at_scales_with_few_pixels():
    def count(limit):
        network = encoder((1, 16, 16), (5,), attention=limit)
        return sum(isinstance(module, SelfAttention) for module in network.modules())

    assert [count(limit) for limit in (0, 16, 63, 64, 256)] == [0, 1, 1, 2, 3]


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (5, 3)])
@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_upsampling_covers_all_pixels_equally(upsample, size):
    """Constant maps stay constant, so that a convolution of constants has no checkerboard."""
    small = tuple((side + 1) // 2 for side in size)
    doubled = upsampling(upsample, small, size)(torch.ones(1, 2, *small))
    torch.testing.assert_close(doubled, torch.ones(1, 2, *size))


def test_normalised_weights_start_as_ordinary_ones_and_have_their_length_as_a_parameter():
    torch.manual_seed(0)
    linear, convolution = WeightNormLinear(6, 3), WeightNormConv2d(2, 5, 3, 2)
    h, image = torch.randn(4, 6), torch.randn(4, 2, 7, 7)
    torch.testing.assert_close(linear(h), F.linear(h, linear.weight, linear.bias))
    torch.testing.assert_close(convolution(image), F.conv2d(image, convolution.weight, convolution.bias, 2, 1))
    with torch.no_grad():
        before = linear(h) - linear.bias
        linear.weight.mul_(7)
        linear.gain.mul_(2)
    torch.testing.assert_close(linear(h) - linear.bias, 2 * before)


@pytest.mark.parametrize("latent", [(5,), (2, 3, 3)])
def test_checkpointing_changes_no_bit_of_output_and_gradients(latent):
    image, results = (3, 9, 8), []
    for checkpointing in (False, True):
        first = encoder(image, latent, checkpointing=checkpointing)
        second = decoder(latent, image, checkpointing=checkpointing)
        for p in [*first.parameters(), *second.parameters()]:
            nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(p.numel()))
        out = second(first(torch.linspace(0, 1, 2 * 3 * 9 * 8).view(2, *image)))
        gradients = torch.autograd.grad(out.square().sum(), [*first.parameters(), *second.parameters()])
        results.append([out.detach(), *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in results[0])


def configured(*overrides):
    return compose("model=resnet", "model.encoder.channels=4", "model.encoder.blocks=1", *BINARY, *overrides)


@pytest.mark.parametrize("norm", ["group", "weight"])
@pytest.mark.parametrize("latent", ["latent_dim=3", "latent_shape=[2,3,3]"])
def test_bfloat16_trains(latent, norm):
    cfg = configured(latent, f"model.encoder.norm={norm}", "precision=bfloat16", "model.encoder.checkpointing=true")
    learner = build_learner(cfg, build_model(cfg, (1, 8, 8), 2))
    losses = [update(learner, binary_batch(8), step)["loss"] for step in range(3)]
    assert all(loss.isfinite() for loss in losses)
    assert losses[0].dtype == torch.float32


def test_stacked_models_compute_what_each_of_them_does():
    cfg = configured("latent_shape=[2,3,3]", "model.encoder.norm=weight")
    models = [build(cfg.model, data_shape=(1, 8, 8), levels=2, factor_sizes=()) for _ in range(2)]
    x = binary_batch(4).x
    for name in ("encoder", "decoder"):
        networks = [getattr(model, name) for model in models]
        h = x if name == "encoder" else torch.randn(4, 2, 3, 3)
        parameters, buffers = torch.func.stack_module_state(networks)

        def one(parameters, buffers, network=networks[0], h=h):
            return torch.func.functional_call(network, (parameters, buffers), (h,))

        stacked = torch.vmap(one)(parameters, buffers)
        for number, network in enumerate(networks):
            torch.testing.assert_close(stacked[number], network(h))


def test_checkpointing_cannot_be_compiled():
    (error,) = model_errors(configured("model.encoder.checkpointing=true", "execution=compile"))
    assert (error.where, error.message) == ("execution=compile", "this model does not support it; use execution=eager")
    assert model_errors(configured("execution=compile")) == []


def first_outputs(model, images):
    """The first output of every layer with normalised weights in a pass of inference: (channels, values)."""
    outputs = {}

    def keep(layer, inputs, output):
        outputs.setdefault(layer, output.transpose(0, 1).flatten(1))  # a prior may use the encoder again

    for module in model.modules():
        if isinstance(module, (WeightNormLinear, WeightNormConv2d)):
            module.register_forward_hook(keep)
    model(images.fetch(torch.arange(len(images))), Rng(0, "initialize"))
    return list(outputs.values())


@pytest.mark.parametrize(
    "overrides",
    [["latent_shape=[2,3,3]"], ["model.condition=label"], ["model/prior=vamp", "model.prior.components=4"]],
)
def test_outputs_on_training_images_start_with_mean_0_and_variance_1(overrides):
    dim = [] if "latent_shape=[2,3,3]" in overrides else ["latent_dim=3"]
    cfg = configured("model.encoder.norm=weight", "model.encoder.blocks=2", *dim, *overrides)
    x = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).round()
    images = InMemory(x, torch.arange(100)[:, None] % 10)
    model = build_model(cfg, (1, 8, 8), 2).double()
    torch.manual_seed(1)  # nothing depends on it
    model.initialize(images)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = first_outputs(model, images)
    moving = [values for values in outputs if values.any()]
    assert len(moving) > 8
    assert len(outputs) - len(moving) > 2, "residual blocks start as the identity"
    for values in moving:
        torch.testing.assert_close(values.mean(1), torch.zeros_like(values[:, 0]), atol=1e-6, rtol=0)
        torch.testing.assert_close(values.std(1, correction=0), torch.ones_like(values[:, 0]), atol=1e-6, rtol=0)
    torch.manual_seed(2)
    model.initialize(images)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], atol=1e-6, rtol=1e-6)


def test_outputs_that_hardly_vary_get_no_enormous_weights():
    layer = WeightNormConv2d(1, 4, 3)
    normalize_output(layer, torch.ones(2, 1, 1, 1))
    assert (layer.gain <= 1000).all()


def test_the_fast_elu_is_that_of_pytorch_with_all_its_derivatives():
    fast, h = FastELU(), torch.linspace(-30.3, 4.7, 36, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(fast(h), F.elu(h), atol=1e-15, rtol=0)
    assert torch.autograd.gradcheck(fast, h)
    assert torch.autograd.gradgradcheck(fast, h)
    gradient = torch.func.grad(lambda h: fast(h).square().sum())
    torch.testing.assert_close(torch.vmap(gradient)(h[:, None])[:, 0], gradient(h))


def test_the_published_network_has_its_number_of_parameters():
    with torch.device("meta"):
        model = build_model(compose("experiment=resnet_iaf"), (1, 28, 28), 2)
    assert 0.6e6 < sum(p.numel() for p in model.parameters()) < 0.7e6
