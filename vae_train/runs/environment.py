"""The environment of a run, recorded for reproducing it."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vae_train.util.text import now

PACKAGES = ("vae_train", "torch", "torchvision", "numpy", "hydra-core", "omegaconf", "tensorboard")
"""Packages whose versions are recorded."""


def environment(device: torch.device, data_checksum: str, ranks: int = 1) -> dict[str, Any]:
    """Versions, command line, commit and hardware of this process, as plain data.

    Args:
        device: the training device.
        data_checksum: identifies the data that was trained on.
        ranks: number of processes that train together.
    """
    return {
        "started": now(),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "data_checksum": data_checksum,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit of the checkout that the package was imported from, and whether files differ; None outside of one."""

    def ask(*arguments: str) -> str:
        command, folder = ["git", *arguments], Path(__file__).parent
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if ask("ls-files", "--error-unmatch", Path(__file__).name):
            return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        pass
    return None
