"""Omniglot, opened from small archives laid out as torchvision's download leaves them."""

from __future__ import annotations

import io
import shutil
import zipfile
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import omniglot as torchvisions

from tests import support
from vae_train.data.sources.omniglot import Omniglot
from vae_train.util.errors import UsageError

SPLITS = ("train", "valid", "test")
CHARACTERS = {"background": ["B/c1", "A/c2", "A/c1"], "evaluation": ["Z/c1", "Y/c1"]}
COUNT = 4  # drawings of every character


class FewCharacters(Omniglot):
    """The published set, if it were as small as the archives here."""

    num_characters = {part: len(found) for part, found in CHARACTERS.items()}  # noqa: RUF012
    num_drawings = COUNT
    num_valid = 5


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no network here")

    monkeypatch.setattr(torchvisions, "download_and_extract_archive", refuse)


def drawing(seed):
    """Black strokes on white."""
    return np.random.RandomState(seed).rand(105, 105) > 0.3


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).convert("1").save(file, "PNG")
    return file.getvalue()


def write(root, change=None):
    """Archives and what they hold, as drawings by character."""
    drawings = {}
    for part, characters in CHARACTERS.items():
        folder = root / "omniglot-py"
        for character in characters:
            drawings[character] = [drawing(100 * len(drawings) + number) for number in range(COUNT)]
            for number, pixels in enumerate(drawings[character]):
                place = folder / f"images_{part}" / character / f"0001_{number:02d}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(png(pixels))
        (folder / f"images_{part}/notes.txt").write_text("no image")
        if change:
            change(folder / f"images_{part}")
        shutil.make_archive(str(folder / f"images_{part}"), "zip", folder, f"images_{part}")
    return drawings


def load(root, size=105, binarize="none"):
    return support.load(FewCharacters(str(root), binarize, size))


def test_strokes_are_bright_and_labels_are_in_alphabetical_order(tmp_path):
    drawings = write(tmp_path)
    data = load(tmp_path)
    assert [len(data.split(name)) for name in SPLITS] == [7, 5, 8]
    assert data.facts.classes == 5
    found = {tuple(split.stored.pixels[i].flatten().tolist()): int(split.stored.labels[i])
             for split in map(data.split, SPLITS) for i in range(len(split))}  # fmt: skip
    for label, character in enumerate(["A/c1", "A/c2", "B/c1", "Y/c1", "Z/c1"]):
        for pixels in drawings[character]:
            assert found[tuple(np.where(pixels, 0, 255).flatten().tolist())] == label


def test_every_pixel_is_the_mean_of_its_area(tmp_path):
    drawings = write(tmp_path)
    pixels = load(tmp_path, size=35).split("test").stored.pixels[:COUNT, 0].numpy()
    strokes = 255.0 * ~np.stack(drawings["Y/c1"])
    assert np.abs(strokes.reshape(COUNT, 35, 3, 35, 3).mean((2, 4)) - pixels).max() <= 0.51


def test_28x28_keeps_the_mean(tmp_path):
    drawings = write(tmp_path)
    data = load(tmp_path, size=28)
    assert data.facts.data_shape == data.split("test").stored.shape == (1, 28, 28)
    ink = 255.0 * (~np.stack(drawings["Z/c1"])).mean()
    assert abs(data.split("test").stored.pixels[COUNT:].float().mean().item() - ink) < 0.5


def test_bits_are_sampled(tmp_path):
    write(tmp_path)
    data = load(tmp_path, size=28, binarize="dynamic")
    assert data.facts.levels == 2
    assert set(data.split("valid").stored.pixels.flatten().tolist()) == {0, 1}
    assert data.split("train").fetch(torch.arange(3)).x.max() <= 1


def test_the_split_is_the_same_at_every_load(tmp_path):
    write(tmp_path)
    assert load(tmp_path).checksum == load(tmp_path).checksum


def test_facts_are_those_of_the_published_set():
    facts = Omniglot("nowhere", "none", 28).inspect()
    assert (facts.num_train + 2000, facts.classes, facts.data_shape) == (964 * 20, 964 + 659, (1, 28, 28))


def test_missing_data_names_the_folder_and_the_setting(tmp_path):
    with pytest.raises(UsageError) as caught:
        load(tmp_path)
    for part in (str(tmp_path / "omniglot-py"), "no network here", "data.root=", "data=digits"):
        assert part in str(caught.value)


def test_a_folder_without_its_archive_is_the_users_to_mend(tmp_path):
    write(tmp_path)
    (tmp_path / "omniglot-py/images_evaluation.zip").unlink()
    with pytest.raises(UsageError, match=r"images_evaluation\.zip"):
        load(tmp_path)


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: b"<html>404</html>",
                                    lambda c: c[:200] + bytes(300) + c[500:]])  # fmt: skip
def test_a_damaged_archive_is_the_users_to_mend(damage, tmp_path):
    write(tmp_path)
    path = tmp_path / "omniglot-py/images_background.zip"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UsageError, match="is missing or damaged in"):
        load(tmp_path)


def test_an_archive_with_fewer_images_is_refused(tmp_path):
    write(tmp_path, lambda folder: next(folder.rglob("*.png")).unlink())
    with pytest.raises(UsageError, match="has 11 images, not 12"):
        load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no image", png(drawing(0))[:200]])
def test_a_broken_image_is_named(content, tmp_path):
    write(tmp_path, lambda folder: next(folder.rglob("A/c1/*.png"), folder / "x").write_bytes(content))
    with pytest.raises(UsageError, match=r"A/c1/0001_\d\d\.png in .*images_background\.zip"):
        load(tmp_path)


def test_an_archive_without_entries_is_refused(tmp_path):
    (tmp_path / "omniglot-py").mkdir()
    with zipfile.ZipFile(tmp_path / "omniglot-py/images_background.zip", "w"):
        pass
    with pytest.raises(UsageError, match="has 0 images"):
        load(tmp_path)
