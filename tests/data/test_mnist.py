"""The protocols of the literature, on the real MNIST."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torchvision import datasets

from tests.support import load
from vae_train.data.sources.base import random_bits
from vae_train.data.sources.mnist import MNIST

SIZES = {
    "vamp": (50_000, 10_000, 10_000),
    "iwae": (59_600, 400, 10_000),
    "all": (60_000, None, 10_000),
    "everything": (70_000, None, None),
}
VALID_BITS = "bf03dc576557652dfc5251be95c792c593a5003e0b9704bd4688048b34b12723"
TEST_BITS = "a700b0d972959b58f1603f074199fd8e80fa8cb858cbf1a908eaaf1b93e1117a"


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array, dtype=np.uint8).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def original(mnist_root):
    return [datasets.MNIST(mnist_root, train=train).data.numpy()[:, None] for train in (True, False)]


@pytest.mark.parametrize("protocol", SIZES)
def test_protocols_have_their_sizes_and_keep_the_original_order(protocol, mnist_root, original):
    data = load(MNIST(mnist_root, "none", protocol))
    splits = [data.split(name) for name in ("train", "valid", "test")]
    assert tuple(None if s is None else len(s) for s in splits) == SIZES[protocol]
    assert data.facts.num_train == SIZES[protocol][0]
    found = np.concatenate([s.stored.pixels.numpy() for s in splits if s is not None])
    assert np.array_equal(found, np.concatenate(original))


def test_vamp_bits_are_those_of_the_paper(mnist_root, original):
    data = load(MNIST(mnist_root, "dynamic", "vamp"))
    train, test = (images.astype(np.float32) / 255 for images in original)
    np.random.seed(777)
    valid_bits, test_bits = np.random.binomial(1, train[50_000:]), np.random.binomial(1, test)
    assert np.array_equal(data.split("valid").stored.pixels.numpy(), valid_bits)
    assert np.array_equal(data.split("test").stored.pixels.numpy(), test_bits)
    assert sha256(data.split("valid").stored.pixels.numpy()) == VALID_BITS
    assert sha256(data.split("test").stored.pixels.numpy()) == TEST_BITS
    assert np.array_equal(data.split("train").stored.pixels.numpy(), original[0][:50_000])


def test_labels_belong_to_their_images(mnist_root):
    labels = torch.cat([datasets.MNIST(mnist_root, train=train).targets for train in (True, False)])
    data = load(MNIST(mnist_root, "threshold", "vamp"))
    ours = torch.cat([data.split(name).stored.labels for name in ("train", "valid", "test")])
    assert torch.equal(ours.flatten(), labels)
    assert data.split("test").stored.pixels.max() == 1


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_bits_are_those_of_numpy_for_every_grey_value(levels):
    pixels = np.random.RandomState(0).randint(0, levels, (200, 1, 28, 28)).astype(np.uint8)
    theirs, ours = np.random.RandomState(7), np.random.RandomState(7)
    expected = theirs.binomial(1, pixels.astype(np.float32) / np.float32(levels - 1))
    assert np.array_equal(random_bits(pixels, levels, ours), expected)
    assert ours.random_sample() == theirs.random_sample()
