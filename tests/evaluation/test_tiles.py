"""Large images in overlapping tiles: weights that sum to 1, no seams, and memory that does not grow."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.support import build_model, compose
from vae_train.evaluation.tiles import Axis, in_tiles
from vae_train.rng import generator


def smooth_image(height, width, channels=3):
    """A smooth image with some detail."""
    coarse = torch.rand(1, channels, 9, 9, generator=generator(0, "coarse"))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 1)
    detail = torch.rand(channels, height, width, generator=generator(0, "detail"))
    return 0.98 * smooth + 0.02 * detail


@pytest.mark.parametrize(("length", "tile", "overlap"), [(100, 16, 4), (17, 16, 8), (16, 16, 5), (5, 16, 4), (1, 8, 0)])
def test_the_weights_of_all_tiles_sum_to_one(length, tile, overlap):
    axis, total = Axis(length, tile, overlap), torch.zeros(10 * tile + length)
    for number in range(axis.count):
        start = axis.start(number)
        assert start < length
        total[start : start + tile] += axis.weights(number)
    assert torch.allclose(total[:length], torch.ones(length))


@pytest.mark.parametrize(("height", "width"), [(40, 53), (16, 16), (7, 30), (3, 1)])
@pytest.mark.parametrize("overlap", [(0, 0), (8, 4)])
def test_a_function_of_single_pixels_is_that_of_the_image(height, width, overlap):
    x = smooth_image(height, width)
    assert torch.allclose(
        in_tiles(lambda tiles: 2 * tiles[:, :2] - 1, x, (16, 16), overlap, 3), 2 * x[:2] - 1, atol=1e-6
    )


def test_a_tile_beyond_the_image_sees_its_reflection():
    assert Axis(5, 8, 0).pixels(0).tolist() == [0, 1, 2, 3, 4, 3, 2, 1]


def test_a_network_whose_fields_fit_into_the_overlap_does_as_on_the_whole_image():
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.SiLU(),
        nn.Conv2d(8, 8, 3, 1, 1),
        nn.SiLU(),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
    ]
    network, x = nn.Sequential(*layers).requires_grad_(False), smooth_image(96, 120)
    whole, tiled = network(x[None])[0], in_tiles(network, x, (48, 48), (24, 24), 2)
    inner = (slice(None), slice(None), slice(0, 100))  # beyond, the last tiles see a reflection instead of zeros
    assert torch.allclose(tiled[inner], whole[inner], atol=1e-5)


def seams(x, every):
    """The mean step across the borders of tiles, relative to that elsewhere."""
    steps = (x[..., 1:] - x[..., :-1]).abs().mean((0, 1))
    borders = torch.arange(every - 1, len(steps), every)
    others = torch.ones(len(steps), dtype=torch.bool)
    others[borders] = False
    return (steps[borders].mean() / steps[others].mean()).item()


def test_an_overlap_hides_the_seams_of_networks_that_see_a_whole_tile():
    """Group normalisation and attention make a tile depend on all its pixels."""
    words = ("model=resnet", "latent_shape=[4,8,8]", "model.encoder.channels=[8,16]", "model.encoder.attention=64")
    model = build_model(compose(*words, "model/likelihood=laplace"), (3, 16, 16), 256).eval()
    for p in model.parameters():
        p.requires_grad_(False)
        if p.dim() == 4 and not p.any():
            nn.init.normal_(p, std=0.1, generator=generator(0, "blocks"))  # a trained network's blocks do something

    def reconstruct(tiles):
        return model.decode(model.encode(tiles).mean).mean

    x = smooth_image(64, 64)
    butted, blended = (in_tiles(reconstruct, x, (16, 16), (overlap, overlap), 8) for overlap in (0, 8))
    assert seams(butted, 16) > 1.3
    assert seams(blended, 8) < 1.1
