from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of caches of decoded images, the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "vae_train"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An empty folder for images."""
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"
