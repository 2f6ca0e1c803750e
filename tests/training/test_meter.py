from __future__ import annotations

import math

import pytest
import torch

from vae_train.training.meter import Meter

NAMES = ["loss", "rate"]


def row(value, other=1.0):
    return torch.tensor([[value, other]], dtype=torch.float64)


def filled(values):
    meter = Meter()
    for value in values:
        meter.add(NAMES, row(value))
    return meter


def test_a_window_is_the_mean_since_the_last_window():
    meter = filled([1.0, 3.0])
    assert meter.window() == {"loss": 2.0, "rate": 1.0}
    meter.add(NAMES, row(7.0, 5.0))
    assert meter.window() == {"loss": 7.0, "rate": 5.0}


def test_rows_in_half_the_digits_are_added_in_all_of_them():
    meter = Meter()
    for value in (2.0**24, 1.0, 1.0):  # in float32 a 1 more is none
        meter.add(NAMES, row(value).float())
    assert meter.window()["loss"] * 3 == 2.0**24 + 2


def test_an_epoch_is_the_mean_since_the_last_epoch_whatever_the_windows():
    meter = filled([1.0, 3.0])
    meter.window()
    meter.add(NAMES, row(8.0))
    assert meter.epoch() == {"loss": 4.0, "rate": 1.0}
    meter.add(NAMES, row(5.0))
    assert meter.epoch()["loss"] == 5.0
    assert meter.window()["loss"] == 6.5


def test_sums_are_kept_in_double_precision():
    assert filled([1e8, 1.0, -1e8, 1.0]).window()["loss"] == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_the_first_metric_that_is_not_finite_is_found(bad):
    meter = filled([1.0, 2.0])
    assert meter.first_nonfinite() is None
    meter.add(NAMES, row(2.0, bad))
    meter.add(NAMES, row(bad, bad))
    meter.add(NAMES, row(3.0))
    assert meter.first_nonfinite() == (2, ["rate"])


def test_an_empty_meter_has_nothing_bad():
    assert Meter().first_nonfinite() is None


def test_a_meter_goes_on_from_its_state():
    first, second = filled([1.0, 2.0]), Meter()
    first.window()
    first.add(NAMES, row(6.0))
    second.load_state_dict(first.state_dict())
    second.add(NAMES, row(7.0))
    assert second.window()["loss"] == 6.5
    assert second.epoch()["loss"] == 4.0
    assert first.window()["loss"] == 6.0


def test_several_steps_at_a_time_are_the_same_as_one_by_one():
    one, other = filled([1.0, 2.0, 4.0]), Meter()
    other.add(NAMES, torch.cat([row(1.0), row(2.0)]))
    other.add(NAMES, row(4.0))
    assert one.epoch() == other.epoch() == {"loss": 7 / 3, "rate": 1.0}
    assert one.window() == other.window()
