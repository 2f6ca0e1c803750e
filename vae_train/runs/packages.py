"""Packages of other people: which of them a configuration names, and where they are imported from."""

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from vae_train.runs.config import Config
from vae_train.runs.schema import nodes
from vae_train.util.errors import ErrorDetail, UsageError

NEVER_ALLOWED = sys.stdlib_module_names | {"vae_train", "torch"}
"""Packages that no message suggests to allow: they have no components but those of the catalogue."""


def package_of(target: str) -> str:
    """The package that `allow=` has to name before a class can be built; empty if none should be named."""
    package = target.split(".")[0]
    return package if package.isidentifier() and package not in NEVER_ALLOWED else ""


def allow_setting(packages: Iterable[str]) -> str:
    """The setting that allows packages; empty without any."""
    names = ",".join(sorted(set(packages) - {""}))
    return f"allow=[{names}]" if "," in names else f"allow={names}" if names else ""


def packages_of(config: Config) -> list[str]:
    """The packages of other people whose classes a configuration names."""
    return sorted({package_of(str(node["_target_"])) for node in nodes(config)} - {""})


def make_importable(packages: Iterable[str]) -> None:
    """Makes packages in the current folder importable: the folder is appended to the search path if it has one of them.

    It comes last, so that no file in it replaces a module that is installed.

    Raises:
        UsageError: a package is neither installed nor in the current folder.
    """
    errors, folder = [], Path.cwd()
    for name in packages:
        top = name.split(".")[0]
        is_here = top.isidentifier() and ((folder / top).is_dir() or (folder / f"{top}.py").is_file())
        spec = find_spec(top) if top.isidentifier() else None
        if is_here and (spec is None or spec.origin is None) and str(folder) not in sys.path:
            sys.path.append(str(folder))
        elif spec is None:
            message = f"is not installed, and {folder} has no folder {top}; change to the folder that has it"
            errors.append(ErrorDetail(f"allow={name}", message))
    if errors:
        raise UsageError(errors)
