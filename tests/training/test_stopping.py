from __future__ import annotations

import ctypes
import os
import signal

import pytest

from vae_train.training import signals as stopping
from vae_train.training.signals import StopRequest, handlers_kept


@pytest.mark.parametrize("number", stopping.STOPPING)
def test_a_signal_that_comes_twice_at_once_is_one_request(number):
    with StopRequest() as stop:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == number


def test_a_second_signal_later_ends_the_program(monkeypatch):
    monkeypatch.setattr(stopping, "TOGETHER", 0.0)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT


@pytest.mark.skipif(os.name != "posix", reason="changes a handler as a C library does")
def test_a_library_that_takes_a_handler_away_does_not_keep_it():
    ignore = ctypes.c_void_p(1)
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    with StopRequest() as stop:
        with handlers_kept():
            library.signal(signal.SIGTERM, ignore)
            signal.raise_signal(signal.SIGTERM)
            assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_handlers_are_kept_where_nothing_was_done_to_them():
    before = [signal.getsignal(number) for number in stopping.STOPPING]
    with pytest.raises(ZeroDivisionError), handlers_kept():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in stopping.STOPPING] == before
