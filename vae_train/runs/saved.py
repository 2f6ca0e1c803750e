"""Opens saved configurations, which are not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vae_train.model.base import Part
from vae_train.runs.build import Builder
from vae_train.runs.config import WRITTEN_PLACES, Config
from vae_train.runs.run import Run
from vae_train.runs.schema import value_error
from vae_train.training.checkpoint import Keep
from vae_train.util.errors import ErrorDetail, UsageError, collecting
from vae_train.util.files import SavedPath
from vae_train.util.ranges import Seed, Threads

SAVED = dict[str, Any](
    seed=Seed, device=str, threads=Threads | None, name=str | None, freeze=Part | None, keep=Keep | None
)
"""Settings of a saved configuration that commands use themselves, with their types."""


def open_run(
    name: str, where: str, builder: Builder, strict: bool = False, moved: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    """Opens a run and checks its saved configuration, which is not trusted.

    Args:
        name: see `Run.open`.
        where: the setting as typed, for messages.
        builder: locates classes.
        strict: reject damaged files instead of falling back to others.
        moved: current paths of the run's data and cache, by dotted path; nothing is written to other paths in the run.

    Raises:
        UsageError: there is no such run, or its configuration is invalid.
    """
    errors = list[ErrorDetail]()
    with collecting(errors, where):
        run = Run.open(name, strict)
        run.config = untrusted(run.config).with_values(moved)
        found = [*_value_errors(run.config), *builder.errors(run.config)]
        errors += run.link_errors()
        errors += [e if e.where in moved else e._replace(where=f"{run.config_file}: {e.where}") for e in found]
    if errors:
        raise UsageError(errors)
    return run


def read_job(path: Path, builder: Builder, trusted: bool = False) -> Config:
    """Reads the configuration of a job, which is checked like that of a run.

    Args:
        path: its file.
        builder: locates classes.
        trusted: whether files may be written to its places.

    Raises:
        UsageError: it cannot be read, or is invalid.
    """
    config = Config.read(path)
    if errors := [*_value_errors(config), *builder.errors(config)]:
        raise UsageError([e._replace(where=f"{path}: {e.where}") for e in errors])
    return config if trusted else untrusted(config)


def untrusted(config: Config) -> Config:
    """A configuration that writes nothing to the places which it names."""
    saved = {f"data.{name}": config.at(f"data.{name}") for name in WRITTEN_PLACES}
    return config.with_values({path: SavedPath(place) for path, place in saved.items() if isinstance(place, str)})


def _value_errors(config: Config) -> list[ErrorDetail]:
    """Values of a saved configuration that no component checks, but the commands use."""
    values = {name: config.get(name) for name in SAVED}
    errors = [(f"{name}={value}", value_error(value, SAVED[name])) for name, value in values.items()]
    return [ErrorDetail(where, message) for where, message in errors if message]
