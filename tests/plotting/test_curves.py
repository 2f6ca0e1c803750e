"""Training curves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from vae_train.plotting.charts import curves_figure, plot_curves


def rows(last, size=1.0):
    steps = range(last // 40, last + 1, last // 40)
    values = {step: size * (90 + 100 * last / 40 / step) for step in steps}
    return [
        {
            "step": step,
            "split": split,
            "scope": "epoch",
            "loss": v,
            "elbo": -v,
            "distortion": v - 20,
            "rate": 20 + 1 / v,
        }
        for step, v in values.items()
        for split in ("train", "valid")
    ]


@pytest.mark.parametrize("last", [40, 2000, 175_000, 2_345_678])
def test_numbers_of_steps_do_not_run_into_each_other(last):
    figure = curves_figure(rows(last))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axis in figure.axes:
        low, high = axis.get_xlim()
        shown = [
            label
            for place, label in zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
            if low <= place <= high
        ]
        assert len(shown) >= 3
        boxes = [label.get_window_extent(canvas.get_renderer()) for label in shown]
        assert all(a.x1 + 3 < b.x0 for a, b in pairwise(boxes)), [label.get_text() for label in shown]


@pytest.mark.parametrize("size", [1e-5, 1.0, 1234.0, -1e4, 1e9])
def test_panels_stay_within_the_plot_and_off_each_other(size):
    figure = curves_figure(rows(2000, size))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [axis.get_tightbbox(canvas.get_renderer()) for axis in figure.axes]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert min(box.x0 for box in boxes) > 0
    assert min(box.y0 for box in boxes) > 0
    assert max(box.x1 for box in boxes) < figure.bbox.x1
    assert max(box.y1 for box in boxes) < figure.bbox.y1


def test_every_metric_with_values_has_a_panel_and_every_line_a_name():
    found = [{**row, "beta": 1.0, "lr": 1e-3} for row in rows(2000)]
    found += [{**row, "split": "train", "scope": "step"} for row in found for _ in range(2)]
    figure = curves_figure(found)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:3] == ["ELBO (nats)", "rate (nats)", "distortion (nats)"]  # no bits: the data is continuous
    assert titles[-2:] == ["beta, weight of the rate", "learning rate"]
    assert not any(line.get_label().startswith("_") for axis in figure.axes for line in axis.get_lines())
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 3


def test_a_run_without_rows_has_a_plot_all_the_same(tmp_path):
    plot_curves([], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
