"""Data sets of torchvision, opened from small files laid out as its downloads leave them."""

from __future__ import annotations

import os
import pickle
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import cifar
from torchvision.datasets import mnist as mnist_module
from torchvision.datasets import svhn as svhn_module

from tests.support import load
from vae_train.data.sources.cifar import CIFAR10, CIFAR100, GROUPS
from vae_train.data.sources.emnist import EMNIST, SIZES
from vae_train.data.sources.fashion_mnist import FashionMNIST
from vae_train.data.sources.kmnist import KMNIST
from vae_train.data.sources.mnist import MNIST
from vae_train.data.sources.svhn import SVHN
from vae_train.util.errors import UsageError

RNG = np.random.RandomState(0)
TRAIN, TEST = RNG.randint(0, 256, (8, 28, 28), np.uint8), RNG.randint(0, 256, (3, 28, 28), np.uint8)
FOLDERS = {
    "MNIST": "MNIST/raw",
    "FashionMNIST": "FashionMNIST/raw",
    "KMNIST": "KMNIST/raw",
    "EMNIST": "EMNIST/raw",
    "CIFAR10": "cifar-10-batches-py",
    "CIFAR100": "cifar-100-python",
    "SVHN": "",
}
LIKE_MNIST = ["MNIST", "FashionMNIST", "KMNIST"]
# The groups of CIFAR-100's web page, in its spelling of the files.
SUPERCLASSES = """
    beaver dolphin otter seal whale; aquarium_fish flatfish ray shark trout; orchid poppy rose sunflower tulip;
    bottle bowl can cup plate; apple mushroom orange pear sweet_pepper; clock keyboard lamp telephone television;
    bed chair couch table wardrobe; bee beetle butterfly caterpillar cockroach; bear leopard lion tiger wolf;
    bridge castle house road skyscraper; cloud forest mountain plain sea; camel cattle chimpanzee elephant kangaroo;
    fox porcupine possum raccoon skunk; crab lobster snail spider worm; baby boy girl man woman;
    crocodile dinosaur lizard snake turtle; hamster mouse rabbit shrew squirrel;
    maple_tree oak_tree palm_tree pine_tree willow_tree; bicycle bus motorcycle pickup_truck train;
    lawn_mower rocket streetcar tank tractor
"""
SPLITS = ("train", "valid", "test")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no network here")

    for module in (mnist_module, cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)
    monkeypatch.setattr(svhn_module, "download_url", refuse)


@pytest.fixture
def unchecked(monkeypatch):
    """Lets torchvision take our files for the published ones."""
    for module in (cifar, svhn_module):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: os.path.isfile(path))


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


def write_emnist(root, subset="letters", train=TRAIN, test=TEST, first=1):
    for part, images in (("train", train), ("test", test)):
        start = root / FOLDERS["EMNIST"] / f"emnist-{subset}-{part}"
        write_idx(start.with_name(f"{start.name}-images-idx3-ubyte"), images)
        labels = np.arange(first, first + len(images), dtype=np.uint8)
        write_idx(start.with_name(f"{start.name}-labels-idx1-ubyte"), labels)


def write_cifar100(root):
    folder = root / FOLDERS["CIFAR100"]
    folder.mkdir(parents=True)
    images = {
        "train": RNG.randint(0, 256, (8, 3, 32, 32), np.uint8),
        "test": RNG.randint(0, 256, (3, 3, 32, 32), np.uint8),
    }
    for name, found in images.items():
        fine = [99 - number for number in range(len(found))]
        content = {"data": found.reshape(len(found), -1), "fine_labels": fine, "coarse_labels": [0] * len(found)}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": sorted(SUPERCLASSES.replace(";", "").split())}))
    return images


def write_svhn(root):
    images = {}
    for name, count in (("train", 8), ("test", 3), ("extra", 4)):
        images[name] = RNG.randint(0, 256, (count, 3, 32, 32), np.uint8)
        labels = np.arange(10, 10 - count, -1, dtype=np.uint8)[:, None]  # 10 is the digit 0
        savemat(root / f"{name}_32x32.mat", {"X": images[name].transpose(2, 3, 1, 0), "y": labels}, do_compression=True)
    return images


def make(name, root):
    kind, settings = {
        "MNIST": (MNIST, {"protocol": "vamp"}),
        "FashionMNIST": (FashionMNIST, {}),
        "KMNIST": (KMNIST, {}),
        "EMNIST": (EMNIST, {"subset": "letters"}),
        "CIFAR10": (CIFAR10, {}),
        "CIFAR100": (CIFAR100, {"labels": "fine"}),
        "SVHN": (SVHN, {"extra": False}),
    }[name]
    return kind(root=str(root), binarize="none", **settings)


def small(source, num_train=5):
    """The data of a source that expects our few images."""

    class Small(type(source)):
        def inspect(self):
            return super().inspect()._replace(num_train=num_train)

    return load(Small(**vars(source)))


