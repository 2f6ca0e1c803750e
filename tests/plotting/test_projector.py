from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from vae_train.plotting.maps import plot_projector


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def read_projector(folder):
    """What TensorBoard reads: the configuration, and the tensor as text."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = text_format.Parse((folder / "projector_config.pbtxt").read_text("utf-8"), ProjectorConfig())
    (entry,) = config.embeddings
    return entry, np.loadtxt(folder / entry.tensor_path, delimiter="\t", ndmin=2)


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 8, 8)), (5, (3, 8, 6)), (16, (1, 28, 28)), (17, (3, 128, 64))])
def test_the_projectors_files_hold_what_was_given(tmp_path, count, shape):
    codes, images = normal(count, 3), np.random.default_rng(0).random((count, *shape))
    y = np.arange(count) % 3
    plot_projector(tmp_path / "new", codes, y, images, ["zero", "o\tne"])
    entry, tensor = read_projector(tmp_path / "new")
    assert tensor == pytest.approx(codes, rel=1e-5)
    lines = (tmp_path / "new" / entry.metadata_path).read_text("utf-8").splitlines()
    assert lines == [("zero", "o ne", "2")[kind] for kind in y]
    width, height = entry.sprite.single_image_dim
    sprite = pixels(tmp_path / "new" / entry.sprite.image_path)
    side = math.ceil(math.sqrt(count))
    assert sprite.shape == (side * height, side * width, 3)
    assert (height, width) == ((64, 32) if shape[1] == 128 else shape[1:])
    for i in range(count):
        top, left = i // side * height, i % side * width
        tile = sprite[top : top + height, left : left + width].transpose(2, 0, 1) / 255
        factor = shape[1] // height
        small = images[i].reshape(shape[0], height, factor, width, factor).mean((2, 4))
        assert tile == pytest.approx(np.broadcast_to(small, tile.shape), abs=0.51 / 255)


def test_the_projector_finds_them(tmp_path):
    """TensorBoard's own code, for a folder without event files."""
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin

    plot_projector(tmp_path, normal(7, 3), np.arange(7), np.zeros((7, 1, 4, 4)))
    plugin = ProjectorPlugin(TBContext(logdir=str(tmp_path)))
    plugin._update_configs()
    (entry,) = plugin._configs["."].embeddings
    assert (list(entry.tensor_shape), entry.tensor_name) == ([7, 3], "encodings")


def test_the_projector_shows_codes_alone_and_is_written_again(tmp_path):
    plot_projector(tmp_path, normal(4, 3))
    plot_projector(tmp_path, torch.zeros(3, 1))
    entry, tensor = read_projector(tmp_path)
    assert tensor.tolist() == [[0.0] * 3] * 3  # the projector needs three dimensions
    assert not entry.metadata_path
    assert not entry.HasField("sprite")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["projector_config.pbtxt", "tensors.tsv"]


@pytest.mark.parametrize("shape", [(2, 5, 5), (1, 1, 300), (3, 1, 1)])
def test_a_sprite_of_what_is_no_image(tmp_path, shape):
    plot_projector(tmp_path, normal(4, 2), None, np.full((4, *shape), 2.0))
    sprite = pixels(tmp_path / "sprite.png")
    assert max(sprite.shape) <= 128
    assert (sprite == 255).all()
