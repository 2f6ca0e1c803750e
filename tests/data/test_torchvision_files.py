"""Data sets of torchvision, opened from small files laid out as its downloads leave them."""

from __future__ import annotations

import os
import pickle
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import cifar
from torchvision.datasets import mnist as mnist_module

from vae_train.data.cifar10 import CIFAR10
from vae_train.data.fashion_mnist import FashionMNIST
from vae_train.data.mnist import MNIST
from vae_train.errors import UsageError

RNG = np.random.RandomState(0)
TRAIN, TEST = RNG.randint(0, 256, (8, 28, 28), np.uint8), RNG.randint(0, 256, (3, 28, 28), np.uint8)
FOLDERS = {"MNIST": "MNIST/raw", "FashionMNIST": "FashionMNIST/raw", "CIFAR10": "cifar-10-batches-py"}
SPLITS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no network here")

    for module in (mnist_module, cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def write_mnist(root, name="MNIST", train=TRAIN, test=TEST):
    for part, images in (("train", train), ("t10k", test)):
        write_idx(root / FOLDERS[name] / f"{part}-images-idx3-ubyte", images)
        write_idx(root / FOLDERS[name] / f"{part}-labels-idx1-ubyte", np.arange(len(images), dtype=np.uint8) % 10)


def write_cifar(root, per_batch=2):
    folder = root / FOLDERS["CIFAR10"]
    folder.mkdir(parents=True)
    images = {}
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images[name] = RNG.randint(0, 256, (per_batch, 3, 32, 32), np.uint8)
        content = {"data": images[name].reshape(per_batch, -1), "labels": [number] * per_batch}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return images


def make(name, root):
    kind = {"MNIST": MNIST, "FashionMNIST": FashionMNIST, "CIFAR10": CIFAR10}[name]
    return kind(str(root), "vamp", "none") if kind is MNIST else kind(str(root), "none")


def small(data, num_train=5, num_valid=3):
    """Lets the data set expect our few images."""
    data.num_train, data.num_valid = num_train, num_valid
    return data.load()


def test_mnist_is_read_from_its_files(tmp_path):
    write_mnist(tmp_path)
    data = small(make("MNIST", tmp_path))
    found = [data.split(name).pixels[:, 0].numpy() for name in SPLITS]
    assert [np.array_equal(f, e) for f, e in zip(found, (TRAIN[:5], TRAIN[5:], TEST), strict=True)] == [True] * 3
    assert data.split("valid").labels.flatten().tolist() == [5, 6, 7]
    assert data.split("train").fetch(torch.tensor([0])).x.max() <= 1


def test_fashion_mnist_is_read_from_its_files(tmp_path):
    write_mnist(tmp_path, "FashionMNIST")
    data = small(make("FashionMNIST", tmp_path))
    assert [len(data.split(name)) for name in SPLITS] == [5, 3, 3]
    cut = np.concatenate([data.split(name).pixels[:, 0].numpy() for name in ("train", "valid")])
    labels = torch.cat([data.split(name).labels for name in ("train", "valid")]).flatten().numpy()
    assert sorted(labels) == list(range(8))
    assert np.array_equal(cut, TRAIN[labels])
    assert np.array_equal(data.split("test").pixels[:, 0].numpy(), TEST)


def test_cifar10_is_read_from_its_files_with_colours_first(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: os.path.isfile(path))
    images = write_cifar(tmp_path)
    data = small(make("CIFAR10", tmp_path), num_train=7)
    assert [len(data.split(name)) for name in SPLITS] == [7, 3, 2]
    assert np.array_equal(data.split("test").pixels.numpy(), images["test_batch"])
    train = np.concatenate([images[f"data_batch_{i}"] for i in range(1, 6)]).reshape(10, -1).tolist()
    cut = torch.cat([data.split(name).pixels for name in ("train", "valid")]).flatten(1).tolist()
    assert sorted(cut) == sorted(train)


def test_the_split_is_the_same_at_every_load(tmp_path):
    write_mnist(tmp_path, "FashionMNIST")
    assert len({small(make("FashionMNIST", tmp_path)).checksum for _ in range(2)}) == 1


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_data_names_the_folder_and_the_setting(name, tmp_path):
    with pytest.raises(UsageError) as caught:
        make(name, tmp_path).load()
    for part in (str(tmp_path / FOLDERS[name]), "no network here", "data.root=", "data=digits"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("kept", [0, 2, 6, 18])
def test_a_truncated_file_is_the_users_to_mend(name, file, kept, tmp_path):
    write_mnist(tmp_path, name)
    path = tmp_path / FOLDERS[name] / file
    path.write_bytes(path.read_bytes()[:kept] if kept < 18 else path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=FOLDERS[name]):
        small(make(name, tmp_path))


@pytest.mark.parametrize("content", [b"not an idx file", b"<html>404</html>", bytes(40)])
def test_a_foreign_file_is_the_users_to_mend(content, tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UsageError, match="MNIST/raw"):
        small(make("MNIST", tmp_path))


def test_a_damaged_cifar10_fails_its_checksum(tmp_path):
    write_cifar(tmp_path)
    with pytest.raises(UsageError, match="or is damaged there"):
        make("CIFAR10", tmp_path).load()


def test_fewer_images_than_there_should_be_are_refused(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(UsageError, match="MNIST has 8 training images here, not 50,000"):
        make("MNIST", tmp_path).load()


def test_images_of_another_size_are_refused(tmp_path):
    write_mnist(tmp_path, train=TRAIN[:, :20, :20])
    with pytest.raises(UsageError, match=r"train images are \(1, 20, 20\), not \(1, 28, 28\)"):
        small(make("MNIST", tmp_path))
