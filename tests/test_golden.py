"""Small trainings give the losses stored under tests/golden/; `scripts/golden --compare` asks for equal bits."""

from __future__ import annotations

from functools import cache

import pytest

from tests.golden.configurations import COMPARED_ONLY, CONFIGURATIONS, RESUMED, implicit_settings, train
from tests.golden.results import STORED, Result, read, write

stored = cache(read)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_losses_equal_the_stored_ones(name):
    assert implicit_settings(name) == [], "set these in tests/golden/settings.py"
    if name in COMPARED_ONLY:
        return
    # Other processors round differently, and the difference grows from step to step.
    expected, metrics = stored(STORED)[name].metrics, train(name).metrics
    assert metrics.keys() == expected.keys()
    for metric, values in expected.items():
        assert metrics[metric][:5] == pytest.approx(values[:5], rel=1e-5, abs=5e-4), metric
        assert metrics[metric][-1] == pytest.approx(values[-1], rel=1e-2, abs=1e-2), metric


@pytest.mark.parametrize(("resumed", "uninterrupted"), RESUMED.items())
def test_a_resumed_training_equals_an_uninterrupted_one(resumed, uninterrupted):
    assert train(resumed) == train(uninterrupted)


def test_results_survive_writing_and_reading(tmp_path):
    results = {"name": Result({"loss": [0.1, 1 / 3]}, "weights", "state")}
    write(results, tmp_path / "results.json")
    assert read(tmp_path / "results.json") == results
