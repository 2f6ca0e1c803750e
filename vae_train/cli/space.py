"""The settings that a search varies, in Hydra's syntax: `beta=interval(0.5,8)`, `lr=tag(log,interval(1e-4,1e-2))`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hydra.core.override_parser.types import IntervalSweep, Override

from vae_train.cli.parsing import text_of
from vae_train.runs.search.space import Axis, Choices, Interval, number_text
from vae_train.util.errors import ErrorDetail, UsageError, collecting

SETTINGS = ("trials", "prune", "seeds")
"""Settings of searches besides `search=` and those below it."""

MAX_CORNERS = 32
"""Combinations of ends and choices up to which all of them are checked; else each end and choice is checked once."""


class Space(NamedTuple):
    """What a search chooses from, and what is fixed."""

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]
    """The other overrides, as Hydra reads them."""
    typed: tuple[str, ...] = ()
    """All overrides, as Hydra reads them."""
    config_dir: str | None = None
    """Another folder of YAML files."""

    def corners(self) -> list[list[str]]:
        """The overrides of jobs that have all ends and choices."""
        values = [[f"{axis.key}={text}" for text in axis.texts] for axis in self.axes]
        if math.prod(map(len, values)) <= MAX_CORNERS:
            return [[*self.fixed, *corner] for corner in itertools.product(*values)]
        first = [texts[0] for texts in values]
        others = [[*first[:i], text, *first[i + 1 :]] for i, texts in enumerate(values) for text in texts[1:]]
        return [[*self.fixed, *corner] for corner in (first, *others)]


def is_search(key: str) -> bool:
    """Whether a setting belongs to a search."""
    return key in SETTINGS or key == "search" or key.startswith("search.")


def space_of(
    parsed: Sequence[Override],
    works: Callable[..., bool],
    groups: Sequence[str],
    config_dir: str | None,
    errors: list[ErrorDetail],
) -> Space | None:
    """The space of a search; None for other commands.

    Args:
        parsed: the overrides.
        works: whether a setting has a value that is accepted beside those of `groups`.
        groups: the groups that were typed.
        config_dir: another folder of YAML files.
        errors: receives those of intervals, choices and settings of the search.
    """
    swept = [override for override in parsed if override.is_sweep_override()]
    typed = {override.key_or_group for override in parsed}
    for override in swept:
        if is_search(override.key_or_group):
            errors.append(ErrorDetail(text_of(override), _several(override)))
        elif override.key_or_group == "seed" and typed & {"search", "seeds"}:
            message = "a search cannot choose seeds; use seeds=3 for three seeds of every trial"
            message = message if "search" in typed else "and seeds= are mutually exclusive; leave one out"
            errors.append(ErrorDetail(text_of(override), message))
    if "search" not in typed:
        return None
    axes = [override for override in swept if not is_search(override.key_or_group)]
    choices = [f"{each.key_or_group}={next(iter(each.sweep_string_iterator()))}" for each in axes if _is_choice(each)]
    beside = [*groups, *(text for text in choices if works(text))]
    result = list[Axis]()
    for override in axes:
        with collecting(errors, text_of(override)):
            result.append(_axis(override, lambda text: works(text, groups=beside)))
    if not axes and not errors:
        where = next(text_of(override) for override in parsed if override.key_or_group == "search")
        errors.append(ErrorDetail(where, "has nothing to choose; add a setting such as beta=interval(0.5,8)"))
    fixed = tuple(text_of(override) for override in parsed if override not in swept)
    return Space(tuple(result), fixed, tuple(map(text_of, parsed)), config_dir)


def _several(override: Override) -> str:
    key, value = override.key_or_group, str(override.input_line).partition("=")[2]
    return f"takes a list: {key}=[{value}]" if key == "search.metric" else "takes one value"


def _is_choice(override: Override) -> bool:
    return not isinstance(override.value(), IntervalSweep)


def _axis(override: Override, works: Callable[[str], bool]) -> Axis:
    """A setting that a search varies.

    Raises:
        UsageError: its interval is empty, or it has a tag without effect.
    """
    key, value = override.get_key_element(), override.value()
    tags = set(getattr(value, "tags", ()))
    if unknown := sorted(tags - {"log"}):
        raise UsageError(f"has the unknown tag {unknown[0]}; the only one is log: {key}=tag(log,interval(1e-4,1e-2))")
    if not isinstance(value, IntervalSweep):
        if tags:
            raise UsageError("has the tag log, which only applies to an interval")
        return Choices(key, tuple(dict.fromkeys(override.sweep_string_iterator())))
    assert value.start is not None
    assert value.end is not None
    low, high = float(value.start), float(value.end)
    if not low < high:
        raise UsageError(f"its first end, {low:g}, must be below its second one, {high:g}")
    if tags and low <= 0:
        raise UsageError("has the tag log, so both ends must be above 0")
    is_cast = isinstance(value.start, int) and isinstance(value.end, int)
    return Interval(key, low, high, bool(tags), is_cast or _takes_whole_numbers(key, low, high, works))


def _takes_whole_numbers(key: str, low: float, high: float, works: Callable[[str], bool]) -> bool:
    """Whether a setting accepts the whole number at one end of an interval, but no fraction within."""
    if low != int(low) or high != int(high):
        return False
    between = math.floor((low + high) / 2) + 0.5
    return works(f"{key}={number_text(low)}") and not works(f"{key}={between}")
