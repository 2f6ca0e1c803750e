from __future__ import annotations

import pytest

from vae_train.training.state import Patience

VALUES = [9.0, 5.0, 7.0, 4.0, 6.0, 6.0]


def decisions(stopping, values, first=1):
    return [stopping.observe(epoch, value) for epoch, value in enumerate(values, first)]


@pytest.mark.parametrize(
    ("patience", "ended"),
    [(1, [False, False, True]), (2, [False] * 5 + [True]), (3, [False] * 6), (None, [False] * 6)],
)
def test_a_run_ends_after_that_many_validations_without_improvement(patience, ended):
    assert decisions(Patience(patience), VALUES[: len(ended)]) == ended


def test_a_value_as_good_as_the_best_is_no_improvement():
    assert decisions(Patience(2), [1.0, 1.0, 1.0]) == [False, False, True]


def test_a_resumed_run_ends_where_the_uninterrupted_one_does():
    first, second = Patience(2), Patience(2)
    decisions(first, VALUES[:5])
    second.load_state_dict(first.state_dict())
    assert decisions(second, VALUES[5:], 6) == [True]
