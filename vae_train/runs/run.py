"""A run is the folder that one training wrote: configuration, figures, checkpoints, pictures."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vae_train.util.errors import RunError, UsageError
from vae_train.util.text import first_line

OUTPUTS = Path("outputs")
CONFIG = "config.yaml"
SUMMARY = "summary.json"
ENVIRONMENT = "environment.json"
PACKAGES = ("vae_train", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "tensorboard")
ADDED = {"trainer": {"checkpoint_seconds": 0.0}}
"""Settings that runs of before did not have, with values that do what was done then."""

log = logging.getLogger("vae_train")


class Run:
    """A run's folder.

    Args:
        folder: an existing folder; use `create` or `open`.
        config: the resolved, complete configuration.
    """

    def __init__(self, folder: Path, config: DictConfig) -> None:
        self.folder, self.config = folder, config

    @classmethod
    def create(cls, folder: Path | None, config: DictConfig, now: datetime | None = None) -> Run:
        """Makes a new folder, for this run alone, and writes the configuration to it.

        Args:
            folder: where; None for `outputs/<date>/<time>-<name>`, with a number behind it where that exists already.
            config: the resolved, complete configuration.
            now: the time that names the folder.

        Raises:
            UsageError: `folder` exists already.
            RunError: it cannot be written.
        """
        now = now or datetime.now()
        try:
            default = OUTPUTS / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}-{config.name}"
            path = new_folder(default) if folder is None else _asked_folder(folder)
            run = cls(path, config)
            run.save_config()
        except OSError as error:
            raise RunError(f"could not write to {error.filename or folder}: {error.strerror}") from error
        return run

    @classmethod
    def open(cls, name: str) -> Run:
        """Opens a run by its folder, by a unique part of its path under outputs/, or as "last".

        Raises:
            UsageError: there is no such run, or its configuration cannot be read.
        """
        folder = find(str(name))
        try:
            config = OmegaConf.load(folder / CONFIG)
        except (OSError, YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {folder / CONFIG}: {first_line(error)}") from error
        if not isinstance(config, DictConfig) or "model" not in config or "data" not in config:
            raise UsageError(f"{folder / CONFIG} is not the configuration of a run")
        for group, settings in ADDED.items():
            if isinstance(config.get(group), DictConfig):
                config[group] = OmegaConf.merge(settings, config[group])
        return cls(folder, config)

    def save_config(self) -> None:
        """Writes config.yaml, atomically."""
        temporary = self.folder / (CONFIG + ".tmp")
        temporary.write_text(OmegaConf.to_yaml(self.config))
        os.replace(temporary, self.folder / CONFIG)

    def write_json(self, name: str, content: dict[str, Any]) -> Path:
        """Writes `content` to the file `name` within the folder; returns its path."""
        return self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, content: str) -> Path:
        """Writes `content` to the file `name` within the folder; returns its path."""
        path = self.folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        except OSError as error:
            raise RunError(f"could not write {path}: {error.strerror}") from error
        return path

    def make_folder(self, name: str) -> Path:
        """The folder `name` within the run's."""
        path = self.folder / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"could not write {path}: {error.strerror}") from error
        return path

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.folder / "checkpoints"

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Within the block everything that is logged goes to train.log too."""
        handler = logging.FileHandler(self.folder / "train.log")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            handler.close()


def find(name: str) -> Path:
    """The folder of the run called `name`, see `Run.open`."""
    folder = Path(name)
    if (folder / CONFIG).is_file():
        return folder
    if name != "last" and folder.is_dir():
        raise UsageError(f"no run at {name}: it has no {CONFIG}")
    known = runs()
    if name == "last":
        if not known:
            raise UsageError(f"there is no run under {OUTPUTS}/ yet: vae train makes one")
        return known[-1]
    matches = [path for path in known if name in str(path)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(f"no run at {name}, and no run under {OUTPUTS}/ has that in its name")
    some = ", ".join(map(str, matches[-3:]))
    raise UsageError(f"{name} is part of {len(matches)} runs' names ({some}, …): give more of it")


def runs_named(name: str) -> list[Path]:
    """The run called `name`, see `Run.open`; all runs below it where it is a folder that has some, a sweep's for one.

    Raises:
        UsageError: there is none.
    """
    folder = Path(str(name))
    if folder.is_dir() and not (folder / CONFIG).is_file():
        below = sorted(path.parent for path in folder.glob(f"**/{CONFIG}"))
        if below:
            return below
    return [find(str(name))]


def runs() -> list[Path]:
    """All runs under outputs/, the one last worked on last."""
    return [path.parent for path in sorted(OUTPUTS.glob(f"**/{CONFIG}"), key=lambda path: path.stat().st_mtime_ns)]


def environment(device: str, threads: int, data_checksum: str) -> dict[str, Any]:
    """What a run ran on: a receipt for whoever repeats it."""
    import torch

    accelerator = torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor()
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git(),
        "device": device,
        "device_name": accelerator,
        "threads": threads,
        "data_checksum": data_checksum,
    }


def new_folder(path: Path) -> Path:
    """Makes the folder `path` for the caller alone: where there is one already, a number is put behind the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name, number = path.name, 1
    while True:
        try:
            path.mkdir()  # exclusive: of two that start in the same second one goes on to the next number
        except FileExistsError:
            number += 1
            path = path.with_name(f"{name}-{number}")
        else:
            return path


def write_bad_files(folder: Path, bad_files: Sequence[tuple[str, str]]) -> Path | None:
    """Lists files that were left out, and why, in bad_files.txt; None where there are none."""
    if not bad_files:
        return None
    path = folder / "bad_files.txt"
    lines = [f"{name}\t{why}\n" for name, why in bad_files]
    path.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")  # a name may be no text
    return path


def _asked_folder(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        raise UsageError(f"{folder} exists already: out= names a new folder") from None
    return folder


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that the package was imported from, and whether it was changed; None outside of one."""

    def ask(*words: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if ask("ls-files", "--error-unmatch", Path(__file__).name):
            return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        pass
    return None
