"""What is dropped where a folder's images become pixels is counted over all files and said once."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import encoded, fill, save, scene
from tests.data.test_folder import SPLITS, folder, opened, pixels
from vae_train.data.storage.cache import MIN_PARALLEL_FILES, decoded
from vae_train.data.storage.decoding import Decoding
from vae_train.data.storage.listing import list_folder

pytestmark = pytest.mark.usefixtures("caches")


def grey(root: Path, count: int) -> None:
    for number in range(count):
        save(root / f"{number:04d}.png", np.full((4, 4), number % 256, np.uint8))


def stack(path: Path, count: int, start: int = 0, **options: object) -> None:
    """A file with frames of different grey, all of one brightness."""
    frames = [Image.fromarray(np.full((4, 4), start + 10 * n, np.uint8)) for n in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)


# Channels


@pytest.mark.parametrize("count", [300, MIN_PARALLEL_FILES + 60])
def test_one_colour_among_many_grey_images_is_found(count, photos):
    grey(photos, count)
    save(photos / "0137b.png", scene(4, 4))
    for _ in range(2):  # the second time from what was remembered
        assert folder(photos).inspect().data_shape == (3, 4, 4)
    assert (
        f"1 of {count + 1} images have colours, so all become RGB; data.channels=1 makes all grey"
        in opened(photos).notes
    )


def test_one_other_size_among_many_is_found(photos):
    grey(photos, 300)
    save(photos / "0137b.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(Exception, match="different sizes"):
        folder(photos).inspect()


def test_colours_that_become_grey_are_counted(photos):
    grey(photos, 5)
    save(photos / "a.png", scene(4, 4))
    (line,) = opened(photos, "channels=1").notes
    assert line == "a.png has colours, which are converted to grey; data.channels=3 keeps them"


# Frames


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_further_frames_are_counted_and_can_be_read(name, photos):
    grey(photos, 20)
    stack(photos / name, 5, 100, **({"lossless": True} if name == "a.webp" else {}))
    data = opened(photos, "valid=0", "test=0", "channels=1")
    lines = [line for line in data.notes if "frames" in line]
    assert lines == [f"{name} has further frames or pages (4 in total), which are skipped; data.frames=all reads them"]
    data = opened(photos, "valid=0", "test=0", "frames=all", "channels=1")
    assert sorted(pixels(data)[20:, 0, 0, 0].tolist()) == [100, 110, 120, 130, 140]
    assert not any("frames" in line for line in data.notes)
    assert data.facts.num_train == 25


@pytest.mark.parametrize("name", ["a.tif", "a.gif"])
def test_grey_frames_are_grey(name, photos):
    stack(photos / name, 5, 100)
    assert folder(photos, "frames=all").inspect().data_shape == (1, 4, 4)


def test_frames_of_one_file_stay_in_one_split(photos):
    for number in range(8):
        stack(photos / f"{number:02d}.tif", 3, 30 * number)
    data = opened(photos, "frames=all", "valid=0.25", "test=0.1")
    files = [{value // 30 for value in pixels(data, split).ravel().tolist()} for split in SPLITS]
    assert [len(split) for split in files] == [5, 2, 1]
    assert [len(data.split(split)) for split in SPLITS] == [15, 6, 3]


def test_one_file_of_many_pages_has_all_splits(photos):
    stack(photos / "stack.tif", 20)
    data = opened(photos, "frames=all")
    assert [len(data.split(split)) for split in SPLITS] == [16, 2, 2]
    assert "frames of the same file are in several splits, since there are too few files" in data.notes


def test_damaged_pages_are_named_and_others_read(photos):
    noise = np.random.RandomState(0).randint(0, 255, (3, 32, 32), np.uint8)
    frames = [Image.fromarray(page) for page in noise]
    buffer = io.BytesIO()
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:], compression="tiff_deflate")
    content = bytearray(buffer.getvalue())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    (photos / "a.tif").write_bytes(content)
    data = opened(photos, "frames=all", "valid=0", "test=0")
    assert [name for name, _ in data.bad_files] == ["a.tif (frame 2)"]
    assert np.array_equal(pixels(data)[..., 0], noise[[0, 2]])


# Transparency


@pytest.mark.parametrize(("ink", "background"), [(0, "white"), (230, "black")])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_get_what_the_visible_ones_differ_from(ink, background, mode, photos):
    for number in range(12):
        drawing = np.full((8, 8, 4), (ink, ink, ink, 0), np.uint8)
        drawing[2:5, number % 4 : 6, 3] = 255
        image = Image.fromarray(drawing)
        image = image.quantize(2) if mode == "P" else image.convert(mode)
        image.save(photos / f"{number:02d}.png")
    data = opened(photos, "levels=256")
    assert set(pixels(data).ravel().tolist()) == {ink, {"white": 255, "black": 0}[background]}
    (line,) = data.notes
    assert "12 images (for instance 00." in line
    other = {"white": "black", "black": "white"}[background]
    assert f"have transparent pixels, which become {background}; data.background={other} changes it" in line
    assert data.resolved["background"] == background
    for chosen in ("black", "white"):
        assert opened(photos, f"background={chosen}", "levels=256").notes == ()


def png(depth: int, values: list[int], transparent: tuple[int, ...]) -> bytes:
    """A PNG file with one row of grey or RGB pixels of any depth, one of whose values is transparent."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = len(transparent)
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = struct.pack(">IIBBBBB", len(values) // channels, 1, depth, 2 if channels == 3 else 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"tRNS", struct.pack(f">{channels}H", *transparent)), (b"IDAT", zlib.compress(row))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in (*parts, (b"IEND", b"")))


@pytest.mark.parametrize(
    ("depth", "values", "transparent", "visible"),
    [
        (1, [0, 1, 0, 0, 1, 0, 0, 0], (1,), [0, 255, 0, 0, 255, 0, 0, 0]),
        (2, [0, 1, 2, 3], (1,), [0, 255, 170, 255]),
        (4, [1, 15, 2, 3], (2,), [17, 255, 255, 51]),
        (8, [10, 20, 30, 40], (20,), [10, 255, 30, 40]),
        (16, [1000, 2000, 300, 4000], (4000,), [1000, 2000, 300, 4095]),
        (16, [0, 256, 511, 65535], (256,), [0, 65535, 511, 65535]),
        (16, [256, 0, 0, 512, 0, 0], (256, 0, 0), [255, 255, 255, 2, 0, 0]),
    ],
    ids=str,
)
def test_a_transparent_value_has_the_bits_of_the_file(depth, values, transparent, visible, photos):
    (photos / "a.png").write_bytes(png(depth, values, transparent))
    (photos / "b.png").write_bytes(png(depth, values, transparent))
    how = Decoding((1, len(visible) // len(transparent)), len(transparent), "stretch", None, "box", "white")
    images = decoded(photos, list_folder(str(photos)).entries, how, None)
    assert images.pixels[0].transpose(1, 2, 0).ravel().tolist() == visible
    assert images.dropped["transparency"].images == 2


@pytest.mark.parametrize(("ink", "background"), [(300, "white"), (4000, "black")])
def test_transparency_of_16_bits_gets_what_the_visible_pixels_differ_from(ink, background, photos):
    for number in range(12):
        values = np.full((8, 8), 1, np.uint16)
        values[2:5, number % 4 : 6] = ink
        values[6, 6] = ink - 5
        Image.fromarray(values).save(photos / f"{number:02d}.png", transparency=1)
    data = opened(photos)
    assert f"have transparent pixels, which become {background}; data.background=" in " ".join(data.notes)
    behind = {"white": 1023, "black": 0}[background]
    assert set(pixels(data).ravel().tolist()) == {ink - 5, ink, behind}


def test_nothing_of_an_opaque_alpha_channel_is_dropped(photos):
    for number in range(5):
        save(photos / f"{number}.png", np.dstack([scene(seed=number), np.full((12, 16), 255, np.uint8)]))
    assert opened(photos).notes == ()


# Edges


def test_edges_that_are_cut_off_are_counted(photos):
    fill(photos, 10)
    (line,) = opened(photos, "size=8").notes
    assert line.startswith(
        "10 images (for instance 0000.png) have another aspect ratio than data.size: 25% of the area"
    )
    assert opened(photos, "size=8", "fit=pad").notes == opened(photos, "size=[6,8]").notes == ()


# Folders


def test_folders_within_classes_are_said(photos):
    fill(photos / "cats", 4)
    fill(photos / "dogs" / "big", 3, start=4)
    fill(photos / "dogs" / "small", 3, start=7)
    data = opened(photos)
    assert data.facts.factors[0].values == ("cats", "dogs")
    (line,) = data.notes
    assert line.startswith("6 images in sub-folders of class folders belong to the outer class")
    assert "(for instance dogs/big/0004.png to dogs)" in line
    assert line.endswith(f"data.root={photos}/dogs makes big a class")
    assert opened(photos / "dogs").facts.factors[0].values == ("big", "small")


def test_images_that_prevent_classes_are_said(photos):
    fill(photos, 10, classes=2)
    fill(photos, 2, start=10)
    assert opened(photos).notes == ("no classes, since 2 images are outside of class folders (for instance 0010.png)",)


def test_folders_of_splits_beside_others_are_said(photos):
    for name in ("train", "test", "extra"):
        fill(photos / name, 5)
    assert opened(photos).notes == ("test, train: not used as splits because of extra",)


def test_other_files_are_counted(photos):
    fill(photos, 5)
    for name in ("a.heic", "b.HEIC", "labels.csv"):
        (photos / name).touch()
    assert opened(photos).notes == ("files that are not images: 2 .heic, 1 .csv",)


# Messages of libraries


def damaged_tiffs(root: Path, count: int) -> None:
    noise = np.random.RandomState(0).randint(0, 255, (32, 32), np.uint8)
    for number in range(count):
        content = bytearray(encoded("TIFF", noise, compression=("tiff_deflate", "tiff_lzw")[number % 2]))
        content[200:240] = b"\xff" * 40
        (root / f"x{number:03d}.tif").write_bytes(content)


@pytest.mark.parametrize("count", [20, MIN_PARALLEL_FILES])
def test_libtiff_prints_nothing(count, photos, capfd):
    fill(photos, count)
    damaged_tiffs(photos, 8)
    data = opened(photos, "size=[12,16]", "channels=3", "fit=stretch")
    os.write(2, b"our own message")
    assert capfd.readouterr().err == "our own message"
    reasons = dict(data.bad_files) | dict.fromkeys(data.notes, "")
    assert any("ZIPDecode: Decoding error at scanline 0" in reason for reason in reasons.values())
    assert len(data.bad_files) + sum("warnings of the image library" in line for line in data.notes) > 3


def test_warnings_of_pillow_are_said_once(photos, capfd, recwarn):
    fill(photos, 5)
    for number in range(3):
        buffer = encoded("JPEG", quality=95, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff broken")
        (photos / f"a{number}.jpg").write_bytes(buffer)
    (line,) = opened(photos).notes
    assert line.startswith(
        "3 images (for instance a0.jpg) have warnings of the image library, and the readable part is used"
    )
    assert capfd.readouterr() == ("", "")
    assert not recwarn
