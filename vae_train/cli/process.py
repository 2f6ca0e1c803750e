"""The process that `vae` runs in: standard streams, logging, and checks before PyTorch is imported."""

import logging
import math
import os
import re
import sys
import threading
from contextlib import nullcontext

from typing_extensions import override

from vae_train.util.errors import raise_out_of_memory
from vae_train.util.text import PrintableFormatter, first_line, size

MIN_ADDRESS_SPACE = 4 * 2**30
"""Bytes of address space; with less, importing PyTorch kills the process."""


def prepare_process() -> None:
    """Makes the standard streams robust, and checks for what would crash the import of PyTorch."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="replace")  # an encoding may lack a character
    threading.excepthook = _thread_error
    try:
        os.getcwd()
        limit = f"ulimit -v is below the {MIN_ADDRESS_SPACE >> 30} GiB of address space that PyTorch needs; raise it"
        error = limit if _address_space() < MIN_ADDRESS_SPACE else None
    except OSError:
        error = "the current folder no longer exists; change to another one"
    if error is not None:
        print(f"vae: {error}", file=sys.stderr)
        sys.exit(2)


def _thread_error(error: threading.ExceptHookArgs) -> None:
    """Prints the traceback of a thread, unless it could not read or write; the main thread reports that in one line."""
    if not issubclass(error.exc_type, OSError):
        threading.__excepthook__(error)


def _address_space() -> float:
    """Bytes of address space that this process may use."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if limit == resource.RLIM_INFINITY else limit


def missing_memory(error: Exception) -> str | None:
    """The message for an error that a lack of memory caused; None for other errors."""
    try:
        raise_out_of_memory(error)
    except MemoryError as missing:
        asked = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGT]iB)", str(missing))
        amount = asked and (asked[2] or size(int(asked[1])))
        return f"out of memory: {amount} could not be allocated" if amount else f"out of memory ({first_line(missing)})"
    return None


class _Console(logging.StreamHandler):
    """Prints to standard output while it is open, above a progress bar on the same terminal."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)  # no progress bar exists before tqdm is imported
        with nullcontext() if tqdm is None else tqdm.external_write_mode(self.stream):
            super().emit(record)

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def log_to_console() -> None:
    """Prints log messages to standard output, without level or time."""
    log = logging.getLogger("vae_train")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    handler = _Console(sys.stdout)
    handler.setLevel(logging.INFO)
    handler.setFormatter(PrintableFormatter("%(message)s"))
    log.handlers = [handler]
