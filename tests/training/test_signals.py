from __future__ import annotations

import ctypes
import os
import signal

import pytest

from vae_train.training.signals import STOP_SIGNALS, StopRequest, preserve_signal_handlers


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_that_comes_twice_at_once_is_one_request(number):
    with StopRequest() as stop:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == number


def test_a_second_signal_later_ends_the_program():
    with StopRequest(window_s=0.0) as stop:
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
        with preserve_signal_handlers():
            library.signal(signal.SIGTERM, ignore)
            signal.raise_signal(signal.SIGTERM)
            assert stop.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM


def test_handlers_are_kept_where_nothing_was_done_to_them():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with pytest.raises(ZeroDivisionError), preserve_signal_handlers():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
