"""Class labels as people give them, by name or number, and as models take them."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from vae_train.batch import Factor
from vae_train.runs.schema import yaml_text
from vae_train.util.errors import ErrorDetail

MAX_NAMES = 20
"""Number of class names in a message."""

MAX_DIGITS = 18
"""Longest number of a class."""

log = logging.getLogger("vae_train")


def class_number(value: Any, factor: Factor, report: Callable[[str], object] = log.info) -> int:
    """The number of a class, from 0, that is given by its name or its number; a name precedes a number.

    Args:
        value: the name or the number.
        factor: the classes.
        report: receives a sentence about a value that is the name of one class and the number of another.

    Raises:
        ValueError: there is no such class; lists those that exist.
    """
    names, text = [str(name) for name in factor.values or range(factor.size)], str(value)
    number = int(text) if text.isdecimal() and len(text) <= MAX_DIGITS and int(text) < factor.size else None
    if text in names:
        named = names.index(text)
        if number not in (None, named):
            report(f"{factor.name} {value} is the class of this name, number {named}")
        return named
    if number is not None:
        return number
    raise ValueError(f"no such {factor.name}; use {known_classes(factor)}")


def class_numbers(values: Sequence[Any], factor: Factor) -> list[int]:
    """The numbers of several classes, each looked up once, see `class_number`."""
    found = {value: class_number(value, factor) for value in dict.fromkeys(values)}
    return [found[value] for value in values]


def known_classes(factor: Factor) -> str:
    """The numbers of all classes, and the names of the first ones, for a message."""
    if not factor.values:
        return f"0 to {factor.size - 1}"
    listed = ", ".join(map(str, factor.values[:MAX_NAMES]))
    return f"0 to {factor.size - 1}, or {listed}{', …' if len(factor.values) > MAX_NAMES else ''}"


def condition_errors(conditions: str | None, **given: Any) -> list[ErrorDetail]:
    """Reports a label or factors that were given for a model which is not conditional on them.

    Args:
        conditions: "label" or "factors", what the model is conditional on; None for an unconditional model.
        given: the values of the settings `label` and `factors`; None for none.
    """
    has = f"model.condition={conditions}" if conditions else "no condition; train one with model.condition=label"
    wrong = {name: value for name, value in given.items() if value is not None and name != conditions}
    return [ErrorDetail(f"{name}={yaml_text(value)}", f"this run's model has {has}") for name, value in wrong.items()]
