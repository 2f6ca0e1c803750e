"""Imports packages that only an extra of this package installs."""

import importlib
from typing import Any

from vae_train.util.errors import UsageError


def import_extra(module: str, extra: str) -> Any:
    """Imports a module that the extra `vae_train[extra]` installs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UsageError(f'needs the package {error.name}; pip install "vae_train[{extra}]"') from error