def test_mnist_is_read_from_its_files(tmp_path):
    write_mnist(tmp_path)
    data = small(make("MNIST", tmp_path))
    found = [data.split(name).stored.pixels[:, 0].numpy() for name in SPLITS]
    assert [np.array_equal(f, e) for f, e in zip(found, (TRAIN[:5], TRAIN[5:], TEST), strict=True)] == [True] * 3
    assert data.split("valid").stored.labels.flatten().tolist() == [5, 6, 7]
    assert data.split("train").fetch(torch.tensor([0])).x.max() <= 1


@pytest.mark.parametrize("name", ["FashionMNIST", "KMNIST"])
def test_a_set_in_the_format_of_mnist_is_read_from_its_files(name, tmp_path):
    write_mnist(tmp_path, name)
    data = small(make(name, tmp_path))
    assert [len(data.split(name)) for name in SPLITS] == [5, 3, 3]
    cut = np.concatenate([data.split(name).stored.pixels[:, 0].numpy() for name in ("train", "valid")])
    labels = torch.cat([data.split(name).stored.labels for name in ("train", "valid")]).flatten().numpy()
    assert sorted(labels) == list(range(8))
    assert np.array_equal(cut, TRAIN[labels])
    assert np.array_equal(data.split("test").stored.pixels[:, 0].numpy(), TEST)


@pytest.mark.parametrize("subset", SIZES)
def test_emnist_is_upright_and_its_labels_start_at_0(subset, tmp_path):
    write_emnist(tmp_path, subset, first=1 if subset == "letters" else 0)
    data = small(EMNIST(str(tmp_path), "none", subset))
    assert [len(data.split(name)) for name in SPLITS] == [5, 3, 3]
    for splits, images in ((SPLITS[:2], TRAIN), (SPLITS[2:], TEST)):
        found = np.concatenate([data.split(name).stored.pixels[:, 0].numpy() for name in splits])
        labels = torch.cat([data.split(name).stored.labels for name in splits]).flatten().numpy()
        assert sorted(labels) == list(range(len(images)))
        assert np.array_equal(found, images[labels].transpose(0, 2, 1))


def test_emnist_has_the_classes_of_torchvision():
    names = {subset: set(found) - {"N/A"} for subset, found in datasets.EMNIST.classes_split_dict.items()}
    assert {subset: len(found) for subset, found in names.items()} == {
        s: classes for s, (_, _, classes) in SIZES.items()
    }
    assert tuple(SIZES) == datasets.EMNIST.splits


def test_emnist_says_its_sizes_without_the_data():
    found = {subset: EMNIST("", "dynamic", subset).inspect().num_train for subset in SIZES}
    assert found["balanced"] == 47 * 2000
    assert found["letters"] == 26 * 4000
    assert found["digits"] == 10 * 20_000
    assert found["mnist"] == 50_000
    assert found["byclass"] + 2 * 116_323 == found["bymerge"] + 2 * 116_323 == 814_255


def test_cifar100_is_read_with_fine_or_coarse_labels(tmp_path, unchecked):
    images = write_cifar100(tmp_path)
    fine, coarse = (small(CIFAR100(str(tmp_path), "none", labels)) for labels in ("fine", "coarse"))
    assert (fine.facts.classes, coarse.facts.classes) == (100, 20)
    assert [len(fine.split(name)) for name in SPLITS] == [5, 3, 3]
    assert np.array_equal(fine.split("test").stored.pixels.numpy(), images["test"])
    train = torch.cat([fine.split(name).stored.pixels for name in SPLITS[:2]]).numpy()
    labels = torch.cat([fine.split(name).stored.labels for name in SPLITS[:2]]).flatten().numpy()
    assert sorted(labels) == list(range(92, 100))
    assert np.array_equal(train, images["train"][99 - labels])
    for name in SPLITS:
        assert np.array_equal(coarse.split(name).stored.pixels.numpy(), fine.split(name).stored.pixels.numpy())
        assert coarse.split(name).stored.labels.tolist() == [
            [GROUPS[label]] for label in fine.split(name).stored.labels.flatten()
        ]


def test_the_groups_of_cifar100_are_those_of_its_authors():
    group = {name: number for number, names in enumerate(SUPERCLASSES.split(";")) for name in names.split()}
    assert tuple(group[name] for name in sorted(group)) == GROUPS


def test_svhn_is_read_from_its_files_and_ten_is_the_digit_0(tmp_path, unchecked):
    images = write_svhn(tmp_path)
    data = small(make("SVHN", tmp_path))
    assert [len(data.split(name)) for name in SPLITS] == [5, 3, 3]
    assert np.array_equal(data.split("test").stored.pixels.numpy(), images["test"])
    assert data.split("test").stored.labels.tolist() == [[0], [9], [8]]
    train = torch.cat([data.split(name).stored.pixels for name in SPLITS[:2]]).numpy()
    labels = torch.cat([data.split(name).stored.labels for name in SPLITS[:2]]).flatten().numpy()
    assert np.array_equal(train, images["train"][(10 - labels) % 10])


