from __future__ import annotations

import math
import typing
from typing import Literal, get_args, get_origin

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from tests.support import build, catalogue_modules, classes_in, compose, locate, single_latent_models
from vae_train.model.architecture.base import Style, doublings, sizes, widths
from vae_train.model.architecture.conv import ConvDecoder, ConvEncoder, ConvSpatialDecoder, ConvSpatialEncoder
from vae_train.model.base import Network

CLASSES = [c for module in catalogue_modules("model/architecture") for c in classes_in(module)]
IMAGES = [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 64, 48), (1, 37, 53), (2, 1, 6)]
VECTOR = (5,)
EXTRA = {
    "channels": [[8, 16], 6],
    "depth": [1, 2],
    "max_channels": [8],
    "extra": [1, 2],
    "dense": [0, 7],
    "blocks": [2],
    "full_size_blocks": [1],
    "attention": [0, 10**6],
    "checkpointing": [True],
    "hidden": [[], [9], [9, 8, 7]],
}
"""Choices of the knobs whose hints do not list them."""


def settings():
    """Every network of every model's YAML: (class, its settings)."""
    found = {}
    for model in single_latent_models():
        for side in ("encoder", "decoder"):
            node = OmegaConf.to_container(compose(f"model={model}").model, resolve=True)[side]
            found[locate(node["_target_"]), side] = node
    return found


def cases():
    for (kind, side), node in settings().items():
        small = {"hidden": [6], "channels": 4, "dense": 6, "blocks": 1, "attention": 16}
        base = node | {key: value for key, value in small.items() if key in node}
        hints = typing.get_type_hints(kind.__init__)
        yield pytest.param(side, base, id=f"{kind.__name__} {side}")
        for knob in base:
            hint = hints.get(knob)
            options = get_args(hint) if get_origin(hint) is Literal else EXTRA.get(knob, [])
            for option in options:
                if isinstance(option, list) and knob == "channels" and "depth" not in base:
                    continue  # the latent says how many scales there are
                yield pytest.param(side, base | {knob: option}, id=f"{kind.__name__} {side} {knob}={option}")


CASES = pytest.mark.parametrize(("side", "node"), list(cases()))


def network(side, node, image):
    latent = (2, *sizes(image[1:], 1)[-1]) if "ConvSpatial" in node["_target_"] else VECTOR
    shapes = (image, latent) if side == "encoder" else (latent, image)
    torch.manual_seed(0)
    return build(OmegaConf.create(node))(in_shape=shapes[0], out_shape=shapes[1])


def fits(node, image):
    depth = node.get("depth") or (len(node["channels"]) if isinstance(node.get("channels"), list) else 1)
    return depth <= math.ceil(math.log2(max(image[1:])))


def test_every_network_is_in_some_models_yaml():
    assert {kind for kind, _ in settings()} == set(CLASSES)
    assert all(issubclass(kind, Network) for kind in CLASSES)


@CASES
def test_networks_map_their_shapes_at_every_setting(side, node):
    for image in [image for image in IMAGES if fits(node, image)]:
        found = network(side, node, image)
        assert found(torch.randn(3, *found.in_shape)).shape == (3, *found.out_shape)


@CASES
def test_every_parameter_has_a_gradient_at_every_setting(side, node):
    found = network(side, node, (1, 8, 8))
    found(torch.randn(4, *found.in_shape)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in found.parameters())
    assert sum(p.grad.abs().sum() for p in found.parameters()) > 0


@CASES
def test_an_image_does_not_see_the_others_of_its_batch(side, node):
    found = network(side, node, (1, 8, 8)).double()
    h = torch.randn(4, *found.in_shape, dtype=torch.float64)
    assert torch.allclose(found(h)[2:3], found(h[2:3]), atol=1e-12)


@pytest.mark.parametrize("size", [(28, 28), (64, 48), (37, 53), (1, 9), (224, 224)])
def test_the_decoder_walks_the_encoders_sizes_backwards(size):
    assert sizes(size, 3)[0] == size
    assert all(
        b == (math.ceil(a[0] / 2), math.ceil(a[1] / 2))
        for a, b in zip(sizes(size, 3), sizes(size, 3)[1:], strict=False)
    )


