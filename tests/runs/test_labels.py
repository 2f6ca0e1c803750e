"""Class labels by name and by number."""

import logging

import pytest

from vae_train.batch import Factor
from vae_train.runs.labels import class_number, class_numbers


def test_a_class_is_found_by_name_or_number() -> None:
    pets = Factor("class", 3, ("cat", "dog", "eel"))
    assert [class_number(value, pets) for value in ("eel", 1, "cat")] == [2, 1, 0]
    assert class_number(2, Factor("class", 10)) == class_number("2", Factor("class", 10)) == 2
    assert class_numbers(["dog", "dog", 0], pets) == [1, 1, 0]


def test_a_name_precedes_a_number_and_the_difference_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    years = Factor("class", 3, (1, 2, 7))
    with caplog.at_level(logging.INFO, logger="vae_train"):
        assert class_number(7, years) == 2
        assert not caplog.messages
        assert class_number(1, years) == 0
    assert caplog.messages == ["class 1 is the class of this name, number 0"]
    assert class_number(0, years) == class_number("0", years) == 0
    assert class_number("03", Factor("class", 9)) == 3
    assert class_number("03", Factor("class", 9, ("a", "03"))) == 1


@pytest.mark.parametrize("value", ["fox", 3, "3", "9" * 5000, -1, True, 1.5, None])
def test_an_unknown_class_lists_the_others(value: object) -> None:
    with pytest.raises(ValueError, match="use 0 to 2, or cat, dog, eel"):
        class_number(value, Factor("class", 3, ("cat", "dog", "eel")))
