from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from vae_train.plotting.maps import Plane, plot_line, plot_maps


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def saturated(plot):
    """How many coloured pixels there are, and of how many hues, in steps of 15 degrees."""
    values = np.asarray(Image.fromarray(plot).convert("HSV")).reshape(-1, 3).astype(int)
    bright = values[(values[:, 1] > 100) & (values[:, 2] > 60)]
    return len(bright), len(set((bright[:, 0] * 24 // 256).tolist()))


@pytest.mark.parametrize("kinds", [1, 3, 10, 20, 21, 40])
@pytest.mark.parametrize("panels", [1, 2])
def test_a_map_has_its_size_and_the_colours_of_its_classes(tmp_path, kinds, panels):
    xy, y = normal(400, 2), torch.arange(400) % kinds
    plot_maps([Plane(f"map {i}", xy) for i in range(panels)], y, None, tmp_path / "a.png")
    plot = pixels(tmp_path / "a.png")
    assert plot.shape == (460, 460 * panels + 140, 3)
    count, hues = saturated(plot)
    assert count > 300
    assert hues == 1 if kinds == 1 else hues >= min(kinds, 5)  # two colours of the palette are grey
    shown = saturated(plot[:, 460 * panels + 40 :])[1]  # in the legend
    assert shown == kinds if kinds in (1, 3) else shown >= 5


@pytest.mark.parametrize("count", [1, 5, 400])
def test_a_map_without_labels_is_grey(tmp_path, count):
    plot_maps([Plane("a", normal(count, 2)), Plane("b", torch.zeros(count, 2))], None, None, tmp_path / "a.png")
    plot = pixels(tmp_path / "a.png")
    assert plot.shape == (460, 920, 3)
    assert saturated(plot)[0] == 0
    assert (plot < 128).all(-1).any()


def test_names_replace_the_numbers_of_classes(tmp_path):
    def written(labels, names):
        plot_maps([Plane("a", normal(4, 2))], np.array(labels), names, tmp_path / "a.png")
        return pixels(tmp_path / "a.png")

    plain = written([0, 1, 1, 0], None)
    assert np.array_equal(plain, written([0, 1, 1, 0], ["0", "1"]))
    assert np.array_equal(written([0, 1, 1, 0], ["a" * 17 + "…", "b c"]), written([0, 1, 1, 0], ["a" * 99, "b\nc"]))
    assert not np.array_equal(plain, written([0, 1, 1, 0], ["cat", "dog"]))
    assert np.array_equal(written([-1, 5, 5, -1], ["cat"]), written([-1, 5, 5, -1], None))  # not names[-1]


def test_the_order_of_the_classes_hides_none(tmp_path):
    """Two classes on the same spot, one after the other: both are seen."""
    xy, y = normal(2_000, 2), np.arange(2_000) // 1_000
    plot_maps([Plane("a", 0.1 * xy)], y, None, tmp_path / "a.png")
    plot = pixels(tmp_path / "a.png")[:, :460].astype(int)
    blue, orange = (plot[..., 2] - plot[..., 0] > 60).sum(), (plot[..., 0] - plot[..., 2] > 60).sum()
    assert 0.6 < blue / orange < 1.7


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_a_plane_shows_the_prior_in_every_format(tmp_path, suffix):
    def written(prior):
        path = tmp_path / f"a.{suffix}"
        plot_maps([Plane("a", normal(50, 2), ("z1", "z2"), prior)], None, None, path)
        return path.read_bytes()

    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert written(None).startswith(start)
    assert written((torch.zeros(2), torch.ones(2))) != written(None)


@pytest.mark.parametrize("kinds", [1, 3, 10, 40])
def test_a_line_has_the_colours_of_its_classes(tmp_path, kinds):
    plot_line(normal(400), torch.arange(400) % kinds, None, (0.0, 1.0), tmp_path / "a.png")
    plot = pixels(tmp_path / "a.png")
    assert plot.shape == (460, 700, 3)
    hues = saturated(plot)[1]
    assert hues == {1: 1, 3: 3, 40: 0}[kinds] if kinds != 10 else hues >= 5


@pytest.mark.parametrize("z", [normal(1), normal(300), np.zeros(5)], ids=len)
@pytest.mark.parametrize("prior", [None, (1.0, 2.0)])
def test_a_line_without_labels_is_grey(tmp_path, z, prior):
    plot_line(z, None, None, prior, tmp_path / "a.png")
    plot = pixels(tmp_path / "a.png")
    assert saturated(plot)[0] == 0
    assert (abs(plot.astype(int) - 153) < 4).all(-1).sum() > 300  # the bars


def test_a_line_has_the_density_of_the_prior_where_it_is(tmp_path):
    def dark(prior):
        plot_line(np.linspace(-10, 10, 4), None, None, prior, tmp_path / "a.png")
        return (pixels(tmp_path / "a.png")[60:380, 100:620] < 60).all(-1).sum(0)

    left, right = (np.flatnonzero(dark((mean, 0.5))) for mean in (-5.0, 5.0))
    assert np.median(left) < np.median(right) - 100
