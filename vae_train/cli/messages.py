"""The messages about errors of a command line."""

import shlex
import sys
import traceback
from collections.abc import Sequence

from vae_train.util.errors import UsageError
from vae_train.util.text import printable

MAX_SHOWN = 200
"""Characters of a setting that an error message repeats."""


def print_errors(command: str, arguments: Sequence[str], error: UsageError, debug: bool) -> None:
    """Prints the errors of a command line, one in a line.

    Args:
        command: the command.
        arguments: its arguments as typed.
        error: the errors.
        debug: also print the traceback.
    """
    count = len(error.errors)
    packages = [detail.package for detail in error.errors if detail.package]
    print(f"vae {command}: {count} error{'s' if count > 1 else ''}; nothing was written", file=sys.stderr)
    width = min(40, max((len(detail.where) for detail in error.errors), default=0))
    for detail in error.errors:
        where = detail.where if len(detail.where) <= MAX_SHOWN else f"{detail.where[:MAX_SHOWN]}…"
        message = f"{detail.message}: {_allowing(command, arguments, packages)}" if detail.package else detail.message
        print(printable(f"  {where:<{width}}  {message}".replace("\n", " ")), file=sys.stderr)
    if debug:
        traceback.print_exception(error)


def _allowing(command: str, arguments: Sequence[str], packages: Sequence[str]) -> str:
    """The typed command line with more allowed packages, for pasting."""
    from vae_train.runs.packages import allow_setting

    typed = [argument.removeprefix("allow=") for argument in arguments if argument.startswith("allow=")]
    allowed = [name for text in typed for name in text.strip("[]").split(",") if name != "null"]
    others = [argument for argument in arguments if not argument.startswith("allow=")]
    return shlex.join(["vae", command, *others, allow_setting([*allowed, *packages])])
