"""Folders of images: what is found, what becomes of each kind of file, what the cache does."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.pictures import GREEN, damaged, encoded, fill, odd, save, scene
from tests.support import build, compose, load
from vae_train.data.storage import frames
from vae_train.data.storage.cache import MIN_PARALLEL_FILES, decoded
from vae_train.data.storage.decoding import BadImage, Decoding, decode, decode_frames, headers
from vae_train.data.storage.listing import list_folder
from vae_train.util.errors import RunError, UsageError

SPLITS = ("train", "valid", "test")
PLAIN = Decoding((12, 16), 3, "crop", None, "bicubic", "black", False)


pytestmark = pytest.mark.usefixtures("caches")


def folder(root, *overrides):
    cfg = compose("data=folder", *(f"data.{override}" for override in overrides)).data
    cfg.root = str(root)
    return build(cfg)


def opened(root, *overrides):
    return load(folder(root, *overrides))


def pixels(data, split="train"):
    return data.split(split).stored.pixels.permute(0, 2, 3, 1).numpy()


# What becomes of a file


@pytest.mark.parametrize("name", ["scene.png", "scene.bmp", "scene.tiff", "scene.webp", "scene.gif"])
def test_pixels_of_lossless_files_are_those_that_were_written(name, tmp_path):
    image = Image.fromarray(scene())
    image = image.quantize(200) if name.endswith("gif") else image
    options = {"lossless": True} if name.endswith("webp") else {}
    image.save(tmp_path / name, **options)
    assert np.array_equal(decode(tmp_path / name, PLAIN).pixels.transpose(1, 2, 0), np.array(image.convert("RGB")))


def test_every_odd_file_is_read(tmp_path):
    for name, path in odd(tmp_path).items():
        found = decode(path, PLAIN).pixels
        assert len(headers(path)[0].size) == 2
        assert found.shape == (3, 12, 16), name
        assert found.dtype == (np.uint16 if name.startswith("sixteen") else np.uint8)
        assert found.max() > 40, name


@pytest.mark.parametrize("name", ["one_pixel.png", "very_wide.png", "very_high.png", "animated.gif", "pages.tif"])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_uniform_images_stay_uniform_whatever_their_size(name, fit, tmp_path):
    path = odd(tmp_path)[name]
    found = decode(path, Decoding((8, 8), 3, fit, None, "bicubic", "black", False)).pixels
    assert np.abs(found.astype(int) - np.array(GREEN)[:, None, None]).max() <= 1


@pytest.mark.parametrize("name", ["one_pixel.png", "very_wide.png", "very_high.png"])
def test_padding_keeps_the_proportions(name, tmp_path):
    path = odd(tmp_path)[name]
    found = decode(path, Decoding((8, 8), 3, "pad", None, "bicubic", "white", False)).pixels
    green = (np.abs(found.astype(int) - np.array(GREEN)[:, None, None]) <= 1).all(0).sum()
    assert green == {"one_pixel.png": 64, "very_wide.png": 8, "very_high.png": 8}[name]
    assert (found == 255).all(0).sum() == 64 - green


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_as_exif_says(orientation, tmp_path):
    """The corner that is bright in the upright image; how each orientation stores it is EXIF's table."""
    upright = scene(12, 16)
    stored = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2), 6: lambda a: a.transpose(1, 0, 2)[::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2), 8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    }[orientation](upright)  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "photo.png", PLAIN).pixels.transpose(1, 2, 0), upright)
    assert headers(tmp_path / "photo.png") == [((12, 16), False)]


def test_sixteen_bits_are_kept(tmp_path):
    deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    for suffix in ("png", "tif"):
        Image.fromarray(deep).save(tmp_path / f"deep.{suffix}")
        found = decode(tmp_path / f"deep.{suffix}", Decoding((16, 16), 1, "crop", None, "bicubic", "black"))
        assert np.array_equal(found.pixels[0], deep)
        assert (found.bits, found.high) == (16, 65535)


