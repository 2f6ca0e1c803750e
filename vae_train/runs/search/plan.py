"""What a search consists of, and the file of it in the folder of its sweep."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from vae_train.runs.files import LOCK_FILE
from vae_train.runs.run import read_json, write_json
from vae_train.runs.search.space import Axis
from vae_train.util.errors import RunError
from vae_train.util.locks import locked

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

Prune = Literal["none", "median", "halving"]

SEARCH_FILE = "search.json"


class NewSearch(NamedTuple):
    """The settings of a search."""

    overrides: tuple[str, ...]
    """All of them, as Hydra reads them."""
    storage: str | None
    """URL of the database of its study without a password; None for a journal in the folder of the sweep."""
    config_dir: str | None = None
    """Another folder of YAML files."""


class StoredSearch(NamedTuple):
    """A search as its sweep stores it."""

    settings: NewSearch
    token: str
    """Tells its study from others of the same name in a shared database."""


class Plan(NamedTuple):
    """What a study consists of."""

    name: str
    search: StoredSearch
    axes: Sequence[Axis]
    metrics: Sequence[str]
    """What trials are compared by."""
    trials: int
    """The number of trials, those of all workers and commands included."""
    prune: Prune
    sampler: Callable[[int], BaseSampler]
    """The number of a trial -> its sampler."""


def read_search(sweep: Path) -> StoredSearch | None:
    """The search of a sweep; None if it is a grid, or does not exist.

    Raises:
        RunError: its file is damaged.
    """
    path = sweep / SEARCH_FILE
    if not path.exists():
        return None
    content = read_json(path)
    try:
        storage, config_dir = (None if content[key] is None else str(content[key]) for key in ("storage", "config_dir"))
        return StoredSearch(
            NewSearch(tuple(map(str, content["overrides"])), storage, config_dir), str(content["token"])
        )
    except (KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged; restore it, or choose another name for the sweep") from error


def write_search(sweep: Path, settings: NewSearch) -> StoredSearch:
    """Stores a search, or new settings of one that exists, whose study remains; returns it."""
    with locked(sweep / LOCK_FILE, wait=True):
        before = read_search(sweep)
        if before is None:
            search = StoredSearch(settings, secrets.token_hex(8))
        else:
            search = before._replace(settings=settings._replace(storage=before.settings.storage))
        write_json(sweep / SEARCH_FILE, {**search.settings._asdict(), "token": search.token})
        return search
