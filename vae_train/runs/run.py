"""A run is the folder of one training, with its configuration, metrics, checkpoints and image grids."""

from __future__ import annotations

import json
import logging
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from vae_train.batch import DataFacts
from vae_train.runs.config import UNBOUND, Config
from vae_train.runs.facts import read_facts
from vae_train.runs.files import CONFIG_FILE, LOCK_FILE, RunFiles
from vae_train.runs.packages import allow_setting, packages_of
from vae_train.runs.statuses import ENDED
from vae_train.training.checkpoint import Checkpoints, Report, warn
from vae_train.util.errors import ErrorDetail, RunError, UsageError
from vae_train.util.files import FolderGuard, appending, replacing
from vae_train.util.locks import Lock, LockGuard, locked
from vae_train.util.text import PrintableFormatter, printable

OUTPUTS = Path("outputs")

MAX_NAME_BYTES = 255
"""Longest name of a file or folder on common file systems."""

MAX_RUN_NAME_BYTES = MAX_NAME_BYTES - len("HH-MM-SS-") - len("-1000")
"""Longest name of a run, which follows the time and may be followed by a number."""

log = logging.getLogger("vae_train")


class Run(RunFiles):
    """An existing run.

    Args:
        folder: an existing folder; use `create` or `open`.
        config: the resolved configuration.
        strict: reject damaged files instead of falling back to others.
    """

    def __init__(self, folder: Path, config: Config, strict: bool = False) -> None:
        super().__init__(folder)
        self.config, self.strict = config, strict
        self.lock: Lock | None = None
        """Held while this process trains the run."""
        self.damage: list[str] = []
        """Messages about damaged files."""

    @classmethod
    def create(cls, folder: Path | None, config: Config, now: datetime | None = None, lock: Lock | None = None) -> Run:
        """Creates a new folder for the run, and writes the configuration to it.

        Args:
            folder: the folder, which is new or empty; None for `outputs/<date>/<time>-<name>`, with a number appended
                if that exists.
            config: the resolved configuration.
            now: the time that names the folder.
            lock: that of the folder, if this process holds it.

        Raises:
            UsageError: `folder` already exists and is not empty, or the name is not a valid name of a folder.
            RunError: the folder cannot be written.
        """
        try:
            if folder is None:
                if errors := folder_errors(None, str(config["name"])):
                    raise UsageError(errors)
                folder = new_folder(OUTPUTS / f"{now or datetime.now():%Y-%m-%d/%H-%M-%S}-{config['name']}")
            else:
                folder.mkdir(parents=True, exist_ok=True)
            run = cls(folder, config)
            run.lock = lock
            with run.locked():
                if not _is_vacant(folder):
                    raise UsageError(f"{folder} already exists; choose a new folder with out=")
                config.write(run.config_file)
        except OSError as error:
            raise RunError(f"could not write to {error.filename or folder}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, name: str | Path, strict: bool = False) -> Run:
        """Opens a run by its folder, by a unique part of its path under outputs/, or as "last".

        Args:
            name: which run.
            strict: reject damaged files instead of falling back to others.

        Raises:
            UsageError: there is no such run, or its configuration cannot be read.
        """
        folder = find(str(name))
        run = cls(folder, Config.read(folder / CONFIG_FILE), strict)
        facts = run.facts()
        if facts is not None and facts.units is not None:
            run.config = run.config.with_values({"data.units": facts.units._asdict()})
        return run

    @property
    def as_typed(self) -> str:
        """The run as commands take it: its folder, and the packages of other people that it needs."""
        return shlex.join(filter(None, [str(self.folder), allow_setting(packages_of(self.config))]))

    def facts(self) -> DataFacts | None:
        """The facts about the data as stored during training; None if they are missing or damaged."""
        with suppress(OSError, ValueError):
            return read_facts(self.facts_file)
        return None

    @property
    def fingerprint(self) -> str:
        """Digest of the settings that affect what is computed."""
        return self.config.digest(UNBOUND)

    def report(self, damage: str, instead: str) -> None:
        """Logs that a file is damaged, and what is used instead.

        Raises:
            UsageError: the run is strict.
        """
        if self.strict:
            raise UsageError([ErrorDetail("strict=true", damage)])
        warn(damage, instead)
        self.damage.append(f"{damage}; {instead}")

    @property
    def removed(self) -> str:
        """Why checkpoints of a finished run are missing, for messages; empty if the run keeps them all."""
        keep = self.config.get("keep") or "both"
        is_removed = keep != "both" and self.has_ended
        return f" (keep={keep} removed it when the run was done)" if is_removed else ""

    def data_checksum(self) -> str | None:
        """The checksum of the data that the run was trained on; None if it is unknown."""
        checkpoints = Checkpoints(self.checkpoints, lambda *_: None)
        found = self.environment().get("data_checksum")
        return found or (checkpoints.load("last").get("data") if checkpoints.names() else None)

    def last_state(self) -> dict[str, Any]:
        """The state to resume from, read without reporting damage; empty if nothing was saved yet.

        Raises:
            UsageError: the state cannot be read.
        """
        checkpoints = Checkpoints(self.checkpoints, lambda *_: None, removed=self.removed)
        names = checkpoints.names()
        try:
            return checkpoints.load_last() if self.has_ended or "last" in names else {}
        except RunError as error:
            hint = f"; to start a new run from the best epoch's weights, best.pt, use init_from={self.folder}"
            raise UsageError(f"{error}{hint if 'best' in names else ''}") from error

    def state(
        self, checkpoint: str, device: torch.device | str = "cpu", report: Report | None = None
    ) -> dict[str, Any]:
        """The state of a checkpoint, "best" or "last".

        Args:
            checkpoint: its name.
            device: where the tensors are placed.
            report: receives damage and a mismatch of the configuration; None for `self.report`.

        Raises:
            RunError: the checkpoint cannot be read.
        """
        report = report or self.report
        state = Checkpoints(self.checkpoints, report, removed=self.removed).load(checkpoint, device)
        if state.get("config") not in (None, self.fingerprint):
            report(f"{self.config_file} is not what the checkpoint was trained with", "using it anyway")
        return state

    def summary(self) -> dict[str, Any]:
        """How the run ended: "status" and the final metrics. The status is "unknown" without a summary."""
        return {"status": "unknown"} | read_json(self.summary_file)

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the run is left to train: it is done, or its search pruned it."""
        return self.summary()["status"] in ENDED

    def environment(self) -> dict[str, Any]:
        """Hardware and software of the run; empty if they were not recorded."""
        return read_json(self.environment_file)

    @contextmanager
    def locked(self) -> Iterator[Lock]:
        """Prevents other processes from training this run within the block.

        Raises:
            UsageError: another process is training it; names the process.
            RunError: the folder cannot be written.
        """
        if self.lock is not None:
            yield self.lock
            return
        with ExitStack() as stack:
            try:
                self.lock = stack.enter_context(locked(self.lock_file))
            except OSError as error:
                raise RunError(f"could not write {self.lock_file}: {error.strerror}") from error
            try:
                yield self.lock
            finally:
                self.lock = None

    def guard(self) -> FolderGuard:
        """Notices within a `with` block that the run was deleted, emptied, renamed or taken over."""
        if self.lock is None:
            return FolderGuard(self.folder, CONFIG_FILE)
        return LockGuard(self.folder, CONFIG_FILE, self.lock)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Copies log messages to train.log within the block."""
        with appending(self.log_file) as file:
            handler = logging.StreamHandler(file)
            handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
            log.addHandler(handler)
            try:
                yield
            finally:
                log.removeHandler(handler)


def find(name: str) -> Path:
    """The folder of the run called `name`, see `Run.open`."""
    folder = Path(name)
    if (folder / CONFIG_FILE).is_file():
        return folder
    if name != "last" and folder.is_dir():
        raise UsageError(f"no run at {name}: it has no {CONFIG_FILE}")
    if folder.exists() and (inside := next((p for p in folder.parents if (p / CONFIG_FILE).is_file()), None)):
        raise UsageError(f"is a file of a run; did you mean {inside}?")
    known = runs_below(OUTPUTS)
    if name == "last":
        if not known:
            raise UsageError(f"no run under {OUTPUTS}/ yet; train one with vae train")
        return max(known, key=lambda path: (path / CONFIG_FILE).stat().st_mtime_ns)
    matches = [path for path in known if name in str(path)]
    if len(matches) == 1:
        return matches[0]
    if not matches and all((Path(part) / CONFIG_FILE).is_file() for part in name.split(",")):
        raise UsageError(f"is several runs; type run=[{name}]")
    if not matches:
        raise UsageError(f"no run at {name}, and no run under {OUTPUTS}/ has this in its path")
    examples = ", ".join(map(str, matches[-3:]))
    raise UsageError(f"{name} is ambiguous: matches {len(matches)} runs ({examples}, …)")


def new_folder(path: Path) -> Path:
    """Creates the folder `path` exclusively; appends a number to its name if it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, number = path.name, 1
    while True:
        with suppress(FileExistsError):
            path.mkdir()  # exclusive: if two runs start in the same second, one takes the next number
            return path
        number += 1
        path = path.with_name(f"{name}-{number}")


def is_folder_name(name: str) -> bool:
    """Whether a name is that of a single folder on all systems."""
    return name.isprintable() and bool(name.strip(". ")) and not set(name) & {"/", "\\"}


def folder_errors(out: str | None, name: str = "run") -> list[ErrorDetail]:
    """A folder that exists, cannot be written, or has an invalid name.

    Args:
        out: the new folder; None for one under outputs/.
        name: last part of the folder's name under outputs/.
    """
    if not is_folder_name(name):
        return [ErrorDetail(f"name={name}", "is not a valid folder name; for a path use out=")]
    if len(os.fsencode(name)) > MAX_RUN_NAME_BYTES:
        return [ErrorDetail(f"name={name}", f"is too long: the name of a run has at most {MAX_RUN_NAME_BYTES} bytes")]
    folder = Path(out) if out else OUTPUTS
    where = f"out={out}" if out else str(OUTPUTS)
    if out and folder.exists() and not _is_vacant(folder):
        return [ErrorDetail(where, "already exists; choose a new folder")]
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return [ErrorDetail(where, f"{parent} is not writable; choose another folder with out=")]
    return []


def write_json(path: Path, content: dict[str, Any] | list[Any]) -> None:
    """Writes a dictionary or a list as JSON, atomically, in an existing folder.

    Raises:
        RunError: the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Writes a text file, like `write_json`."""
    try:
        with replacing(path) as file:
            file.write(content.encode(errors="backslashreplace"))  # a file name may be invalid Unicode
    except OSError as error:
        raise RunError(f"could not write {path}: {error.strerror}") from error


def write_bad_files(path: Path, bad_files: Sequence[tuple[str, str]]) -> None:
    """Lists files that were left out, with the reasons, one per line."""
    if bad_files:
        write_text(path, "".join(f"{printable(name, keep='')}\t{printable(reason)}\n" for name, reason in bad_files))


def read_json(path: Path) -> dict[str, Any]:
    """The dictionary in a JSON file; empty if it is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_vacant(folder: Path) -> bool:
    """Whether a folder is empty, except for what a run leaves if it is killed before its configuration is written."""
    return folder.is_dir() and all(path.name == LOCK_FILE or path.suffix == ".tmp" for path in folder.iterdir())


def runs_below(folder: Path) -> list[Path]:
    """The folders of all runs below a folder."""
    return sorted(path.parent for path in folder.glob(f"**/{CONFIG_FILE}"))
