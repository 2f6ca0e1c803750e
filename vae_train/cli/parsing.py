"""Parses a typed setting into Hydra's override. Paths are taken literally, and errors suggest a corrected setting."""

import itertools
import math
import os
import re
import shlex
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, ValueType
from hydra.errors import HydraException

from vae_train.runs.run import MAX_NAME_BYTES
from vae_train.runs.schema import yaml_text
from vae_train.util.errors import ErrorDetail, UsageError

TYPED_NAMES = (
    *("out", "resume", "init_from", "run", "name", "sweep", "input"),
    *("root", "path", "cache", "inception", "ood"),
)
"""Last parts of settings whose values are paths or names, in which no character is special."""

TYPED_KEYS = ("mask", "label", "search.storage")
"""Whole names of such settings; corruption.mask is a number."""

SEVERAL = ("run", "input")
"""Settings among these that also take a list, [A,B]."""

QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
"""A value in quotes, as Hydra reads them."""


def parse(
    text: str,
    parser: OverridesParser,
    multirun: bool,
    works: Callable[[str], bool],
    choice_lists: Container[str] = (),
    search: bool = False,
) -> Override:
    """Parses one setting as typed.

    Args:
        text: the setting.
        parser: parses the syntax of Hydra.
        multirun: whether commas separate the values of several jobs.
        works: whether a corrected setting, which is about to be suggested, has a value that is accepted.
        choice_lists: settings that are lists of choices, see `with_brackets`.
        search: whether a search chooses among swept values, so that intervals are possible.

    Raises:
        UsageError: it is not a setting, or not supported; the message says what to type instead.
    """
    if not text.startswith("~") and ("=" not in text or text.startswith("=")):
        raise UsageError("is not a setting; settings look like beta=4, flags like --help")
    try:
        override = parser.parse_override(with_brackets(_with_quotes(text, multirun), choice_lists, multirun))
    except HydraException as error:
        raise UsageError(f"cannot be parsed{_repaired(text, works)}") from error
    if any(map(math.isinf, _floats(override.value()))) and "inf" not in text.lower():
        raise UsageError("must be finite in float32")
    if override.is_delete():
        raise UsageError("deleting settings is not supported; override the value instead")
    if override.key_or_group.startswith(("hydra.", "hydra/")):
        raise UsageError("has no effect: vae does not run jobs through Hydra")
    if override.is_interval_sweep() and not (multirun and search):
        missing = [*(["-m"] if not multirun else []), *(["search=tpe trials=20"] if not search else [])]
        raise UsageError(f"is an interval, from which a search chooses: add {' '.join(missing)}")
    if override.is_sweep_override() and not multirun:
        key, _, value = text.partition("=")
        others = [f"{key}=[{value}]", *([f"{key}={value.replace(',', '.')}"] if value.count(",") == 1 else [])]
        other = next((f", or write {shlex.quote(setting)}" for setting in others if works(setting)), "")
        raise UsageError(f"is a sweep over several values: add -m{other}")
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise UsageError("glob is not supported; list the values as 1,2,3")
    return override


def _floats(value: Any) -> Iterator[float]:
    """The numbers with a fraction or exponent in a parsed value, in a list, or in a sweep."""
    items = value.list if isinstance(value, ChoiceSweep) else value
    items = [value.start, value.end] if isinstance(value, IntervalSweep) else items
    if isinstance(items, list):
        for item in items:
            yield from _floats(item)
    elif isinstance(items, float):
        yield items


def with_brackets(text: str, choice_lists: Container[str], multirun: bool = False) -> str:
    """A list of choices in brackets, so that `format=onnx,pt2` is a list; with -m it is a list of one for each job.

    Args:
        text: the setting as typed.
        choice_lists: settings that are lists of choices; others remain as typed.
        multirun: whether commas separate the values of several jobs.
    """
    key, _, value = text.partition("=")
    if key not in choice_lists or value == "null" or not re.fullmatch(r"[\w, -]*", value):
        return text
    return f"{key}=" + ",".join(f"[{choice}]" for choice in (value.split(",") if multirun else [value]))