def test_what_svhn_has_further_is_trained_on_and_moves_no_other_image(tmp_path, unchecked):
    images = write_svhn(tmp_path)
    without, data = (small(SVHN(str(tmp_path), "none", extra), 9 if extra else 5) for extra in (False, True))
    assert (without.facts.num_train, data.facts.num_train) == (5, 9)
    assert np.array_equal(data.split("train").stored.pixels[:5].numpy(), without.split("train").stored.pixels.numpy())
    assert np.array_equal(data.split("train").stored.pixels[5:].numpy(), images["extra"])
    for name in SPLITS[1:]:
        assert np.array_equal(data.split(name).stored.pixels.numpy(), without.split(name).stored.pixels.numpy())


def test_missing_images_of_svhn_name_their_file(tmp_path, unchecked):
    write_svhn(tmp_path)
    (tmp_path / "extra_32x32.mat").unlink()
    with pytest.raises(UsageError, match=r"extra_32x32\.mat"):
        load(SVHN(str(tmp_path), "none", True))


def test_svhn_says_its_sizes_without_the_data():
    assert [SVHN("", "none", extra).inspect().num_train + 7000 for extra in (False, True)] == [73_257, 73_257 + 531_131]


def test_cifar10_is_read_from_its_files_with_colours_first(tmp_path, unchecked):
    images = write_cifar(tmp_path)
    data = small(make("CIFAR10", tmp_path), num_train=7)
    assert [len(data.split(name)) for name in SPLITS] == [7, 3, 2]
    assert np.array_equal(data.split("test").stored.pixels.numpy(), images["test_batch"])
    train = np.concatenate([images[f"data_batch_{i}"] for i in range(1, 6)]).reshape(10, -1).tolist()
    cut = torch.cat([data.split(name).stored.pixels for name in ("train", "valid")]).flatten(1).tolist()
    assert sorted(cut) == sorted(train)


def test_the_split_is_the_same_at_every_load(tmp_path):
    write_mnist(tmp_path, "FashionMNIST")
    assert len({small(make("FashionMNIST", tmp_path)).checksum for _ in range(2)}) == 1


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_data_names_the_folder_and_the_setting(name, tmp_path):
    with pytest.raises(UsageError) as caught:
        load(make(name, tmp_path))
    for part in (str(tmp_path / FOLDERS[name]), "no network here", "data.root=", "data=digits"):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", LIKE_MNIST)
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("kept", [0, 2, 6, 18])
def test_a_truncated_file_is_the_users_to_mend(name, file, kept, tmp_path):
    write_mnist(tmp_path, name)
    path = tmp_path / FOLDERS[name] / file
    path.write_bytes(path.read_bytes()[:kept] if kept < 18 else path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=FOLDERS[name]):
        small(make(name, tmp_path))


@pytest.mark.parametrize("what", ["images-idx3", "labels-idx1"])
@pytest.mark.parametrize("kept", [0, 6, 11])
def test_a_truncated_file_of_emnist_is_the_users_to_mend(what, kept, tmp_path):
    write_emnist(tmp_path)
    path = tmp_path / FOLDERS["EMNIST"] / f"emnist-letters-train-{what}-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match="EMNIST/raw"):
        small(make("EMNIST", tmp_path))


def test_another_subset_of_emnist_is_missing(tmp_path):
    write_emnist(tmp_path)
    with pytest.raises(UsageError, match="EMNIST is missing or damaged in"):
        load(EMNIST(str(tmp_path), "none", "digits"))


@pytest.mark.parametrize("content", [b"not an idx file", b"<html>404</html>", bytes(40)])
def test_a_foreign_file_is_the_users_to_mend(content, tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(UsageError, match="MNIST/raw"):
        small(make("MNIST", tmp_path))


@pytest.mark.parametrize(
    ("name", "write"), [("CIFAR10", write_cifar), ("CIFAR100", write_cifar100), ("SVHN", write_svhn)]
)
def test_damaged_files_fail_their_checksum(name, write, tmp_path):
    write(tmp_path)
    with pytest.raises(UsageError, match="is missing or damaged in"):
        load(make(name, tmp_path))


def test_fewer_images_than_there_should_be_are_refused(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(UsageError, match="MNIST has 8 training images here, not 50,000"):
        load(make("MNIST", tmp_path))


def test_images_of_another_size_are_refused(tmp_path):
    write_mnist(tmp_path, train=TRAIN[:, :20, :20])
    with pytest.raises(UsageError, match=r"train images are \(1, 20, 20\), not \(1, 28, 28\)"):
        small(make("MNIST", tmp_path))
