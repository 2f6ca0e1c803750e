import re

import numpy as np
import pytest
import torch
from PIL import Image

from vae_train.plotting.grid import GRID_GAP, GRID_GREY, plot_grid
from vae_train.plotting.sheet import Sheet, centered, plane_sheet, plot_rows, render, write_sheet


def random_images(count: int, *shape: int) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether images are equal up to the rounding to 256 levels."""
    return left.shape == right.shape and bool(torch.allclose(left, right, atol=0.51 / 255))


def has_ink(part: torch.Tensor) -> bool:
    return bool((part < 0.5).any())


@pytest.mark.parametrize("channels", [1, 3])
def test_without_text_a_sheet_is_the_grid(channels):
    images = random_images(7, channels, 60, 60)
    assert close(render(Sheet(images, 3)), plot_grid(images, 3))


def test_labels_stand_around_the_grid():
    images = random_images(9, 1, 60, 60)
    sheet = Sheet(images, 3, centered(["a", "", "c"]), centered(["x", "y", "z"]), centered(["1", "2", "3"]), title="T")
    pixels, grid = render(sheet), plot_grid(images, 3)
    height, width = grid.shape[1:]
    (top,) = [y for y in range(100) if close(pixels[:, y : y + height, -width:], grid)]
    left = pixels[0, top : top + height, :-width]
    assert [has_ink(row) for row in left[: 3 * 62].split(62)] == [True, False, True]
    for band in (pixels[0, top // 2 : top], pixels[0, top + height :]):
        assert all(has_ink(cell) for cell in band[:, -width:-GRID_GAP].split(62, 1))
    assert has_ink(pixels[0, : top // 2])


def test_a_caption_stands_below_every_image_and_fits():
    images = random_images(5, 1, 20, 20)
    caption = "a long caption"
    pixels = render(Sheet(images, 3, captions=[caption] * 5))[0]
    cell = (pixels.shape[1] - GRID_GAP) // 3
    assert cell > 3 * 20
    band = pixels.shape[0] // 2
    inks = [[has_ink(part) for part in row[-18:, GRID_GAP:].split(cell, 1)] for row in pixels[: 2 * band].split(band)]
    assert inks == [[True] * 3, [True, True, False]]
    gaps = pixels[band - 18 : band - 4, GRID_GAP::cell]
    assert (gaps > 0.5).all()  # captions do not touch


def test_versions_of_images_are_rows_with_their_names():
    images = random_images(9, 3, 60, 60)
    rows = plot_rows({"input": images, "reconstruction": images.flip(0)}, 4)
    blank = torch.full((3, 3, 60, 60), GRID_GREY)
    kinds = [torch.cat([kind, blank]).split(4) for kind in (images, images.flip(0))]
    grid = plot_grid(torch.cat([part for pair in zip(*kinds, strict=True) for part in pair]), 4)
    assert close(rows[:, : grid.shape[1], -grid.shape[2] :], grid)
    beside = rows[0, : 6 * 62, : -grid.shape[2]]
    assert all(has_ink(row) for row in beside.split(62))


@pytest.mark.parametrize(("low", "high"), [((-2.0, -2.0), (2.0, 2.0)), ((0.3, -30.0), (0.9, 10.0))])
def test_values_of_a_plane_stand_where_they_belong(low, high):
    sheet = plane_sheet(random_images(25, 1, 8, 8), 5, low, high)
    for name, labels, axis in (("z1", sheet.below, 0), ("z2", sheet.left, 1)):
        values = torch.tensor([float(text.removeprefix(f"{name} = ").replace("−", "-")) for text, _ in labels])
        places = torch.tensor([place for _, place in labels])
        places = 5 - places if axis else places
        expected = 0.5 + 4 * (values - low[axis]) / (high[axis] - low[axis])
        torch.testing.assert_close(places, expected)
        assert len(values) >= 3
        assert sum(name in text for text, _ in labels) == 1


def test_signals_become_panels_with_labels():
    sheet = Sheet(random_images(4, 2, 1, 30), 2, centered(["a", "b"]), captions=["1", "2", "3", "4"])
    pixels = render(sheet)
    assert pixels.shape[0] == 3
    assert has_ink(pixels[:, :, :15].amin(0))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 20), (5, 9, 9), (2, 1, 30)])
@pytest.mark.parametrize("columns", [1, 4, 30])
def test_a_figure_fits_a_page_and_keeps_its_text(tmp_path, shape, columns):
    images = random_images(2 * columns, *shape)
    sheet = Sheet(images, columns, centered(["first row", "z5 · 2.8 nats"]), captions=["c"] * len(images))
    write_sheet(tmp_path / "a.svg", sheet)
    text = (tmp_path / "a.svg").read_text()
    assert {"first row", "z5 · 2.8 nats"} <= set(re.findall(r">([^<>]+)</text>", text))
    width, height = (float(value) / 72 for value in re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text).groups())
    assert width < 5.6
    assert height < 9
    write_sheet(tmp_path / "a.pdf", sheet)
    assert b"/TrueType" in (tmp_path / "a.pdf").read_bytes() or b"/CIDFontType2" in (tmp_path / "a.pdf").read_bytes()


def test_the_same_sheet_is_the_same_file(tmp_path):
    sheet = Sheet(random_images(4, 1, 8, 8), 2, captions=["a"] * 4)
    for suffix in ("png", "pdf", "svg"):
        for name in ("a", "b"):
            write_sheet(tmp_path / f"{name}.{suffix}", sheet)
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    with Image.open(tmp_path / "a.png") as file:
        assert np.array_equal(np.asarray(file), (render(sheet)[0] * 255).round().numpy())