def quoted(text: str) -> str:
    """Quotes a string for Hydra, in which backslashes only matter before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def to_override(key: str, value: Any) -> str:
    """A Python value as an override, for instance `hidden=[8,8]` or `data='mnist'`."""
    return f"{key}={_element(value)}"


def _element(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_element, value))}]"
    if isinstance(value, str | Path):
        return quoted(str(value))
    return yaml_text(value)


def jobs_of(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of every job: all combinations of the swept values."""
    axes = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [text_of(override)]
        for override in overrides
    ]
    return [list(job) for job in itertools.product(*axes)]


def text_of(override: Override) -> str:
    """An override as Hydra reads it, with quotes around paths."""
    return str(override.input_line)


def with_text(error: ErrorDetail, typed: Sequence[Override]) -> ErrorDetail:
    """An error at a number as it was typed: lr=1e300 instead of lr=1e+300."""
    name, is_setting, _ = error.where.partition("=")
    same = (each for each in typed if is_setting and each.key_or_group == name)
    texts = (text_of(override) for override in same if isinstance(override.value(), int | float))
    return error._replace(where=next(texts, error.where))


def as_typed(text: str) -> str:
    """A setting without the quotes that `parse` put around its path or name."""
    key, _, value = text.partition("=")
    if not _is_typed(key) or not re.fullmatch("'.*'", value):
        return text
    return f"{key}=" + re.sub(r"(\\*)\\'", lambda m: m[1][::2] + "'", value[1:-1])


def _is_typed(key: str) -> bool:
    """Whether the value of a setting is a path or a name."""
    return key in TYPED_KEYS or key.rpartition(".")[2].lstrip("+") in TYPED_NAMES


def _with_quotes(text: str, multirun: bool) -> str:
    """The setting with quotes around a path or name, unless it is quoted, null, an interpolation or a list."""
    key, _, value = text.partition("=")
    name = key.rpartition(".")[2].lstrip("+")
    if not _is_typed(key):
        return text
    if value in ("", "''", '""'):
        raise UsageError("is empty; give it a value, or leave it out")
    is_list = name in SEVERAL and value[0] + value[-1] == "[]" and not Path(value).exists()
    if value == "null" or "${" in value:
        return text
    parts = [value]
    if multirun or is_list:
        parts = re.findall(rf"(?:{QUOTED})(?=,|$)|[^,]+", value[1:-1] if is_list else value)
        parts = [part.strip() if is_list else part for part in parts]
    if any(len(os.fsencode(folder)) > MAX_NAME_BYTES for part in parts for folder in part.split("/")):
        raise UsageError(f"is too long: the name of a file has at most {MAX_NAME_BYTES} bytes")
    joined = ",".join(part if re.fullmatch(QUOTED, part) else quoted(_expanded(part)) for part in parts)
    return f"{key}=[{joined}]" if is_list else f"{key}={joined}"


def _expanded(path: str) -> str:
    """Expands ~ to the home folder, unless the path exists as typed. Shells expand it only at the start of a word."""
    return path if Path(path).exists() else os.path.expanduser(path)


def _repaired(text: str, works: Callable[[str], bool]) -> str:
    """Suggests the first correction of a setting that works."""
    key, _, value = text.partition("=")
    key, value = key.strip(), value.strip().lstrip("=").rstrip(",")
    bare = value.strip(" ,;:()[]{}=\"'")
    for candidate in (value, f"{value}]", f"{value.rstrip(',')}]", f"[{bare}]", bare, quoted(value)):
        if works(setting := f"{key}={candidate}"):
            return f"; did you mean {shlex.quote(setting)}?"
    values = [each.strip() for each in bare.split(",")]
    if len(values) > 1 and all(works(f"{key}={each}") for each in values):
        return "; for a run with each add -m: " + shlex.quote(f"{key}={','.join(values)}")
    return "; settings look like beta=4"
