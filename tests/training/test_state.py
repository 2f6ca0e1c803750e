from __future__ import annotations

import pytest

from vae_train.training.state import Patience, Pruning

VALUES = [9.0, 5.0, 7.0, 4.0, 6.0, 6.0]


def decisions(stopping, values, first=1):
    return [stopping.observe(epoch, {"monitored": value}, True) for epoch, value in enumerate(values, first)]


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


def test_patience_begins_when_the_schedules_have_ended():
    stopping = Patience(1)
    assert [stopping.observe(epoch, {"monitored": 5.0}, settled=False) for epoch in (1, 2, 3)] == [False] * 3
    assert decisions(stopping, [6.0, 7.0], 4) == [False, True]


def test_a_search_is_told_of_every_validation_and_prunes():
    told = []

    def report(epoch, row):
        told.append((epoch, row["elbo"]))
        return epoch == 3

    stopping = Pruning(None, report)
    rows = [{"monitored": -elbo, "elbo": elbo} for elbo in (1.0, 2.0, 3.0)]
    ended = [stopping.observe(epoch, row, settled=epoch > 2) for epoch, row in enumerate(rows, 1)]
    assert (ended, stopping.is_pruned) == ([False, False, True], True)
    assert told == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_pruned_run_stays_pruned_and_patience_is_not_pruning():
    first, second = Pruning(None, lambda *_: True), Pruning(None, lambda *_: False)
    decisions(first, [1.0])
    second.load_state_dict(first.state_dict())
    assert second.is_pruned
    patient = Pruning(1, lambda *_: False)
    assert decisions(patient, [1.0, 1.0]) == [False, True]
    assert not patient.is_pruned
