from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from vae_train.data.sources.digits import Digits
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

SPLITS = ("train", "valid", "test")
BINARIZE = pytest.mark.parametrize("binarize", ["none", "dynamic", "threshold"])


def everything(images, rng=None):
    return images.fetch(torch.arange(len(images)), rng)


@BINARIZE
def test_splits_have_their_sizes(binarize):
    data = Digits(binarize).load()
    assert [len(data.split(name)) for name in SPLITS] == [1257, 180, 360]
    assert data.num_train == 1257


def test_the_splits_are_all_images_of_scikit_learn_once():
    data = Digits("none").load()
    ours = torch.cat([data.split(name).pixels for name in SPLITS]).flatten(1).tolist()
    theirs = load_digits().data.astype(int).tolist()
    assert sorted(ours) == sorted(theirs)


def test_labels_belong_to_their_images():
    data = Digits("none").load()
    pixels, labels = load_digits(return_X_y=True)
    known = {tuple(image.astype(int)): label for image, label in zip(pixels, labels, strict=True)}
    for name in SPLITS:
        split = data.split(name)
        assert [known[tuple(image)] for image in split.pixels.flatten(1).tolist()] == split.labels.flatten().tolist()


@BINARIZE
def test_the_facts_hold(binarize):
    data = Digits(binarize).load()
    for name in SPLITS:
        batch = everything(data.split(name), Rng(0, "data", 0))
        assert batch.x.shape[1:] == data.shape
        assert len(batch.x.unique()) == data.levels
        assert (batch.x.min(), batch.x.max()) == (0, 1)
        assert set(batch.y.flatten().tolist()) == set(range(data.classes))


@BINARIZE
def test_loading_twice_gives_the_same_data(binarize):
    first, second = Digits(binarize).load(), Digits(binarize).load()
    assert first.checksum == second.checksum
    assert first.checksum.startswith("sha256:")
    assert all(torch.equal(first.split(n).pixels, second.split(n).pixels) for n in SPLITS)


def test_the_checksum_depends_on_the_binarisation():
    assert len({Digits(binarize).load().checksum for binarize in ("none", "dynamic", "threshold")}) == 3


def test_dynamic_training_bits_change_and_evaluation_bits_do_not():
    data = Digits("dynamic").load()
    train, valid = data.split("train"), data.split("valid")
    assert not torch.equal(everything(train, Rng(0, "data", 0)).x, everything(train, Rng(0, "data", 1)).x)
    assert torch.equal(everything(valid, Rng(0, "data", 0)).x, everything(valid, Rng(0, "data", 1)).x)
    assert torch.equal(everything(valid).x, everything(valid, Rng(0, "data", 1)).x)


def test_threshold_cuts_at_one_half():
    grey, bits = Digits("none").load(), Digits("threshold").load()
    for name in SPLITS:
        assert torch.equal(everything(bits.split(name)).x, (everything(grey.split(name)).x > 0.5).float())


def test_bits_leave_numpys_global_generator_alone():
    before = np.random.get_state()[1].copy()
    Digits("dynamic").load()
    assert (np.random.get_state()[1] == before).all()


def test_data_that_is_not_what_it_says_is_refused():
    data = Digits("none")
    data.num_train = 1200
    with pytest.raises(UsageError, match="Digits has 1,257 training images here, not 1,200"):
        data.load()
    data = Digits("none")
    data.shape = (1, 28, 28)
    with pytest.raises(UsageError, match=r"train images are \(1, 8, 8\), not \(1, 28, 28\)"):
        data.load()


def test_a_device_without_a_number_is_the_one_that_tensors_are_on():
    # A tensor on torch.device("cuda") says cuda:0; "meta" shows the same without a GPU, the other way round.
    assert torch.device("meta:0") != torch.empty(0, device="meta:0").device
    assert Digits("none").load("meta:0").split("train").resident
