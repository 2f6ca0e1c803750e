"""Formats quantities and errors for people."""

import difflib
import logging
from collections.abc import Iterable
from datetime import datetime, timezone

from typing_extensions import override


def size(count: float) -> str:
    """Formats a number of bytes, for instance 146 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.3g} {unit}" if count < 100 else f"{count:,.0f} {unit}"


def duration(seconds: float) -> str:
    """Formats a duration, for instance 16 s, 5 min or 2.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def now() -> str:
    """The local date and time with its UTC offset; in UTC if TZ is invalid."""
    try:
        moment = datetime.now().astimezone()
    except ValueError:
        moment = datetime.now(timezone.utc)
    return moment.isoformat(timespec="seconds")


def short_number(value: float) -> str:
    """Formats a number with few digits, for instance 3.14, 31.4 or 3,142."""
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 1000 else 0}f}"


def counted(count: int, noun: str) -> str:
    """A number with a noun that has a regular plural: "1 image", "2,000 images"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def printable(text: str, keep: str = "\n\t") -> str:
    """Escapes control characters, which could manipulate a terminal, except those in `keep`."""
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


class PrintableFormatter(logging.Formatter):
    """Formats log messages with `printable`, since they may contain file names."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or else the name of its class; for system errors only the reason."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean x?", or an empty string if no known name is similar."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""
