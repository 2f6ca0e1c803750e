from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from vae_train.plotting.charts import plot_roc


def normal_scores(count, other, shift=1.0, ties=False):
    rng = np.random.default_rng(0)
    low, high = rng.normal(size=count), rng.normal(size=other) + shift
    return (low.round(), high.round()) if ties else (low, high)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        normal_scores(500, 300),
        normal_scores(500, 300, ties=True),
        normal_scores(500, 300, shift=1e4),
        ([0.0], [0.0]),
        ([-1e9] * 3, [-1e9] * 2),
        ([0.0, 1.0], [math.inf, -math.inf]),
        ([math.inf], [math.inf]),
        (np.random.default_rng(0).standard_cauchy(400), np.random.default_rng(1).standard_cauchy(40)),
    ],
    ids=["apart", "ties", "far", "one", "constant", "infinite", "nothing finite", "heavy tails"],
)
def test_the_plot_has_its_size_and_three_colours(tmp_path, low, high):
    rates = ([0.0, 0.2, 1.0], [0.0, 0.9, 1.0])
    plot_roc((low, high), rates, ("digits", "letters"), tmp_path / "a.png", "AUROC 0.9", "-ELBO (nats)")
    plot = pixels(tmp_path / "a.png")
    assert plot.shape == (380, 960, 3)
    red, green, blue = plot.transpose(2, 0, 1)
    for seen in (blue - red > 40, (red - blue > 40) & (green - blue > 20), (red - blue > 100) & (green - blue < 20)):
        assert seen.sum() > 50  # normal, anomalous, the curve
