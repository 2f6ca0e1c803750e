from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tests.support import load
from vae_train.data.sources.digits import Digits
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

SPLITS = ("train", "valid", "test")
BINARIZE = pytest.mark.parametrize("binarize", ["none", "dynamic", "threshold"])


def everything(images, rng=None):
    return images.fetch(torch.arange(len(images)), rng)


@BINARIZE
def test_splits_have_their_sizes(binarize):
    data = load(Digits(binarize))
    assert [len(data.split(name)) for name in SPLITS] == [1257, 180, 360]
    assert data.facts.num_train == 1257


def test_the_splits_are_all_images_of_scikit_learn_once():
    data = load(Digits("none"))
    ours = torch.cat([data.split(name).stored.pixels for name in SPLITS]).flatten(1).tolist()
    theirs = load_digits().data.astype(int).tolist()
    assert sorted(ours) == sorted(theirs)


def test_labels_belong_to_their_images():
    data = load(Digits("none"))
    pixels, labels = load_digits(return_X_y=True)
    known = {tuple(image.astype(int)): label for image, label in zip(pixels, labels, strict=True)}
    for name in SPLITS:
        split = data.split(name)
        assert [
            known[tuple(image)] for image in split.stored.pixels.flatten(1).tolist()
        ] == split.stored.labels.flatten().tolist()


@BINARIZE
def test_the_facts_hold(binarize):
    data = load(Digits(binarize))
    for name in SPLITS:
        batch = everything(data.split(name), Rng(0, "data", 0))
        assert batch.x.shape[1:] == data.facts.data_shape
        assert len(batch.x.unique()) == data.facts.levels
        assert (batch.x.min(), batch.x.max()) == (0, 1)
        assert set(batch.y.flatten().tolist()) == set(range(data.facts.classes))


@BINARIZE
def test_loading_twice_gives_the_same_data(binarize):
    first, second = load(Digits(binarize)), load(Digits(binarize))
    assert first.checksum == second.checksum
    assert first.checksum.startswith("sha256:")
    assert all(torch.equal(first.split(n).stored.pixels, second.split(n).stored.pixels) for n in SPLITS)


def test_the_checksum_depends_on_the_binarisation():
    assert len({load(Digits(binarize)).checksum for binarize in ("none", "dynamic", "threshold")}) == 3


def test_dynamic_training_bits_change_and_evaluation_bits_do_not():
    data = load(Digits("dynamic"))
    train, valid = data.split("train"), data.split("valid")
    assert not torch.equal(everything(train, Rng(0, "data", 0)).x, everything(train, Rng(0, "data", 1)).x)
    assert torch.equal(everything(valid, Rng(0, "data", 0)).x, everything(valid, Rng(0, "data", 1)).x)
    assert torch.equal(everything(valid).x, everything(valid, Rng(0, "data", 1)).x)


def test_threshold_cuts_at_one_half():
    grey, bits = load(Digits("none")), load(Digits("threshold"))
    for name in SPLITS:
        assert torch.equal(everything(bits.split(name)).x, (everything(grey.split(name)).x > 0.5).float())


def test_bits_leave_numpys_global_generator_alone():
    before = np.random.get_state()[1].copy()
    load(Digits("dynamic"))
    assert (np.random.get_state()[1] == before).all()


class Other(Digits):
    """Digits with other facts than its images have."""

    changes: ClassVar = {}

    def inspect(self):
        return super().inspect()._replace(**self.changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"num_train": 1200}, "has 1,257 training images here, not 1,200"),
        ({"data_shape": (1, 28, 28)}, r"train images are \(1, 8, 8\), not \(1, 28, 28\)"),
    ],
)
def test_data_that_differs_from_its_facts_is_an_error(changes, why, monkeypatch):
    monkeypatch.setattr(Other, "changes", changes)
    with pytest.raises(UsageError, match=why):
        load(Other("none"))


def test_a_device_without_a_number_is_the_one_that_tensors_are_on():
    # A tensor on torch.device("cuda") says cuda:0; "meta" shows the same without a GPU, the other way round.
    assert torch.device("meta:0") != torch.empty(0, device="meta:0").device
    assert load(Digits("none"), device="meta:0").split("train").resident
