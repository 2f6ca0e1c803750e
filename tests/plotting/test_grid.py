from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from vae_train.plotting.grid import (
    GRID_GAP,
    GRID_GREY,
    as_strips,
    channels_note,
    grey_out,
    plot_contact_sheet,
    plot_grid,
)
from vae_train.plotting.png import write_png


@pytest.mark.parametrize("shape", [(1, 60, 60), (3, 60, 70)])
@pytest.mark.parametrize(("count", "columns"), [(1, 8), (5, 8), (8, 8), (9, 8), (64, 8), (7, 3)])
def test_a_grid_is_that_of_torchvision(shape, count, columns):
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    expected = make_grid(images, nrow=columns, padding=GRID_GAP, pad_value=GRID_GREY)
    found = plot_grid(images, columns)
    if count == 1:  # torchvision leaves the frame out there
        found = found[:, GRID_GAP:-GRID_GAP, GRID_GAP:-GRID_GAP]
        assert found.shape[0] == shape[0]
    assert torch.equal(found.expand_as(expected), expected)


def test_small_images_are_enlarged_by_whole_pixels():
    image = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 1, 2, 2)
    inner = plot_grid(image, 8)[0, GRID_GAP:-GRID_GAP, GRID_GAP:-GRID_GAP]
    assert inner.shape == (56, 56)
    assert torch.equal(inner[::28, ::28], image[0, 0])
    assert set(inner.unique().tolist()) == {0.0, 1.0}


def test_values_outside_of_0_and_1_are_cut():
    assert set(plot_grid(torch.tensor([-3.0, 7.0]).view(2, 1, 1, 1).expand(2, 1, 56, 56), 2).unique().tolist()) == {
        0,
        GRID_GREY,
        1,
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_written_with_its_levels(tmp_path, channels):
    grid = (torch.arange(channels * 12) * 7 % 256).float().view(channels, 3, 4) / 255
    write_png(tmp_path / "a.png", grid)
    read = np.asarray(Image.open(tmp_path / "a.png")).reshape(3, 4, channels)
    assert np.array_equal(read, (grid * 255).round().permute(1, 2, 0).numpy())


@pytest.mark.parametrize(("channels", "shown"), [(2, 2), (4, 4), (5, 5), (7, 7), (12, 8)])
def test_channels_that_are_no_colours_are_beside_each_other(tmp_path, channels, shown):
    images = torch.rand(3, channels, 60, 70, generator=torch.Generator().manual_seed(0))
    strips = as_strips(images)
    assert strips.shape == (3, 1, 60, 71 * shown - 1)
    for channel in range(shown):
        assert torch.equal(strips[:, 0, :, 71 * channel : 71 * channel + 70], images[:, channel])
    assert torch.equal(plot_grid(images, 2), plot_grid(strips, 2))
    write_png(tmp_path / "a.png", plot_grid(images, 2))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
    assert plot_contact_sheet(images, ["a", "b", "c"], 2).shape[0] == 3
    which = f"all {channels}" if shown == channels else f"the first {shown} of {channels}"
    assert channels_note(images.shape[1:]) == f"images show {which} channels side by side, as grey"


def test_what_is_hidden_is_grey():
    images, mask = torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[1, :, :2] = False
    assert torch.equal(grey_out(images, mask), GRID_GREY * (~mask).expand_as(images))
    assert grey_out(images, None) is images
    signals, mask = torch.zeros(2, 1, 1, 9), torch.arange(9).expand(2, 1, 1, 9) < 4
    assert torch.equal(grey_out(signals, mask).isnan(), ~mask)
    single = torch.tensor([True, False, True, True, False]).expand(1, 1, 1, 5)
    shown, hidden = (
        plot_grid(grey_out(torch.full((1, 1, 1, 5), 0.5), m), 1) for m in (single, single & (torch.arange(5) > 0))
    )
    assert not torch.equal(shown, hidden)  # a value without neighbours is a dot
    gaps = plot_grid(grey_out(signals, mask), 2)
    assert torch.equal(gaps[:, :, :50], plot_grid(signals, 2)[:, :, :50])
    assert (gaps[:, 90:97, 75:125] == 1).all()  # no line there


def test_grey_and_coloured_images_need_no_note():
    for shape in ((1, 8, 8), (3, 8, 8), (5, 1, 20)):
        assert channels_note(shape) is None
