from __future__ import annotations

import pytest

from vae_train.evaluation.metrics.layer_rates import layer_diagnosis, layer_rates, num_used


def test_layers_are_in_order_whatever_else_was_measured():
    assert layer_rates({"elbo": 0, "rate_2": 20, "rate": 9, "rate_10": 5, "rate_1": 10, "rate_3": 30}) == [10, 20, 30]
    assert layer_rates({f"rate_{number}": number for number in range(12, 0, -1)}) == list(range(1, 13))
    assert layer_rates({"rate": 3.0}) == []


def test_layers_that_are_used_need_no_advice():
    assert layer_diagnosis([3.0, 0.2, 7.0], 1.0) is None
    assert num_used([3.0, 0.2, 7.0, 0.05]) == 3


@pytest.mark.parametrize(
    ("rates", "start"),
    [
        ([5.0, 3.0, 0.01, 0.02, 0.0], "layers 3 to 5 of 5, counted from the topmost, carry at most 0.02 nats"),
        ([0.0, 3.0, 0.0, 2.0], "layers 1 and 3 of 4, counted from the topmost, carry at most 0.00 nats"),
        ([0.0, 0.0, 0.0, 2.0, 0.0, 4.0], "layers 1 to 3 and 5 of 6, counted"),
        ([0.04, 3.0], "layer 1 of 2, counted from the topmost, carries 0.04 nats, so the model does not use it"),
        ([0.01, 0.02], "posterior collapse: none of 2 layers carries information (0.03 nats)"),
    ],
)
def test_collapsed_layers_are_named(rates, start):
    assert layer_diagnosis(rates, 2.0).startswith(start)
    assert "lower beta (it was 2)" in layer_diagnosis(rates, 2.0)
    assert "beta" not in layer_diagnosis(rates, None).replace("beta_schedule", "")
