"""dSprites, opened from a small archive of the published form."""

from __future__ import annotations

import io
import zipfile
from urllib.error import URLError

import numpy as np
import pytest
import torch

from tests.support import load
from vae_train.batch import Factor
from vae_train.data.sources import dsprites
from vae_train.data.sources.dsprites import NAME, DSprites
from vae_train.util.errors import UsageError

SPLITS = ("train", "valid", "test")
SIZES = (1, 3, 2, 2, 2, 2)
IMAGES = np.random.RandomState(0).randint(0, 2, (48, 64, 64), np.uint8)
CLASSES = np.stack(np.unravel_index(np.arange(48), SIZES), 1)


class FewSprites(DSprites):
    """The published set, if its factors had fewer values."""

    factors = tuple(Factor(str(number), size) for number, size in enumerate(SIZES))


class Unpickled:
    """Ends the test where it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("something was unpickled",)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no network here")

    monkeypatch.setattr(dsprites, "urlopen", refuse)


def archive(**changed):
    arrays = {
        "metadata": np.array(Unpickled(), dtype=object),
        "imgs": IMAGES,
        "latents_classes": CLASSES,
        "latents_values": CLASSES.astype(float),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **{k: v for k, v in (arrays | changed).items() if v is not None})
    return file.getvalue()


def write(root, content=None):
    place = root / "dsprites" / NAME
    place.parent.mkdir(parents=True)
    place.write_bytes(archive() if content is None else content)
    return place


def make(root, num_valid=5, num_test=7):
    return FewSprites(str(root), num_valid, num_test, str(root / "cache"))


def test_images_keep_their_factors_and_nothing_is_unpickled(tmp_path):
    write(tmp_path)
    data = load(make(tmp_path))
    assert [len(data.split(name)) for name in SPLITS] == [36, 5, 7]
    assert data.facts.num_train == 36
    labels = torch.cat([data.split(name).stored.labels for name in SPLITS]).numpy()
    numbers = np.ravel_multi_index(labels.T, SIZES)
    assert sorted(numbers) == list(range(48))
    found = torch.cat([data.split(name).stored.pixels for name in SPLITS])
    assert np.array_equal(found[:, 0].numpy(), IMAGES[numbers])
    x, y = data.split("valid").fetch(torch.arange(2))[:2]
    assert x.shape == (2, 1, 64, 64)
    assert set(x.flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(y, data.split("valid").stored.labels[:2])


def test_pixels_are_unpacked_once(tmp_path):
    write(tmp_path)
    first = load(make(tmp_path)).checksum
    (path,) = (tmp_path / "cache").iterdir()
    before = path.stat()
    assert load(make(tmp_path)).checksum == first
    assert path.stat() == before
    assert path.suffix == ".npy"


def test_pixels_that_were_cut_short_are_unpacked_again(tmp_path):
    write(tmp_path)
    first = load(make(tmp_path)).checksum
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    assert load(make(tmp_path)).checksum == first


def test_splits_without_images_are_none(tmp_path):
    write(tmp_path)
    data = load(make(tmp_path, num_valid=0, num_test=0))
    assert [data.split(name) and len(data.split(name)) for name in SPLITS] == [48, None, None]


def test_facts_are_those_of_the_published_set():
    facts = DSprites("nowhere", 10_000, 10_000, None).inspect()
    assert (facts.num_train, facts.data_shape, facts.levels) == (717_280, (1, 64, 64), 2)
    assert [factor.name for factor in facts.factors] == ["color", "shape", "scale", "orientation", "posX", "posY"]
    assert [factor.size for factor in facts.factors] == [len(factor.values) for factor in facts.factors]
    assert np.prod([factor.size for factor in facts.factors]) == 737_280


def test_counts_must_leave_something(tmp_path):
    with pytest.raises(ValueError, match="num_valid=40 and num_test=8 leave none of the 48"):
        make(tmp_path, 40, 8)


def test_the_archive_is_downloaded_in_one_go(tmp_path, monkeypatch):
    monkeypatch.setattr(dsprites, "urlopen", lambda url, timeout: io.BytesIO(archive()))
    assert len(load(make(tmp_path)).split("train")) == 36
    assert [path.name for path in (tmp_path / "dsprites").iterdir()] == [NAME]


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", archive()[:-100]])
def test_a_download_of_something_else_leaves_nothing(content, tmp_path, monkeypatch):
    monkeypatch.setattr(dsprites, "urlopen", lambda url, timeout: io.BytesIO(content))
    with pytest.raises(UsageError, match="the download is not a zip archive"):
        load(make(tmp_path))
    assert list(tmp_path.rglob("*.*")) == []


def test_missing_data_names_the_folder_and_the_setting(tmp_path):
    with pytest.raises(UsageError) as caught:
        load(make(tmp_path))
    for part in (str(tmp_path / "dsprites"), "no network here", dsprites.URL, "data.root=", "data=digits"):
        assert part in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def damaged(member):
    """The archive with a byte within `member` changed."""
    content = bytearray(archive())
    with zipfile.ZipFile(io.BytesIO(content)) as found:
        info = found.getinfo(member)
    middle = info.header_offset + 60 + info.compress_size // 2
    content[middle] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", archive()[:-100], archive(imgs=None), archive(latents_classes=None),
     archive(latents_classes=np.array(Unpickled(), dtype=object)), damaged("imgs.npy"),
     damaged("latents_classes.npy")],
)  # fmt: skip
def test_a_damaged_archive_is_the_users_to_mend(content, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(UsageError, match="remove it to download it again") as caught:
        load(make(tmp_path))
    assert str(path) in str(caught.value)
    assert [*(tmp_path / "cache").glob("*")] == []


@pytest.mark.parametrize(
    "changed",
    [{"imgs": IMAGES[:40], "latents_classes": CLASSES[:40]}, {"latents_classes": CLASSES[::-1]},
     {"imgs": IMAGES.astype(np.float32)}, {"imgs": np.array(Unpickled(), dtype=object)}],
)  # fmt: skip
def test_an_archive_of_other_images_is_refused(changed, tmp_path):
    write(tmp_path, archive(**changed))
    with pytest.raises(UsageError, match="remove it to download it again"):
        load(make(tmp_path))


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UsageError, match=r"set data\.cache= to another folder"):
        load(make(tmp_path))
