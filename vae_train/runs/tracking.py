"""Opens the loggers of a run, and decides which trackers it may use.

A run's folder is not trusted. Its tracker settings are only used if the run was
started here, which a receipt outside of its folder proves, or with `allow=` on the command line.
"""

import hashlib
import json
import logging
import re
import secrets
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path

from vae_train.data.storage.cache_place import cache_folder
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.differences import hyperparameters
from vae_train.runs.run import Run, read_json, write_json
from vae_train.runs.schema import RunFacts
from vae_train.runs.sweep_file import SWEEP_FILE
from vae_train.training.loggers.base import Logger, RunLabel
from vae_train.training.loggers.tracker import Tracker
from vae_train.util.errors import ErrorDetail

ID_BYTES = 6

log = logging.getLogger("vae_train")


def logger_nodes(config: Config) -> dict[str, Config]:
    """The loggers of a configuration by name; older runs have a single one without a name."""
    node = config.get("logger")
    named = node if isinstance(node, Config) else {}
    nodes = {"": named} if "_target_" in named else named
    return {name: each for name, each in nodes.items() if isinstance(each, Config) and "_target_" in each}


def trackers(config: Config, builder: Builder) -> dict[str, type[Tracker]]:
    """The classes of the trackers of a configuration, by name."""
    classes = {name: builder.locate(str(node["_target_"])) for name, node in logger_nodes(config).items()}
    return {name: found for name, found in classes.items() if issubclass(found, Tracker)}


def without_trackers(config: Config, builder: Builder) -> Config:
    """A configuration without trackers."""
    names = trackers(config, builder)
    return config.with_values({"logger": {k: v for k, v in logger_nodes(config).items() if k not in names}})


def tracker_errors(config: Config, builder: Builder, names: Container[str] | None = None) -> list[ErrorDetail]:
    """Reports trackers that cannot be used, because a package or a login is missing.

    Args:
        config: a configuration.
        builder: locates classes.
        names: names of the trackers in use; None for all.
    """
    used = [name for name in trackers(config, builder) if names is None or name in names]
    nodes = logger_nodes(config)
    errors = {name: builder.build(nodes[name], folder=Path(), step=0).error() for name in used}
    return [ErrorDetail(f"logger={name}", error) for name, error in errors.items() if error]


def register(run: Run, builder: Builder, names: Iterable[str] | None = None) -> None:
    """Assigns an id for trackers to a run, unless it has one, and writes receipts that it is trained here.

    Args:
        run: the run.
        builder: locates classes.
        names: names of the trackers that get a receipt; None for all.
    """
    names = trackers(run.config, builder) if names is None else names
    for name in names:
        if _id(run) is None:
            write_json(run.tracker_file, {"id": secrets.token_hex(ID_BYTES)})
        receipt = _receipt(run, name)
        with suppress(OSError):  # without a receipt, later commands ask for `allow=`
            receipt.parent.mkdir(parents=True, exist_ok=True)
            receipt.touch()


def sending(run: Run, builder: Builder) -> list[str]:
    """The names of the trackers that a run may use."""
    kinds = trackers(run.config, builder)
    return [name for name, kind in kinds.items() if kind.package in builder.allow or _receipt(run, name).exists()]


def open_loggers(run: Run, facts: RunFacts, builder: Builder, is_training: bool = True) -> list[Logger]:
    """Builds and starts the loggers of a run's configuration; logs which trackers are left out.

    Args:
        run: the run.
        facts: facts about the run for constructors.
        builder: locates classes.
        is_training: False if an evaluation adds to the run.
    """
    kinds, used, loggers = trackers(run.config, builder), sending(run, builder), list[Logger]()
    if is_training:
        register(run, builder, used)
    label = _label(run, is_training)
    for name, node in logger_nodes(run.config).items():
        if name in kinds and name not in used:
            message = "logger.%s: not used, since this run was not started here; allow=%s uses it"
            log.info(message, name, kinds[name].package)
        elif name in kinds and not label.id:
            log.info("logger.%s: not used, since %s has no id", name, run.tracker_file)
        else:
            loggers.append(builder.build(node, **facts._asdict()))
            loggers[-1].start(label)
    return loggers


def _label(run: Run, is_training: bool) -> RunLabel:
    folder = run.folder.absolute()
    sweep = folder.parent.name if (folder.parent / SWEEP_FILE).exists() else None
    return RunLabel(_id(run) or "", folder.name, sweep, hyperparameters(run.config), is_training)


def _id(run: Run) -> str | None:
    """The id of a run; None if it has no valid id."""
    found = str(read_json(run.tracker_file).get("id"))
    return found if re.fullmatch(f"[0-9a-f]{{{2 * ID_BYTES}}}", found) else None


def _receipt(run: Run, name: str) -> Path:
    """The receipt file, named by a digest of the run's id and its settings of a tracker."""
    text = json.dumps([_id(run), logger_nodes(run.config)[name].to_dict()], sort_keys=True, default=str)
    return cache_folder(None) / "trackers" / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
