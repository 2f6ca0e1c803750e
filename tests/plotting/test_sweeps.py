"""Charts of sweeps and searches: what they show, and that nothing is cut off or hides something else."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from vae_train.plotting import sweeps
from vae_train.plotting.palette import ORANGE
from vae_train.plotting.sweeps import (
    Series,
    Tradeoff,
    plot_importance,
    plot_rate_distortion,
    plot_search_history,
    plot_setting,
    plot_setting_map,
)

NAN = float("nan")
BETAS = (0.5, 1.0, 2.0, 4.0)
FILE = Path("chart.png")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been written."""
    written = list[Any]()
    monkeypatch.setattr(sweeps, "write_figure", lambda figure, path: written.append(figure))
    return written


def boxes(figure: Any) -> list[Any]:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return [axis.get_tightbbox(canvas.get_renderer()) for axis in figure.axes]


def test_a_curve_has_the_means_and_a_band_of_one_standard_deviation(figures: list[Any]) -> None:
    line = Series("", BETAS, [-100, -98, -99, -104], [1.0, 0.5, NAN, 2.0])
    plot_setting("beta", {"ELBO, nats": [line]}, FILE)
    (axis,) = figures[0].axes
    np.testing.assert_array_equal(axis.lines[0].get_xydata(), list(zip(BETAS, line.mean, strict=True)))
    (band,) = axis.collections
    corners = band.get_paths()[0].vertices
    for x, mean, sd in zip(BETAS, line.mean, [1.0, 0.5, 0.0, 2.0], strict=True):
        heights = {y for at, y in corners if at == x}
        assert heights == {mean - sd, mean + sd}
    assert (axis.get_title(), axis.get_xlabel()) == ("ELBO, nats", "beta")
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.5", "1", "2", "4"]
    assert not figures[0].legends


def test_without_standard_deviations_there_is_no_band(figures: list[Any]) -> None:
    plot_setting("beta", {"rate": [Series("", BETAS, [4, 3, 2, 1], [NAN] * 4)]}, FILE)
    assert not figures[0].axes[0].collections


@pytest.mark.parametrize(
    ("values", "scale"), [((1e-4, 1e-3, 1e-2), "log"), ((1.0, 2.0, 4.0), "linear"), ((0.0, 10.0, 100.0), "linear")]
)
def test_values_that_span_decades_are_on_a_logarithmic_axis(figures: list[Any], values: Any, scale: str) -> None:
    plot_setting("lr", {"ELBO": [Series("", values, [1, 2, 3], [NAN] * 3)]}, FILE)
    assert figures[0].axes[0].get_xscale() == scale


def test_several_lines_have_a_legend_and_charts_do_not_overlap(figures: list[Any]) -> None:
    lines = [Series(f"latent_dim={k}", BETAS, np.arange(4.0) * k, np.ones(4)) for k in (2, 4, 8)]
    plot_setting("beta", dict.fromkeys(("ELBO", "rate", "distortion", "active"), lines), FILE)
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.texts] == ["latent_dim=2", "latent_dim=4", "latent_dim=8"]
    found = boxes(figures[0])
    assert len(found) == 4
    assert all(a.x1 < b.x0 for a, b in pairwise(found))
    assert min(box.x0 for box in found) >= 0
    assert max(box.x1 for box in found) <= figures[0].bbox.x1


def test_names_are_points_with_bars(figures: list[Any]) -> None:
    lines = [Series(f"beta={beta}", ["mlp", "conv"], [-100 - beta, -90], [1.0, NAN]) for beta in (1, 4)]
    plot_setting("model", {"ELBO": lines}, FILE)
    (axis,) = figures[0].axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["mlp", "conv"]
    first, second = axis.containers
    assert [first.get_label(), second.get_label()] == ["beta=1", "beta=4"]
    assert first.lines[0].get_xdata()[0] < 0 < second.lines[0].get_xdata()[0]
    assert list(second.lines[0].get_ydata()) == [-104, -90]