@pytest.mark.parametrize(("background", "value"), [("black", 0), ("white", 255)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_shows_the_background(mode, background, value, channels, tmp_path):
    rgba = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([10, 20, 30] * 4)
        image.save(tmp_path / "image.png", transparency=0)
    else:
        rgba.convert(mode).save(tmp_path / "image.png")
    found = decode(
        tmp_path / "image.png", Decoding((4, 4), channels, "crop", None, "bicubic", background, False)
    ).pixels
    assert set(found.flatten().tolist()) == {value}


def test_a_crop_counts_the_files_own_pixels(tmp_path):
    big = np.zeros((40, 60, 3), np.uint8)
    big[15:25, 25:35] = 255
    save(tmp_path / "big.jpg", big, quality=100)
    found = decode(tmp_path / "big.jpg", Decoding((5, 5), 3, "crop", (10, 10), "box", "black", False)).pixels
    assert found.min() > 245
    with pytest.raises(BadImage, match="40x60 pixels, less than the crop of 41x10"):
        decode(tmp_path / "big.jpg", Decoding((5, 5), 3, "crop", (41, 10), "box", "black", False))


def test_shrinking_averages(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255
    save(tmp_path / "board.png", board.astype(np.uint8))
    found = decode(tmp_path / "board.png", Decoding((8, 8), 1, "crop", None, "bicubic", "black", False)).pixels
    assert 120 <= found.min() <= found.max() <= 135


def test_a_threshold_gives_bits(tmp_path):
    save(tmp_path / "photos/x.png", np.array([[0, 127], [128, 255]], np.uint8))
    data = opened(tmp_path / "photos", "binarize=threshold")
    assert pixels(data)[0, :, :, 0].tolist() == [[0, 0], [1, 1]]
    assert pixels(data).dtype == np.uint8


# Damage


def test_every_kind_of_damage_is_said_and_skipped(tmp_path, caches):
    root = tmp_path / "photos"
    whole, broken, unusual = fill(root, 40), damaged(root / "bad"), odd(root / "odd")
    data = opened(root, "size=[12,16]", "channels=3", "max_bad=0.5")
    bad = dict(data.bad_files)
    assert set(bad) == {f"bad/{name}" for name in broken}
    assert len(broken) + len(unusual) > 40
    assert all(bad.values())
    assert sum(len(data.split(name)) for name in SPLITS) == len(whole) + len(unusual)
    assert data.facts.num_train == len(data.split("train"))
    assert bad["bad/empty.png"] == bad["bad/text.png"] == "is not an image"
    assert "floating-point" in bad["bad/floats.tif"]
    assert "No such file" in bad["bad/nowhere.png"]
    assert dict(opened(root, "size=[12,16]", "channels=3", "max_bad=0.5").bad_files) == bad


def test_good_images_are_the_same_beside_bad_ones(tmp_path):
    """A file that turns bad moves no other image to another split."""
    root = tmp_path / "photos"
    paths = fill(root, 60)
    before = opened(root)
    paths[7].write_bytes(b"broken")
    after = opened(root)
    for split in SPLITS:
        kept = {image.tobytes() for image in pixels(after, split)}
        had = {image.tobytes() for image in pixels(before, split)}
        assert kept <= had
        assert len(had) - len(kept) == (scene(seed=7).tobytes() in had)
    assert [name for name, _ in after.bad_files] == ["0007.png"]


@pytest.mark.parametrize(("bad", "total", "refused"), [(10, 11, False), (11, 1100, False), (12, 1100, True)])
def test_too_many_bad_files_are_an_error(bad, total, refused, tmp_path):
    root = tmp_path / "photos"
    content = encoded("PNG", np.zeros((2, 2), np.uint8))
    root.mkdir()
    for number in range(total):
        (root / f"{number:05d}.png").write_bytes(b"" if number < bad else content)
    if refused:
        why = r"12 of 1,100 files cannot be read \(00000.png: is not an image.*max_bad=0.02"
        with pytest.raises(UsageError, match=why):
            opened(root, "size=2", "channels=1")
    else:
        assert len(opened(root, "size=2", "channels=1").bad_files) == bad


def test_nothing_but_bad_files_is_an_error(tmp_path, caches):
    damaged(tmp_path / "photos")
    with pytest.raises(UsageError, match="none of its 24 files is a readable image"):
        opened(tmp_path / "photos")
    with pytest.raises(UsageError):
        opened(tmp_path / "photos", "size=8", "channels=3")
    assert list(caches.iterdir()) == []


def test_a_file_that_the_disk_failed_to_read_is_decoded_again(tmp_path, monkeypatch, caches):
    """An error of the disk says nothing of the file: the next start decodes that file alone."""
    fill(tmp_path, 20)
    listing, calls, failing = list_folder(str(tmp_path)), [], {"0003.png"}

    def unreliable(path, how, numbers):
        calls.append(path.name)
        if path.name in failing:
            return [BadImage("Input/output error", transient=True)]
        return decode_frames(path, how, numbers)

    monkeypatch.setattr(frames, "decode_frames", unreliable)

    def images():
        return decoded(tmp_path, listing.entries, PLAIN, caches)[:2]

    assert images()[1] == {3: "Input/output error"}
    calls.clear()
    assert images()[1] == {3: "Input/output error"}
    assert calls == ["0003.png"]
    failing.clear()
    found, bad = images()
    assert bad == {}
    assert np.array_equal(found[3].transpose(1, 2, 0), scene(seed=3))
    calls.clear()
    images()
    assert calls == []


def test_a_read_error_is_a_bad_file(tmp_path, monkeypatch):
    fill(tmp_path, 3)

    def refuse(path, *args, **kwargs):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(BadImage, match="Input/output error") as caught:
        decode(tmp_path / "0000.png", PLAIN)
    assert caught.value.transient


# What is found in a folder


def test_folders_are_classes(tmp_path):
    fill(tmp_path, 30, classes=3)
    data = opened(tmp_path)
    assert data.facts.classes == 3
    assert data.facts.factors[0].values == ("class0", "class1", "class2")
    for split in SPLITS:
        images = data.split(split)
        for image, label in zip(pixels(data, split), images.stored.labels[:, 0].tolist(), strict=True):
            (seed,) = (s for s in range(30) if np.array_equal(scene(seed=s), image))
            assert seed % 3 == label


def test_images_outside_of_folders_have_no_classes(tmp_path):
    fill(tmp_path, 10, classes=2)
    fill(tmp_path, 10, start=10)
    data = opened(tmp_path)
    assert data.facts.classes is None
    assert data.split("train").stored.labels is None


def test_folders_with_the_names_of_splits_are_the_splits(tmp_path):
    for number, split in enumerate(("train", "val", "test")):
        fill(tmp_path / split, 4 + number, classes=2, start=10 * number)
    data = opened(tmp_path)
    assert [len(data.split(name)) for name in SPLITS] == [4, 5, 6]
    assert data.facts.classes == 2
    assert {p.tobytes() for p in pixels(data, "valid")} == {scene(seed=s).tobytes() for s in range(10, 15)}


def test_a_split_without_a_folder_is_cut_from_training(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 5, start=50)
    data = opened(tmp_path, "valid=0.25")
    assert [len(data.split(name)) for name in SPLITS] == [15, 5, 5]


def test_a_class_called_test_is_no_split(tmp_path):
    fill(tmp_path / "test", 10)
    fill(tmp_path / "rest", 10, start=10)
    data = opened(tmp_path)
    assert data.facts.factors[0].values == ("rest", "test")
    assert len(data.split("train")) == 16


def test_splits_are_disjoint_and_a_function_of_the_seed(tmp_path):
    fill(tmp_path, 50)
    sets = {}
    for seed in (0, 0, 1):
        data = opened(tmp_path, f"split_seed={seed}", "valid=0.2", "test=0.3")
        found = [frozenset(p.tobytes() for p in pixels(data, name)) for name in SPLITS]
        assert [len(f) for f in found] == [25, 10, 15]
        assert len(frozenset.union(*found)) == 50
        assert sets.setdefault(seed, found) == found
    assert sets[0] != sets[1]


@pytest.mark.parametrize("overrides", [("valid=0", "test=0"), ("valid=0.01", "test=0.01")])
def test_shares_that_come_to_nothing_leave_no_split(overrides, tmp_path):
    fill(tmp_path, 10)
    data = opened(tmp_path, *overrides)
    assert [data.split(name) is None for name in SPLITS] == [False, True, True]
    assert data.facts.num_train == 10


def test_links_are_followed_once_and_hidden_files_left_out(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    fill(root / "a", 3)
    fill(elsewhere, 3, start=3)
    (root / "b").symlink_to(elsewhere)
    (root / "a" / "loop").symlink_to(root)
    (elsewhere / "back").symlink_to(root / "a")
    (root / "a" / "._0000.png").write_bytes(b"a Mac's")
    (root / ".hidden").mkdir()
    save(root / ".hidden" / "x.png")
    (root / "notes.txt").write_text("no image")
    found = [entry.name for entry in list_folder(str(root)).entries]
    assert found == [f"a/{i:04d}.png" for i in range(3)] + [f"b/{i:04d}.png" for i in range(3, 6)]


def test_names_that_are_no_text_can_be_listed(tmp_path):
    fill(tmp_path, 12)
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes(b"broken")
    ((found, _),) = opened(tmp_path).bad_files
    assert found == name


def test_size_and_channels_are_found(tmp_path):
    fill(tmp_path, 5)
    source = folder(tmp_path)
    assert source.inspect()[:3] == ((3, 12, 16), 256, 3)
    assert source.resolved() == {"size": [12, 16], "channels": 3, "background": "black", "frames": "first",
                                 "levels": 256, "range": [0, 255]}  # fmt: skip


def test_grey_folders_have_one_channel(tmp_path):
    for number in range(4):
        save(tmp_path / f"{number}.png", scene(seed=number)[..., 0])
    assert folder(tmp_path).inspect().data_shape == (1, 12, 16)
    assert folder(tmp_path, "channels=3").inspect().data_shape == (3, 12, 16)


def test_different_sizes_want_a_size(tmp_path):
    save(tmp_path / "a.png", scene(100, 90))
    save(tmp_path / "b.png", scene(70, 200))
    with pytest.raises(UsageError, match=r"different sizes; set data\.size, for instance data\.size=64"):
        opened(tmp_path)
    assert opened(tmp_path, "size=8", "valid=0", "test=0").facts.data_shape == (3, 8, 8)


def test_errors_are_the_users(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for root, why in (("nowhere", "no such folder"), ("empty", "has no image"), ("file", "use data=arrays")):
        with pytest.raises(UsageError, match=why):
            folder(tmp_path / root).inspect()
    with pytest.raises(UsageError, match="is needed: the folder of the images"):
        build(compose("data=folder").data).inspect()
    with pytest.raises(UsageError, match="leave no images for training"):
        folder(tmp_path, "valid=0.5", "test=0.5")
    with pytest.raises(UsageError, match="use one number, or"):
        folder(tmp_path, "size=[1,2,3]")


@pytest.mark.parametrize("binarize", ["dynamic", "threshold"])
def test_binarised_folders_have_two_levels(binarize, tmp_path):
    fill(tmp_path, 20)
    data = opened(tmp_path, f"binarize={binarize}")
    from vae_train.rng import Rng

    batch = data.split("train").fetch(torch.arange(8), Rng(0, "data"))
    assert data.facts.levels == 2
    assert set(batch.x.unique().tolist()) == {0.0, 1.0}


# The cache


def test_the_second_start_decodes_nothing(tmp_path):
    paths = fill(tmp_path / "photos", 20)
    first = opened(tmp_path / "photos", "size=[12,16]", "channels=3")
    for path in paths:  # what tells files apart stays the same
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = opened(tmp_path / "photos", "size=[12,16]", "channels=3")
    assert second.bad_files == ()
    assert first.checksum == second.checksum
    assert all(np.array_equal(pixels(first, name), pixels(second, name)) for name in SPLITS)


@pytest.mark.parametrize("change", ["new", "gone", "renamed", "other", "touched", "size", "fit"])
def test_a_changed_folder_or_setting_has_another_cache(change, tmp_path, caches):
    root = tmp_path / "photos"
    paths, overrides = fill(root, 20), []
    opened(root)
    if change == "new":
        fill(root, 1, start=99)
    elif change == "gone":
        paths[0].unlink()
    elif change == "renamed":
        paths[0].rename(root / "x.png")
    elif change == "other":
        save(paths[0], scene(seed=77))
    elif change == "touched":
        os.utime(paths[0], ns=(1, time.time_ns() + 10**9))
    else:
        overrides = [{"size": "size=8", "fit": "fit=stretch"}[change]]
    found = {p.tobytes() for split in SPLITS for p in pixels(opened(root, *overrides), split)}
    assert len(list(caches.iterdir())) == 2
    if change == "other":
        assert scene(seed=77).tobytes() in found


@pytest.mark.parametrize("damage", ["no index", "index cut", "no pixels", "pixels cut", "another shape"])
def test_a_damaged_cache_is_made_again(damage, tmp_path, caches):
    fill(tmp_path / "photos", 20)
    before = opened(tmp_path / "photos").checksum
    (place,) = caches.iterdir()
    index, array = place / "index.json", place / "pixels.npy"
    {
        "no index": index.unlink,
        "index cut": lambda: index.write_text('{"1'),
        "no pixels": array.unlink,
        "pixels cut": lambda: array.write_bytes(array.read_bytes()[:-5]),
        "another shape": lambda: np.save(array, np.zeros((2, 3, 12, 16), np.uint8)),
    }[damage]()
    assert opened(tmp_path / "photos").checksum == before
    assert [path.name for path in caches.iterdir()] == [place.name]


KILLED = """
import os, signal, sys
from PIL import Image
from vae_train.data.storage.cache import cache_folder, decoded
from vae_train.data.storage.decoding import Decoding
from vae_train.data.storage.listing import list_folder
if {module}:
    {module}.{function} = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
listing = list_folder(sys.argv[1])
how = Decoding((12, 16), 3, "crop", None, "bicubic", "black", False)
decoded(listing.root, listing.entries, how, cache_folder(None))
"""


@pytest.mark.parametrize(
    ("module", "function"),
    [("os", "posix_fallocate"), ("Image", "open"), ("os", "fsync")],
    ids=["file", "image", "end"],
)
def test_what_a_killed_process_leaves_is_never_used(module, function, tmp_path, caches):
    fill(tmp_path / "photos", 20)
    code = KILLED.format(module=module, function=function)
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "photos")], check=False)
    assert killed.returncode == -9
    assert [path.suffix for path in caches.iterdir()] == [".tmp"]
    found = {p.tobytes() for split in SPLITS for p in pixels(opened(tmp_path / "photos"), split)}
    assert found == {scene(seed=seed).tobytes() for seed in range(20)}
    assert [path.suffix for path in caches.iterdir()] == [""]


@pytest.mark.slow
def test_two_processes_may_make_the_same_cache(tmp_path, caches):
    fill(tmp_path / "photos", 40)
    code = KILLED.format(module=None, function="open")  # nobody is killed
    command = [sys.executable, "-c", code, str(tmp_path / "photos")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    found = {p.tobytes() for split in SPLITS for p in pixels(opened(tmp_path / "photos"), split)}
    assert found == {scene(seed=seed).tobytes() for seed in range(40)}


@pytest.mark.slow
def test_a_decoding_process_that_is_killed_is_said_and_leaves_nothing(tmp_path, monkeypatch, caches):
    entries = list_folder(str(fill(tmp_path / "photos", 1)[0].parent)).entries * MIN_PARALLEL_FILES

    def kill(path, how, numbers):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(frames, "decode_frames", kill)
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(RunError, match=r"worker process \d+ was killed by SIGKILL, possibly because memory ran out$"):
        decoded(tmp_path / "photos", entries, PLAIN, caches)
    assert list(caches.iterdir()) == []
    assert signal.getsignal(signal.SIGCHLD) is handler


def test_a_full_disk_is_said_before_anything_is_decoded(tmp_path, monkeypatch, caches):
    fill(tmp_path / "photos", 5)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UsageError, match=r"No space left on device\); set data.cache= to another folder"):
        opened(tmp_path / "photos")
    assert list(caches.iterdir()) == []


def test_a_cache_may_be_elsewhere(tmp_path, caches):
    fill(tmp_path / "photos", 5)
    opened(tmp_path / "photos", f"cache={tmp_path}/mine")
    assert not caches.exists()
    shutil.rmtree(tmp_path / "mine")
    opened(tmp_path / "photos", f"cache={tmp_path}/mine")


def test_the_index_says_what_was_bad(tmp_path, caches):
    fill(tmp_path / "photos", 12)
    (tmp_path / "photos/0005.png").write_bytes(b"broken")
    opened(tmp_path / "photos")
    (place,) = caches.iterdir()
    assert json.loads((place / "index.json").read_text())["bad"] == {"5": ["is not an image", False]}
