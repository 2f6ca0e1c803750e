from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commandline import TINY, Vae, composed
from vae_train.plotting.charts import curves_figure
from vae_train.plotting.png import write_png


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    root = logging.getLogger()  # Hydra adds handlers that write to the test's own standard output
    monkeypatch.setattr(root, "handlers", list(root.handlers))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares what every command repeats: Hydra's composing, and pixels of charts, which are built all the same.

    `trained` and tests/plotting render them, and processes of their own.
    """
    monkeypatch.setattr("vae_train.cli.reader.compose", composed)
    monkeypatch.setattr("vae_train.runs.train.plot_curves", lambda rows, path: _sketch(curves_figure(rows), path))
    monkeypatch.setattr("vae_train.plotting.sweeps.write_figure", _sketch)


def _sketch(figure: Any, path: Path) -> None:
    """An image with one pixel for each of a figure's axes."""
    write_png(path, torch.ones(1, 1, len(figure.axes)))


@pytest.fixture
def vae(capfd: pytest.CaptureFixture[str]) -> Vae:
    return Vae(capfd)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vae_train.cli.main import run

    folder = tmp_path_factory.mktemp("trained")
    assert run(["train", *TINY, f"out={folder}/made"]) == 0
    return folder / "made"


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """A run of two epochs, the test's own copy: `made` in the current folder."""
    shutil.copytree(_trained, tmp_path / "made")
    return Path("made")
