"""Tells classes from other values of a module."""

import inspect
from types import GenericAlias
from typing import Any, TypeGuard


def is_class(value: Any) -> TypeGuard[type]:
    """Whether a value is a class; `dict[str, int]` is not, although Python 3.10 takes it for one."""
    return inspect.isclass(value) and not isinstance(value, GenericAlias)
