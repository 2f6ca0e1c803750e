from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from tests.commandline import TINY, Vae


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    root = logging.getLogger()  # Hydra adds handlers that write to the test's own standard output
    monkeypatch.setattr(root, "handlers", list(root.handlers))


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
