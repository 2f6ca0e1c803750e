"""The command line as tests use it: in the test's own folder, in this process or in one of its own."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

import hydra
import pytest
from omegaconf import DictConfig

from vae_train.cli.commands.reproduce import without_clock

TINY = ("epochs=2", "model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=2", "logger=none")
BRIEF = ("k=5", "latents=false")
"""Leaves out of `vae eval` what takes long, for tests that do not look at it."""


@cache
def _composed(command: str, overrides: tuple[str, ...]) -> DictConfig:
    return hydra.compose(command, overrides=list(overrides), return_hydra_config=True)


def composed(command: str, *, overrides: list[str], return_hydra_config: bool) -> DictConfig:
    """`hydra.compose`, which takes 0.1 s, once for the same words; anew with a folder of the user's."""
    assert return_hydra_config
    found = _composed.__wrapped__ if any("searchpath" in word for word in overrides) else _composed
    return copy.deepcopy(found(command, tuple(overrides)))


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    def errors(self) -> list[str]:
        """The lines below the head line of a refusal."""
        assert self.code == 2, self
        assert "Traceback" not in self.err
        head, *lines = self.err.strip().splitlines()
        assert head.endswith("nothing was written")
        return lines


class Vae:
    """Calls `vae` in this process, which spares the import of torch."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def __call__(self, *arguments: str) -> Answer:
        from vae_train.cli.main import run

        self.capfd.readouterr()
        code = run(list(arguments))
        return Answer(code, *self.capfd.readouterr())

    def train(self, *arguments: str) -> Answer:
        return self("train", *TINY, *arguments)


def start(*arguments: str, folder: Path, **options: object) -> subprocess.Popen[str]:
    """`vae` in a process of its own."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vae_train", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, **options)


def wait_for(path: Path, text: str, seconds: float = 60) -> None:
    """Waits until a file holds a text."""
    end = time.monotonic() + seconds
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < end, f"{path} never had {text}"
        time.sleep(0.02)


def rows(run: Path) -> list[dict[str, object]]:
    """The rows of metrics.jsonl without what the clock says."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [without_clock(json.loads(line)) for line in lines]
