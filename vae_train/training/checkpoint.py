"""Checkpoints: consistent states, written so that a crash at any moment leaves a valid file.

A file is written under a temporary name, flushed to disk, read back, verified and only then renamed; the
previous file is kept. It contains only plain data and tensors and is opened with `weights_only=True`, so an untrusted
file cannot execute code. PyTorch does not verify the checksums of its files, so this module does.
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

from vae_train.util.errors import RunError, raise_out_of_memory
from vae_train.util.files import temporary_name, unreadable
from vae_train.util.text import first_line

CheckpointName = Literal["best", "last"]

Keep = Literal["both", "best", "last", "none"]
"""The checkpoints that a finished run keeps."""

WEIGHTS = ("model", "ema", "progress")
"""Entries of a state that `best` contains: enough for evaluation and sampling, but not for resuming."""

FORMAT = 2
"""Version of the file format. It is incremented when older files can no longer be read."""

Report = Callable[[str, str], None]
"""Receives the damage of a file and what is used instead."""

log = logging.getLogger("vae_train")


def warn(damage: str, instead: str) -> None:
    """Logs damage as a warning."""
    log.warning("%s; %s", damage, instead)


class Checkpoints:
    """The checkpoints of one run: `last`, to resume from, and the weights of the `best` epoch by the monitored metric.

    Args:
        folder: the folder of the files.
        report: receives the damage of files that are replaced by others.
        stamp: additional entries of every saved state, which identify its run.
        removed: why checkpoints were removed, for messages about missing ones; empty if they were not.
    """

    def __init__(
        self,
        folder: Path,
        report: Report = warn,
        stamp: Mapping[str, Any] = MappingProxyType({}),
        removed: str = "",
    ) -> None:
        self.folder, self.report, self.stamp, self.removed = folder, report, stamp, removed

    def path(self, name: str) -> Path:
        """The file of the checkpoint `name`; without a validation split the best one is the last one."""
        return self._file("last" if name == "best" and "best" not in self.names() else name)

    def save(self, names: Sequence[str], state: dict[str, Any]) -> None:
        """Writes one state under several names; "best" only receives the weights."""
        if "best" in names:
            weights = {name: state[name] for name in WEIGHTS}
            save(self._file("best"), {**weights, **self.stamp}, keeps_previous=False)
        if "last" in names:
            save(self._file("last"), {**state, **self.stamp})

    def load(self, name: str, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Reads the weights of a checkpoint, or reports damage and falls back to another checkpoint.

        Raises:
            RunError: no checkpoint exists, or none can be read.
        """
        path, last, best = self.path(name), self._file("last"), self._file("best")
        if self.removed and not self.names():
            raise RunError(f"{path} does not exist{self.removed}")
        others = [last, previous(last), best] if best.exists() else [last, previous(last)]
        state = _load_first([path, *(other for other in others if other != path)], device, self.report)
        if name == "best" and path == last and state.get("progress", {}).get("best_epoch"):
            self.report(f"{best} does not exist{self.removed}", f"using {path.name} instead")
        return state

    def load_last(self, device: torch.device | str = "cpu") -> dict[str, Any]:
        """Reads the whole state to resume from, or reports damage and falls back to the previous one.

        Raises:
            RunError: neither can be read.
        """
        if self.removed and "last" not in self.names():
            raise RunError(f"{self._file('last')} does not exist{self.removed}")
        return load(self._file("last"), device, self.report)

    def names(self) -> list[str]:
        """Names of the existing checkpoints; `last` may exist as the previous file only."""
        last, best = self._file("last"), self._file("best")
        exists = {"last": last.exists() or previous(last).exists(), "best": best.exists()}
        return [name for name, found in exists.items() if found]

    def remove_previous(self) -> None:
        """Removes the previous state when a run is done, unless the last one is damaged."""
        last = self._file("last")
        if previous(last).exists() and last.exists() and _damage(last) is None:
            previous(last).unlink()

    def keep(self, keep: Keep) -> None:
        """Removes the checkpoints that a finished run does not keep; without a best one, `last` takes its place."""
        files = [self._file("last"), previous(self._file("last")), self._file("best")]
        kept = files if keep == "both" else [] if keep == "none" else [self.path(keep)]
        for path in files:
            if path not in kept:
                path.unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.pt"


def previous(path: Path) -> Path:
    """The file of the checkpoint before `path`."""
    return path.with_name(path.stem + ".previous.pt")


def save(path: Path, state: dict[str, Any], keeps_previous: bool = True) -> None:
    """Writes `state` to a file atomically.

    Args:
        path: the file.
        state: plain data and tensors.
        keeps_previous: whether the replaced file is kept as `previous(path)`.

    Raises:
        RunError: the disk is full or read-only, or reading back fails; existing files are unchanged.
    """
    try:
        path.parent.mkdir(exist_ok=True)  # without parents, so that a deleted run is not created anew
        with temporary_name(path) as written:
            _write(written, state)
            if keeps_previous and path.exists():
                _replace(previous(path), path)
            os.replace(written, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        # torch.save reports a full disk as a RuntimeError of its zip writer.
        raise RunError(
            f"could not write the checkpoint {path}: {first_line(error)}; the previous one is unchanged"
        ) from error


def _write(path: Path, state: dict[str, Any]) -> None:
    """Writes a file, waits until it is on disk, and verifies it."""
    with path.open("xb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    if damage := _damage(path):
        raise OSError(f"reading it back failed: {damage}")


def _replace(path: Path, source: Path) -> None:
    """Atomically makes `path` a hard link to `source`, or a copy if the file system has no hard links."""
    with temporary_name(path) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            with source.open("rb") as content, temporary.open("xb") as file:
                shutil.copyfileobj(content, file)
        os.replace(temporary, path)


def load(path: Path, device: torch.device | str = "cpu", report: Report = warn) -> dict[str, Any]:
    """Reads a checkpoint, or reports damage and falls back to the previous one.

    Raises:
        RunError: no checkpoint exists, or none can be read.
    """
    return _load_first([path, previous(path)], device, report)


def _load_first(paths: Sequence[Path], device: torch.device | str, report: Report) -> dict[str, Any]:
    """Reads the first undamaged file of a list, and reports why earlier ones are not used."""
    reasons: list[str] = []
    for path in paths:
        try:
            state = _read(path, device)
        except RunError as error:
            reasons.append(str(error))
            continue
        if reasons:
            report(reasons[0], f"using {path.name} instead")
        return state
    raise RunError("; ".join(reasons))


def _read(path: Path, device: torch.device | str) -> dict[str, Any]:
    if not path.exists():
        raise RunError(f"{path} does not exist")
    if damage := _damage(path):
        reason = unreadable(path)
        raise RunError(f"{reason} ({damage})" if reason.endswith("damaged") else reason)
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # the unpickler raises errors of any kind
        raise_out_of_memory(error)
        raise RunError(f"{path} is not a checkpoint of vae_train") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(f"{path} is not a checkpoint of this version of vae_train")
    return state


def _damage(path: Path) -> str | None:
    """Describes the damage of a file; None if there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return "it is compressed, unlike checkpoints"
            bad = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        return str(error) or type(error).__name__
    return None if bad is None else f"wrong checksum of {bad}"


def _sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a power failure, if the system supports it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
