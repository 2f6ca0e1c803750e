"""CelebA, opened from a few JPEGs laid out as torchvision's download leaves them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import celeba as torchvisions

from tests import support
from vae_train.data.sources.celeba import NAMES, CelebA
from vae_train.util.errors import UsageError

SPLITS = ("train", "valid", "test")
PARTS = [0, 1, 0, 2, 0, 1, 0]
FILES = [f"{number:06d}.jpg" for number in range(1, len(PARTS) + 1)]
VALUES = np.random.RandomState(0).randint(0, 2, (len(PARTS), 40)) * 2 - 1


class FewFaces(CelebA):
    """The published set, if it were as small as the one here."""

    sizes = {"train": 4, "valid": 2, "test": 1}  # noqa: RUF012


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no network here")

    monkeypatch.setattr(torchvisions, "download_file_from_google_drive", refuse)


def write(root):
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for number, name in enumerate(FILES):
        coarse = np.random.RandomState(number).randint(0, 256, (11, 9, 3), np.uint8)
        Image.fromarray(coarse).resize((178, 218)).save(folder / "img_align_celeba" / name)
    rows = [f"{name} {part}" for name, part in zip(FILES, PARTS, strict=True)]
    (folder / "list_eval_partition.txt").write_text("\n".join(rows) + "\n")
    rows = [f"{name} " + " ".join(f"{v:2d}" for v in row) for name, row in zip(FILES, VALUES, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), " ".join(NAMES) + " ", *rows]) + "\n")
    return folder


def load(root, crop=148, size=64):
    return support.load(FewFaces(str(root), crop, size, str(root / "cache")))


@pytest.mark.parametrize(("crop", "size"), [(148, 64), (140, 64), (108, 32), (147, 40), (178, 178)])
def test_pixels_are_those_of_torchvisions_transforms(crop, size, tmp_path):
    folder = write(tmp_path)
    data = load(tmp_path, crop, size)
    treat = transforms.Compose([transforms.CenterCrop(crop), transforms.Resize(size), transforms.PILToTensor()])
    for number, name in enumerate(SPLITS):
        expected = [treat(Image.open(folder / "img_align_celeba" / f)) for f, p in zip(FILES, PARTS, strict=True)
                    if p == number]  # fmt: skip
        assert torch.equal(data.split(name).stored.pixels, torch.stack(expected))


def test_attributes_belong_to_their_images(tmp_path):
    write(tmp_path)
    data = load(tmp_path)
    for number, name in enumerate(SPLITS):
        expected = (VALUES[np.array(PARTS) == number] + 1) // 2
        assert data.split(name).stored.labels.tolist() == expected.tolist()
        assert data.split(name).fetch(torch.tensor([0])).y.shape == (1, 40)


def test_facts_are_those_of_the_published_set():
    facts = CelebA("nowhere", 148, 64, None).inspect()
    assert (facts.num_train, facts.data_shape, facts.levels) == (162_770, (3, 64, 64), 256)
    assert sum(CelebA.sizes.values()) == 202_599
    assert [facts.factors[i].name for i in (0, 20, 39)] == ["5_o_Clock_Shadow", "Male", "Young"]
    assert len({factor.name for factor in facts.factors}) == 40


def test_images_are_decoded_once_for_every_size(tmp_path):
    write(tmp_path)
    first = load(tmp_path).checksum
    load(tmp_path, size=32)
    assert len(list((tmp_path / "cache").iterdir())) == 2
    caches = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    assert load(tmp_path).checksum == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == caches


@pytest.mark.parametrize("name", ["img_align_celeba", "list_eval_partition.txt", "list_attr_celeba.txt"])
def test_missing_data_names_the_folder_and_the_setting(name, tmp_path):
    folder = write(tmp_path)
    (folder / name).rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    for part in (str(folder), "no network here", "data.root=", "data=digits"):
        assert part in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_a_bad_image_is_named(content, tmp_path):
    path = write(tmp_path) / "img_align_celeba/000003.jpg"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UsageError, match=str(path)):
        load(tmp_path)


def test_a_truncated_image_is_named(tmp_path):
    path = write(tmp_path) / "img_align_celeba/000003.jpg"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UsageError, match=str(path)):
        load(tmp_path)


def test_images_that_are_not_aligned_are_refused(tmp_path):
    path = write(tmp_path) / "img_align_celeba/000003.jpg"
    Image.new("RGB", (178, 178)).save(path)
    with pytest.raises(UsageError, match="178x178 pixels, not 218x178"):
        load(tmp_path)


@pytest.mark.parametrize("change", [
    lambda text: "",
    lambda text: text[: len(text) // 2],
    lambda text: text.replace("000003.jpg", "000033.jpg"),
    lambda text: text.replace("-1", "-7"),
    lambda text: text.replace("Male", "Bale"),
    lambda text: text.replace("Male", "Mäle"),
    lambda text: text.replace("000003.jpg", "000003.jpg x"),
])  # fmt: skip
def test_damaged_attributes_are_the_users_to_mend(change, tmp_path):
    path = write(tmp_path) / "list_attr_celeba.txt"
    path.write_bytes(change(path.read_text()).encode("latin-1"))
    with pytest.raises(UsageError, match=str(path)):
        load(tmp_path)


@pytest.mark.parametrize("change", [
    lambda text: "",
    lambda text: text[: len(text) // 2],
    lambda text: text.replace(" 2", " 1"),
    lambda text: text.replace(" 2", " 3"),
    lambda text: text.replace(" 2", ""),
    lambda text: text + "000008.jpg 3\n",
    lambda text: "ä" + text,
])  # fmt: skip
def test_a_damaged_partition_is_the_users_to_mend(change, tmp_path):
    path = write(tmp_path) / "list_eval_partition.txt"
    path.write_bytes(change(path.read_text()).encode("latin-1"))
    with pytest.raises(UsageError, match="celeba/list_"):
        load(tmp_path)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(UsageError, match=r"set data\.cache= to another folder"):
        load(tmp_path)