@pytest.mark.parametrize(
    ("size", "channels", "depth", "expected"),
    [
        ((28, 28), 32, None, [32, 64, 128]),
        ((256, 256), 32, None, [32, 64, 128, 128, 128, 128]),
        ((4, 4), 32, None, [32]),
        ((1, 9), 32, None, [32]),
        ((37, 53), 32, None, [32, 64, 128, 128]),
        ((28, 28), [7, 5], None, [7, 5]),
        ((28, 28), [7, 5], 2, [7, 5]),
        ((28, 28), 16, 5, [16, 32, 64, 128, 128]),
    ],
)
def test_channels_double_until_the_image_is_small(size, channels, depth, expected):
    assert widths(size, channels, depth, 128) == expected


@pytest.mark.parametrize(
    ("size", "channels", "depth", "message"),
    [
        ((28, 28), 8, 6, "cannot have 6 scales: 28x28 pixels can be halved 5 times"),
        ((8, 8), [8] * 4, None, "cannot have 4 scales: 8x8 pixels can be halved 3 times"),
        ((1, 1), 8, None, "cannot have 1 scale: 1x1 pixels can be halved 0 times"),
        ((28, 28), [8, 16], 3, r"depth=3 contradicts channels=\[8, 16\]"),
    ],
)
def test_impossible_scales_are_refused(size, channels, depth, message):
    knobs = {"max_channels": 64, "kernel": 3, "extra": 0, "dense": 0}
    knobs |= {"activation": "relu", "norm": "none", "init": "torch"}
    with pytest.raises(ValueError, match=message):
        ConvEncoder((1, *size), VECTOR, channels, depth, downsample="stride", **knobs)
    with pytest.raises(ValueError, match=message):
        ConvDecoder(VECTOR, (1, *size), channels, depth, upsample="stride", **knobs)


SPATIAL = {"channels": 4, "max_channels": 8, "kernel": 3, "extra": 0, "activation": "relu", "norm": "none"}


@pytest.mark.parametrize(
    ("image", "latent"), [((1, 28, 28), (2, 7, 7)), ((3, 37, 53), (4, 10, 14)), ((1, 8, 8), (3, 8, 8))]
)
def test_spatial_networks_meet_at_the_latents_height_and_width(image, latent):
    encoder = ConvSpatialEncoder(image, latent, downsample="stride", init="torch", **SPATIAL)
    decoder = ConvSpatialDecoder(latent, image, upsample="nearest", init="torch", **SPATIAL)
    assert decoder(encoder(torch.rand(2, *image))).shape == (2, *image)


def test_latents_that_are_not_a_scale_of_the_image_are_rejected_with_the_scales():
    with pytest.raises(
        ValueError, match=r"3x3 are not a scale of images of 8x8 pixels .its scales are 8x8, 4x4, 2x2, 1x1"
    ):
        ConvSpatialEncoder((1, 8, 8), (2, 3, 3), downsample="stride", init="torch", **SPATIAL)
    with pytest.raises(ValueError, match=r"needs latents with shape \[channels, height, width\]"):
        ConvSpatialDecoder(VECTOR, (1, 8, 8), upsample="stride", init="torch", **SPATIAL)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("size", [(16, 16), (15, 16), (13, 11)])
def test_only_even_kernels_cover_all_pixels_equally_often(kernel, size):
    """Constant weights and inputs give a constant image away from its edges, or a checkerboard."""
    small = tuple((side + 1) // 2 for side in size)
    for upsample in ("even", "stride", "nearest"):
        layers = nn.Sequential(*doublings([1], [size, small], Style(kernel, 0, "relu", "none"), upsample))
        for p in layers.parameters():
            nn.init.constant_(p, 0.0 if p.dim() == 1 else 1.0)
        image = layers(torch.ones(1, 1, *small))
        assert image.shape[2:] == size
        inside = image[..., 4:-4, 4:-4]
        assert (inside.max() == inside.min()) == (upsample != "stride")
