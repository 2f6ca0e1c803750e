"""A small trained model of binary digits."""

from __future__ import annotations

from pathlib import Path

import pytest

import vae_train
from tests.support import BINARY
from vae_train.runs.run import Run

TINY = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=2", "logger=none", "epochs=1")


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vae_train.train(*TINY, *BINARY, out=tmp_path_factory.mktemp("runs") / "binary")
