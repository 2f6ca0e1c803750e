"""Records or ignores what image libraries print or warn about."""

import ctypes
import functools
import logging
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import _imaging
from typing_extensions import override

MAX_LENGTH = 300
"""Maximal length of a message in bytes."""

PILLOWS_NAME = b"tempfile.tif"
"""The name that Pillow gives to files that libtiff decodes."""

_printed: deque[str] = deque(maxlen=100)
"""The last messages of libtiff in this process."""


@contextmanager
def recorded() -> Iterator[list[str]]:
    """Yields a list that contains the libraries' messages when the block ends; none is printed.

    These are Python warnings, records of Pillow's loggers, and what libtiff would write to the standard error of the
    process. Warnings are caught for the whole process.
    """
    _catch_libtiff()
    _printed.clear()
    messages: list[str] = []
    logger, handler = logging.getLogger("PIL"), _Handler(messages)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield messages
    finally:
        messages.extend([*(str(warning.message) for warning in caught), *_printed])
        logger.removeHandler(handler)
        logger.propagate = propagate


@contextmanager
def quiet() -> Iterator[None]:
    """Ignores warnings that are irrelevant to the user, for the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Handler(logging.Handler):
    """Appends warnings and errors to a list."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _callback() -> Any:
    """Builds the function that libtiff calls, instead of printing, with a module's name, a format and a `va_list`."""
    try:
        vsnprintf = ctypes.CDLL(None).vsnprintf
    except (OSError, AttributeError, TypeError):  # Windows
        vsnprintf = None

    def note(part: bytes | None, template: bytes | None, values: int | None) -> None:
        text = ctypes.create_string_buffer((template or b"")[:MAX_LENGTH], MAX_LENGTH + 1)
        if vsnprintf is not None and template is not None:
            vsnprintf(text, ctypes.c_size_t(MAX_LENGTH), template, ctypes.c_void_p(values))
        words = (part if part != PILLOWS_NAME else None, text.value)
        _printed.append(": ".join(word.decode(errors="replace") for word in words if word))

    return ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(note)


_NOTE = _callback()


@functools.cache
def _catch_libtiff() -> None:
    """Makes libtiff call `_NOTE`, so that the standard error need not be redirected.

    Its functions are found among the libraries of Pillow's extension. If it is linked statically, it prints.
    """
    try:
        library = ctypes.CDLL(_imaging.__file__)
        for function in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
            function(ctypes.cast(_NOTE, ctypes.c_void_p))
    except (OSError, AttributeError):
        return
