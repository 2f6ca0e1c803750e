"""Jobs: the composed configurations that a command executes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vae_train.cli.space import Space
from vae_train.data.session import DataSession
from vae_train.runs.build import Builder
from vae_train.runs.config import PLACES, WRITTEN_PLACES, Config
from vae_train.runs.run import Run
from vae_train.runs.saved import open_run
from vae_train.training.ranks import ALONE, Ranks


class Job(NamedTuple):
    """One execution of a command."""

    settings: Any
    """The command's own settings: an instance of its dataclass."""
    config: Config
    """The composed and resolved configuration."""
    overrides: tuple[str, ...]
    """As typed, for this job of a sweep."""
    choices: Mapping[str, str]
    """Group -> the file that was chosen."""
    builder: Builder
    """Locates classes, including those that the command line allows."""
    session: DataSession
    """Caches the data that the jobs of one command have read."""
    ranks: Ranks = ALONE
    """The processes that train together."""
    composed: tuple[str, ...] = ()
    """As Hydra reads them: paths are quoted, lists of choices have brackets, and see `all_of` of `compose_jobs`."""
    space: Space | None = None
    """What a search chooses from, of which this is the first of the combinations that are checked."""

    def open(self, name: str, setting: str = "run") -> Run:
        """Opens the run that a setting names, with the data and cache folders of `data.root=` and the like.

        Raises:
            UsageError: there is no such run, or its configuration is invalid.
        """
        typed = {override.lstrip("+").partition("=")[0] for override in self.overrides}
        paths = {f"data.{name}" for name in (*PLACES, *WRITTEN_PLACES)} & typed
        moved = {path: str(self.config.at(path)) for path in paths}
        return open_run(name, f"{setting}={name}", self.builder, bool(self.config.get("strict")), moved)


class StoredJobs(NamedTuple):
    """Jobs of an earlier command, which this one also runs."""

    jobs: Sequence[Sequence[str]] = ()
    """Their overrides, as Hydra reads them."""
    shared: tuple[str, ...] = ()
    """Beginnings of the settings that they take from this command, if it has one value for them."""
    is_alone: bool = False
    """Whether this command has no other jobs."""
    typed: Sequence[str] = ()
    """The settings of an earlier search that this one continues."""
    config_dir: str | None = None
    """Another folder of YAML files that it used."""


NO_JOBS = StoredJobs()