def test_a_map_has_every_value_its_deviation_and_a_frame_around_the_best(figures: list[Any]) -> None:
    mean = np.array([[-100.0, -101.25, NAN], [-120.0, -130.0, -140.0]])
    sd = np.array([[0.5, NAN, NAN], [1.0, 1.0, 1.0]])
    plot_setting_map(("beta", "latent_dim"), (["1", "4"], ["2", "4", "8"]), mean, sd, "ELBO", FILE, best=(0, 0))
    axis = figures[0].axes[0]
    assert [text.get_text() for text in axis.texts] == [
        "-100.0\n± 0.5", "-101.2", "–", "-120.0\n± 1.0", "-130.0\n± 1.0", "-140.0\n± 1.0"
    ]  # fmt: skip
    np.testing.assert_array_equal(axis.images[0].get_array().filled(NAN), mean)
    (frame,) = axis.lines
    assert frame.get_color() == ORANGE
    assert frame.get_xdata().min() < 0 < frame.get_xdata().max() < 0.5
    assert [label.get_text() for label in axis.get_yticklabels()] == ["1", "4"]
    plot_setting_map(("beta", "lr"), (["1"], ["2"]), [[1.0]], [[NAN]], "ELBO", FILE)
    assert not figures[1].axes[0].lines


def test_rate_and_distortion_have_labels_and_lines_of_equal_elbo(figures: list[Any]) -> None:
    curve = Tradeoff("", ["4", "1"], [2.0, 12.0], [0.5, NAN], [108.0, 84.0], [1.0, NAN])
    plot_rate_distortion("beta", [curve], FILE)
    (axis,) = figures[0].axes
    texts = [text.get_text() for text in axis.texts]
    assert texts[:2] == ["4", "1"]
    lines = [line for line in axis.lines if line.get_linestyle() == "--"]
    labels = [text for text in texts if text.startswith("ELBO")]
    assert len(lines) == len(labels) >= 2
    for line, label in zip(lines, labels, strict=True):
        np.testing.assert_allclose(line.get_xydata().sum(1), -float(label.removeprefix("ELBO ")))
    assert axis.get_xlim()[0] < 2 < 12 < axis.get_xlim()[1]


def test_a_single_model_has_a_plot(tmp_path: Path) -> None:
    plot_rate_distortion("beta", [Tradeoff("", ["1"], [2.0], [NAN], [100.0], [NAN])], tmp_path / "rd.png")
    with Image.open(tmp_path / "rd.png") as image:
        assert image.size == (620, 440)


@pytest.mark.parametrize(("better", "best"), [("higher", [1, 3, 3, 3]), ("lower", [1, 1, 1, 0])])
def test_the_history_of_a_search_has_the_best_so_far(figures: list[Any], better: Any, best: list[float]) -> None:
    """Pruned trials are shown, but are not the best of anything."""
    values = [1.0, 3.0, 9.0, 0.0]
    plot_search_history(values, FILE, "ELBO", better, pruned=[False, False, True, False])
    (axis,) = figures[0].axes
    assert list(axis.lines[0].get_ydata()) == best
    trials, early = axis.collections
    assert [list(row) for row in trials.get_offsets()] == [[0, 1], [1, 3], [3, 0]]
    assert [list(row) for row in early.get_offsets()] == [[2, 9]]
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["trial", "pruned early", "best so far"]


def test_a_diverged_trial_does_not_dwarf_the_others(figures: list[Any]) -> None:
    values = [-100.0, -101.0, -99.0, -1e6, NAN, -98.0, -102.0]
    plot_search_history(values, FILE, "ELBO", "higher")
    (axis,) = figures[0].axes
    low, high = axis.get_ylim()
    assert -103 < low < -102 < -98 < high < -97
    assert axis.get_xlabel() == "trial; 1 beyond the edge"
    assert len(axis.collections[0].get_offsets()) == 6


@pytest.mark.parametrize("values", [[1.0], [NAN, NAN], [2.0, 2.0, 2.0]])
def test_short_and_empty_searches_have_a_plot(tmp_path: Path, values: list[float]) -> None:
    plot_search_history(values, tmp_path / "history.png", "ELBO", "higher")
    assert (tmp_path / "history.png").exists()


def test_importances_are_sorted(figures: list[Any]) -> None:
    plot_importance(["lr", "beta", "a" * 60], [0.25, 0.7, 0.05], FILE, "ELBO")
    (axis,) = figures[0].axes
    assert [bar.get_width() for bar in axis.patches] == [0.7, 0.25, 0.05]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names[:2] == ["beta", "lr"]
    assert len(names[2]) < 30
    assert axis.yaxis_inverted()
    (box,) = boxes(figures[0])
    assert box.x0 >= 0
    assert box.x1 <= figures[0].bbox.x1
