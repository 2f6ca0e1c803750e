"""Levels of the pixels of image files: what all values say, not the type of the file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.pictures import save, scene
from tests.data.test_folder import folder, opened
from vae_train.util.errors import UsageError

WHOLE = ("valid=0", "test=0")


pytestmark = pytest.mark.usefixtures("caches")


def fill(photos, most, dtype=np.uint16, suffix="png", step=1, count=12):
    """Images (N, 6, 6) of multiples of `step` up to `most`, which occurs."""
    images = np.random.default_rng(0).integers(0, most // step, (count, 6, 6), endpoint=True) * step
    images[0, 0, :2] = 0, most
    for number, image in enumerate(images.astype(dtype)):
        save(photos / f"{number:02d}.{suffix}", image)
    return images


def batch(data):
    """(N, 6, 6): what a model sees of the training images, as float64."""
    return data.split("train").fetch(torch.arange(len(data.split("train")))).x[:, 0].double().numpy()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(
    ("most", "levels"), [(255, 256), (1000, 1024), (1023, 1024), (4000, 4096), (16000, 16384), (65535, 65536)]
)
def test_bits_are_those_that_hold_the_largest_pixel(most, levels, suffix, photos):
    images = fill(photos, most, suffix=suffix)
    for start in range(2):  # the second start reads the cache
        data = opened(photos, *WHOLE)
        assert (data.facts.levels, data.facts.units, data.facts.data_shape) == (levels, None, (1, 6, 6)), start
        assert np.abs(batch(data) * (levels - 1) - images).max() < 1e-2
        bits = levels.bit_length() - 1
        note = f"pixels up to {most:,} are taken as {bits} bits, {levels:,} levels; otherwise set data.levels="
        assert data.notes == ((note,) if bits > 8 else ())


def test_the_largest_pixel_may_be_in_any_split(photos):
    for split, most in (("train", 900), ("valid", 4000), ("test", 900)):
        fill(photos / split, most)
    assert opened(photos).facts.levels == 4096


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "gif"])
def test_files_of_one_bit_have_two_levels(suffix, photos):
    bits = np.random.default_rng(0).integers(0, 2, (12, 6, 6)).astype(bool)
    for number, image in enumerate(bits):
        save(photos / f"{number:02d}.{suffix}", image)
    data = opened(photos, *WHOLE)
    assert data.facts.levels == 2
    assert np.array_equal(batch(data), bits)
    assert data.split("train").stored.pixels.dtype == torch.uint8


def test_files_of_one_bit_may_all_be_black(photos):
    for number in range(3):
        save(photos / f"{number}.png", np.zeros((6, 6), bool))
    assert opened(photos, *WHOLE).facts.levels == 2


def test_files_of_one_bit_become_grey_where_they_are_scaled(photos):
    for number in range(3):
        save(photos / f"{number}.png", np.indices((12, 12)).sum(0) // 5 % 2 == 0)
    data = opened(photos, *WHOLE, "size=7")
    assert data.facts.levels == 256
    assert data.notes == ("scaling makes 1-bit files grey; data.resample=nearest keeps 2 levels",)
    assert opened(photos, *WHOLE, "size=7", "resample=nearest").facts.levels == 2


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 1), (30, 200)])
def test_exactly_two_values_are_two_levels(low, high, photos):
    bits = np.random.default_rng(0).integers(0, 2, (12, 6, 6))
    for number, image in enumerate(np.where(bits, high, low).astype(np.uint8)):
        save(photos / f"{number:02d}.png", image)
    data = opened(photos, *WHOLE)
    assert data.facts.levels == 2
    assert np.array_equal(batch(data), bits)
    assert opened(photos, *WHOLE, "levels=256").facts.levels == 256
    save(photos / "zz.png", np.full((6, 6), 77, np.uint8))
    assert opened(photos, *WHOLE).facts.levels == 256


SETS = {
    "16 of 8 bits": (15, np.uint8, 1, 256, 16),
    "16 spread over 8 bits": (255, np.uint8, 17, 256, 16),
    "12 bits shifted to 16": (65520, np.uint16, 16, 65536, 4096),
    "8 bits spread over 16": (65535, np.uint16, 257, 65536, 256),
}


@pytest.mark.parametrize("name", SETS)
def test_other_sets_of_levels_are_suggested_in_one_line(name, photos):
    most, dtype, step, levels, suggested = SETS[name]
    images = fill(photos, most, dtype, step=step)
    data = opened(photos, *WHOLE)
    assert data.facts.levels == levels
    (note,) = data.notes
    assert note.endswith(f"for {suggested:,} levels set data.levels={suggested}")
    chosen = opened(photos, *WHOLE, f"levels={suggested}")
    assert chosen.facts.levels == suggested
    assert chosen.notes == ()
    assert np.abs(batch(chosen) * (suggested - 1) - images // step).max() < 1e-3
    assert chosen.resolved["range"] == [0, step * (suggested - 1)]
    with pytest.raises(UsageError, match=r"data.levels=11: the data has integers up to"):
        folder(photos, "levels=11").inspect()


def test_levels_of_a_run_are_those_of_other_images(photos):
    """Levels and range, as a run's config.yaml has them, hold for files that need fewer."""
    fill(photos, 900)
    data = opened(photos, *WHOLE, "levels=4096", "range=[0,4095]")
    assert data.facts.levels == 4096
    assert batch(data).max() == pytest.approx(900 / 4095)
    with pytest.raises(
        UsageError, match=r"data.range=\[0, 255\]: pixels from 0 to 900 in the files do not match 256 lev"
    ):
        folder(photos, "levels=256", "range=[0,255]").inspect()


