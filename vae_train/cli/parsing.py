"""Parses a typed setting into Hydra's override. Paths are taken literally, and errors suggest a corrected setting."""

import os
import re
import shlex
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException

from vae_train.util.errors import UsageError

TYPED_NAMES = ("out", "resume", "init_from", "run", "name", "sweep", "root", "path", "cache", "inception", "ood")
"""Last parts of settings whose values are paths or names, in which no character is special."""

SEVERAL = ("run",)
"""Settings among these that also take a list, [A,B]."""

MAX_NAME_BYTES = 255
"""Longest name of a file or folder on common file systems."""


def parse(text: str, parser: OverridesParser, multirun: bool) -> Override:
    """Parses one setting as typed.

    Raises:
        UsageError: it is not a setting, or not supported; the message says what to type instead.
    """
    if "=" not in text and not text.startswith("~"):
        raise UsageError("is not a setting; settings look like beta=4, flags like --help")
    try:
        override = parser.parse_override(_with_quotes(text, multirun))
    except HydraException as error:
        raise UsageError(f"cannot be parsed{_repaired(text, parser)}") from error
    if override.is_delete():
        raise UsageError("deleting settings is not supported; override the value instead")
    if override.key_or_group.startswith(("hydra.", "hydra/")):
        raise UsageError("has no effect: vae does not run jobs through Hydra")
    if override.is_sweep_override() and not multirun:
        raise UsageError("is a sweep over several values: add -m, or write a list as [1,2]")
    if override.is_interval_sweep() or override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        kind = "intervals are" if override.is_interval_sweep() else "glob is"
        raise UsageError(f"{kind} not supported; list the values as 1,2,3")
    return override


def quoted(text: str) -> str:
    """Quotes a string for Hydra, in which backslashes only matter before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def as_typed(text: str) -> str:
    """A setting without the quotes that `parse` put around its path or name."""
    key, _, value = text.partition("=")
    if key.rpartition(".")[2].lstrip("+") not in TYPED_NAMES or not re.fullmatch("'.*'", value):
        return text
    return f"{key}=" + re.sub(r"(\\*)\\'", lambda m: m[1][::2] + "'", value[1:-1])


def _with_quotes(text: str, multirun: bool) -> str:
    """The setting with quotes around a path or name, unless it is quoted, null, an interpolation or a list."""
    key, _, value = text.partition("=")
    name = key.rpartition(".")[2].lstrip("+")
    if name not in TYPED_NAMES:
        return text
    if not value:
        raise UsageError("is empty; give it a value, or leave it out")
    is_list = name in SEVERAL and value[0] + value[-1] == "[]" and not Path(value).exists()
    if value == "null" or "${" in value or is_list or re.fullmatch(r"""(['"]).*\1""", value):
        return text
    parts = value.split(",") if multirun else [value]
    if any(len(os.fsencode(folder)) > MAX_NAME_BYTES for part in parts for folder in part.split("/")):
        raise UsageError(f"is too long: the name of a file has at most {MAX_NAME_BYTES} bytes")
    return f"{key}={','.join(quoted(_expanded(part)) for part in parts)}"


def _expanded(path: str) -> str:
    """Expands ~ to the home folder, unless the path exists as typed. Shells expand it only at the start of a word."""
    return path if Path(path).exists() else os.path.expanduser(path)


def _repaired(text: str, parser: OverridesParser) -> str:
    """Suggests the first correction of a setting that can be parsed."""
    key, _, value = text.partition("=")
    value = value.strip().lstrip("=").rstrip(",")
    for candidate in (value, f"{value}]", f"{value.rstrip(',')}]", f"[{value.strip('()')}]", quoted(value)):
        try:
            parser.parse_override(f"{key}={candidate}")
        except HydraException:
            continue
        return f"; did you mean {shlex.quote(f'{key}={candidate}')}?"
    return "; settings look like beta=4"
