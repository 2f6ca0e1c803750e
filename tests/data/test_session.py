"""What a session remembers, and that nothing it returns changes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.support import build, compose, load, tensor_images
from vae_train.data.dataset import Transforms
from vae_train.data.session import MAX_SOURCES, DataSession
from vae_train.data.sources.digits import Digits
from vae_train.data.sources.folder import Folder
from vae_train.data.storage.loader import Loader
from vae_train.data.transforms.preprocessing import Preprocessing

DEQUANTIZED = Transforms(preprocessing=Preprocessing(dequantize=True, logit=None, mean=None, std=None))


@dataclasses.dataclass(frozen=True)
class Counted(Digits):
    """Digits that write down when they are inspected and read."""

    log: list = dataclasses.field(default_factory=list, compare=False)

    def inspect(self):
        self.log.append("inspect")
        return super().inspect()

    def read(self):
        self.log.append("read")
        return super().read()


def counted(log, binarize="none"):
    return Counted(binarize, log)


def test_equal_settings_are_inspected_and_read_once():
    session, log = DataSession(), []
    session.inspect(counted(log))
    first = session.load(counted(log))
    second = session.load(counted(log), DEQUANTIZED, Loader("host", None, 0, 2))
    assert log == ["inspect", "read"]
    assert first.checksum == second.checksum
    session.inspect(counted(log, "threshold"))
    assert log == ["inspect", "read", "inspect"]


def test_another_working_directory_is_another_source(tmp_path, monkeypatch):
    session, log = DataSession(), []
    session.inspect(counted(log))
    monkeypatch.chdir(tmp_path)
    session.inspect(counted(log))
    assert log == ["inspect"] * 2


def test_the_last_sources_are_remembered():
    session, log = DataSession(), []
    for binarize in ("none", "dynamic", "none", "threshold", "none"):
        session.load(counted(log, binarize))
    assert MAX_SOURCES == 2
    assert log.count("read") == 3
    session.load(counted(log, "dynamic"))
    DataSession().load(counted(log, "dynamic"))
    assert log.count("read") == 5


def test_pixels_are_shared_between_data_sets_of_one_session():
    session = DataSession()
    first, second = session.load(Digits("none")), session.load(Digits("none"), DEQUANTIZED)
    assert first.split("train").stored is second.split("train").stored
    assert (first.facts.levels, second.facts.levels, second.stored_facts.levels) == (17, None, 17)
    index = torch.arange(5)
    assert first.split("train").fetch(index).log_bins is None
    assert second.split("train").fetch(index).log_bins is not None


def test_nothing_can_be_changed():
    data = load(Digits("none"))
    for thing, name in ((Digits("none"), "binarize"), (data, "checksum"), (data.split("train"), "transforms")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)


@pytest.mark.parametrize("data", ["digits", "mnist", "shapes", "dsprites"])
def test_the_same_yaml_is_the_same_source(data):
    first, second = (build(compose(f"data={data}").data) for _ in range(2))
    assert first == second
    assert dataclasses.is_dataclass(first)


def test_inactive_steps_are_left_out():
    steps = Transforms(*(build(compose()[name]) for name in ("augmentation", "corruption", "preprocessing")))
    assert None not in steps[:3]
    assert steps.active() == Transforms()
    images = tensor_images(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), 2)
    assert images.fetch(torch.arange(3)).encoder_input is None


def test_bad_files_are_not_counted_as_training_images(tmp_path):
    from tests.data.pictures import fill

    paths = fill(tmp_path / "images", 12)
    paths[3].write_bytes(b"broken")
    source = Folder(
        *(str(tmp_path / "images"), 8, 3, "crop", None, "box", "black", "first"),
        *(None, None, "none", 0.0, 0.0, 0, 0.5, str(tmp_path / "cache")),
    )
    assert source.inspect().num_train == 12
    data = load(source)
    assert (data.facts.num_train, len(data.split("train"))) == (11, 11)
    assert data.bad_files == (("0003.png", "is not an image"),)
    assert np.isfinite(data.training().fetch(torch.arange(11)).x.numpy()).all()