def test_files_of_8_bits_are_scaled_to_the_bits_of_others(photos):
    fill(photos, 4000)
    save(photos / "a.png", np.array([[0, 51, 255] * 2] * 6, np.uint8))
    data = opened(photos, *WHOLE)
    assert data.facts.levels == 4096
    assert "1 images have 8 bits and are scaled to the 12 bits of the others" in data.notes
    assert np.allclose(batch(data)[-1, 0, :3], [0, 0.2, 1], atol=1e-6)


def test_grey_files_of_16_bits_may_be_among_colours(photos):
    images = fill(photos, 1000)
    save(photos / "a.png", scene(6, 6))
    data = opened(photos, *WHOLE)
    assert (data.facts.data_shape, data.facts.levels) == ((3, 6, 6), 1024)
    x = data.split("train").fetch(torch.arange(13)).x
    assert torch.equal(x[:12, :1].expand(-1, 3, -1, -1), x[:12])
    assert np.abs(x[:12, 0].double().numpy() * 1023 - images).max() < 1e-3
    assert np.abs(x[12].permute(1, 2, 0).numpy() - scene(6, 6) / 255).max() < 1 / 1023


def test_colours_of_16_bits_lose_half_of_them_in_so_many_words(photos):
    for number in range(3):
        deep = np.random.default_rng(number).integers(0, 65536, (6, 6, 3)).astype(np.uint16)
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
        (photos / f"{number}.png").write_bytes(png_of_16_bits(6, 6, rows))
    data = opened(photos, *WHOLE)
    line = "3 images (for instance 0.png) have more than 8 bits per colour, but only the upper 8 are used"
    assert data.notes == (f"{line}; data=arrays uses all",)
    assert data.facts.levels == 256


def png_of_16_bits(height, width, rows):
    """A PNG with three colours, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind, content):
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("most", [255, 1000, 60000])
def test_bits_are_cut_at_half_of_the_range(most, photos):
    images = fill(photos, most)
    levels = opened(photos, *WHOLE).facts.levels
    data = opened(photos, *WHOLE, "binarize=threshold")
    assert data.facts.levels == 2
    assert np.array_equal(batch(data), images >= (levels - 1) / 2)
    assert opened(photos, *WHOLE, "binarize=dynamic").split("train").stored.levels == levels


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("resample", ["bicubic", "lanczos", "nearest", "box"])
def test_deep_pixels_are_scaled_within_their_range(fit, resample, photos):
    for number in range(3):
        image = np.full((20, 10), 4000, np.uint16)
        image[:, :4], image[12:] = 0, 2000
        Image.fromarray(image).save(photos / f"{number}.png")
    data = opened(photos, *WHOLE, "size=8", f"fit={fit}", f"resample={resample}", "background=white")
    assert data.facts.levels == 4096
    x = data.split("train").fetch(torch.arange(3)).x
    assert 0 <= x.min() < 0.01
    assert 4000 / 4095 - 0.01 < x.max() <= 1
    assert (x[0, 0, 4, 0] == 1) == (fit == "pad")


def test_one_deep_file_after_many_others_is_found(photos):
    for number in range(150):
        save(photos / f"{number:03d}.png", np.full((4, 4), number, np.uint8))
    save(photos / "zz.png", np.full((4, 4), 3000, np.uint16))
    data = opened(photos, *WHOLE)
    assert data.facts.levels == 4096
    assert batch(data)[-1, 0, 0] == pytest.approx(3000 / 4095)
    assert batch(data)[100, 0, 0] == pytest.approx(100 / 255, abs=1e-3)


def test_bad_files_are_no_pixels(photos):
    """Rows of bad files are zeros in the cache, which would be a third value."""
    for number in range(12):
        save(photos / f"{number:02d}.png", np.where(np.eye(6) > 0, 30, 200).astype(np.uint8))
    (photos / "broken.png").write_bytes(b"broken")
    data = opened(photos, *WHOLE)
    assert len(data.bad_files) == 1
    assert data.facts.levels == 2
