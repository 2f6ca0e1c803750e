"""Checkpoints: one consistent state, written so that a crash at any moment leaves a good file.

A file is written under a temporary name, flushed to the disk, read back and checked, and only then renamed; the
previous file remains. It contains plain data and tensors only and is opened with `weights_only=True`, so that a foreign
file cannot run code. PyTorch does not verify the checksums of its own files, so they are verified here.
"""

import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from vae_train.util.errors import RunError
from vae_train.util.files import temporary_name

CheckpointName = Literal["best", "last"]

FORMAT = 1

Report = Callable[[str, str], None]
"""Receives what is wrong with a file, and what is used instead."""

log = logging.getLogger("vae_train")


def warn(damage: str, instead: str) -> None:
    """Logs damage in a line."""
    log.warning("%s; %s", damage, instead)


class Checkpoints:
    """The checkpoints of one run: `last`, to resume from, and `best` by the monitored metric.

    Args:
        folder: the folder of the files.
        report: receives the damage of files that others replace.
        stamp: further entries of every state that is saved: what it belongs to.
    """

    def __init__(self, folder: Path, report: Report = warn, stamp: Mapping[str, Any] = MappingProxyType({})) -> None:
        self.folder, self.report, self.stamp = folder, report, stamp

    def path(self, name: str) -> Path:
        """The file of the checkpoint `name`; without a validation split the best one is the last one."""
        return self._file("last" if name == "best" and "best" not in self.names() else name)

    def save(self, names: Sequence[str], state: dict[str, Any]) -> None:
        """Writes one state under several names, see `save`."""
        save([self._file(name) for name in names], {**state, **self.stamp})

    def load(self, name: str, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Reads the checkpoint `name`; see the function `load`."""
        path = self.path(name)
        state = load(path, device, self.report)
        if path != self._file(name) and state.get("progress", {}).get("best_epoch"):
            self.report(f"{self._file(name)} does not exist", f"using {path.name} instead")
        return state

    def names(self) -> list[str]:
        """Which of `last` and `best` exist, possibly only as the previous file."""
        files = {name: self._file(name) for name in ("last", "best")}
        return [name for name, file in files.items() if file.exists() or previous(file).exists()]

    def furthest(self, device: torch.device | str = "cpu") -> dict[str, Any]:
        """The state to resume from: a run that was killed may have saved its best one after its last one.

        Raises:
            RunError: no checkpoint exists, or none can be read.
        """
        states, errors = [], []
        for name in self.names() or ["last"]:
            try:
                states.append(load(self._file(name), device, self.report))
            except RunError as error:
                errors.append(str(error))
        if not states:
            raise RunError("; ".join(errors))
        if errors:
            self.report(errors[0], "going on from the other checkpoint")
        return max(states, key=lambda state: state["progress"]["step"])

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.pt"


def previous(path: Path) -> Path:
    """The file of the checkpoint before `path`."""
    return path.with_name(path.stem + ".previous.pt")


def save(paths: Sequence[Path], state: dict[str, Any]) -> None:
    """Writes `state` to every one of `paths`, in one folder, each atomically.

    Raises:
        RunError: the disk is full, read-only or returns other bytes; existing files are unchanged.
    """
    folder = paths[0].parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_name(paths[0]) as written:
            _write(written, state)
            for path in paths:
                if path.exists():
                    _replace(previous(path), path)
                _replace(path, written)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its zip writer.
        raise RunError(f"could not write the checkpoint {paths[0]}: {error}; the one before it is untouched") from error


def _write(path: Path, state: dict[str, Any]) -> None:
    """Writes a file, waits until it is on the disk, and reads it back."""
    with path.open("xb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    if damage := _damage(path):
        raise OSError(f"reading it back failed: {damage}")


def _replace(path: Path, source: Path) -> None:
    """Makes `path` a hard link to `source`, or a copy if the file system has no links, at no moment missing."""
    with temporary_name(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            with source.open("rb") as content, temporary.open("xb") as file:
                shutil.copyfileobj(content, file)
        os.replace(temporary, path)


def load(path: Path, device: torch.device | str = "cpu", report: Report = warn) -> dict[str, Any]:
    """Reads a checkpoint, or the previous one if it is damaged, which is reported.

    Raises:
        RunError: no checkpoint exists, or none can be read.
    """
    reasons = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            reasons.append(f"{candidate} does not exist")
            continue
        if damage := _damage(candidate):
            reasons.append(f"{candidate} is damaged ({damage})")
            continue
        try:
            state = torch.load(candidate, map_location=device, weights_only=True)
        except Exception as error:  # the unpickler raises errors of any kind
            reasons.append(f"{candidate} is no checkpoint of vae_train ({str(error).splitlines()[0]})")
            continue
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            reasons.append(f"{candidate} is no checkpoint of vae_train, or one of another version")
            continue
        if reasons:
            report(reasons[0], f"using {candidate.name} instead")
        return state
    raise RunError("; ".join(reasons))


def _damage(path: Path) -> str | None:
    """What is wrong with the bytes of a file; None if nothing is."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return "it is compressed, which checkpoints are not"
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"wrong checksum of {bad}"


def _sync_folder(folder: Path) -> None:
    """Makes the renames in `folder` survive a loss of power, if the system supports that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
