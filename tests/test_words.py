from __future__ import annotations

import pytest

from vae_train.util.text import duration, first_line, size

SIZES = {0: "0 B", 1023: "1,023 B", 1024: "1 KiB", 153_600_000: "146 MiB", 2**33: "8 GiB", 2**41: "2,048 GiB"}
TIMES = {0.4: "0 s", 119: "119 s", 120: "2 min", 7199: "120 min", 9000: "2.5 h"}


@pytest.mark.parametrize(("count", "text"), SIZES.items())
def test_bytes_have_a_unit(count, text):
    assert size(count) == text


@pytest.mark.parametrize(("seconds", "text"), TIMES.items())
def test_times_have_a_unit(seconds, text):
    assert duration(seconds) == text


def test_an_error_is_one_line():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError("\n one\n")) == "one"
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
