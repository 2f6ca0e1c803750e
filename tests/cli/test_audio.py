"""Audio on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.commandline import Answer, Vae
from tests.data.sounds import fill, tone, write

pytest.importorskip("soundfile")
pytest.importorskip("soxr")


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "sounds").mkdir()
    return tmp_path / "sounds"


TINY = ("epochs=1", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=2", "logger=none")


@pytest.fixture
def run(sounds: Path, vae: Vae) -> Path:
    """A run that was trained on clips of 0.1 s at 1 kHz."""
    fill(sounds, 12)
    done(vae("train", *TINY, "data=audio", f"data.root={sounds}", "data.seconds=0.1", "out=run"))
    return Path("run")


def done(answer: Answer) -> Answer:
    assert answer.code == 0, answer.err
    return answer


def test_a_run_is_evaluated_sampled_and_compared_with_other_audio(run: Path, vae: Vae) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert (config["seconds"], config["rate"], config["channels"]) == (0.1, 1000, 1)
    write(Path("other/a.wav"), tone(0.3, 100, rate=2000), 2000)
    done(vae("eval", f"run={run}", "k=2", "latents=false", "ood=other"))
    assert "auroc" in json.loads((run / "eval" / "test.json").read_text())
    before = set((run / "samples").iterdir())
    done(vae("sample", f"run={run}", "num=4"))
    (plot,) = set((run / "samples").iterdir()) - before
    assert plot.suffix == ".png"


def rejected(vae: Vae, *words: str) -> str:
    (line,) = vae("data", "data=audio", "out=never", *words).errors()
    assert not Path("never").exists()
    return line


def test_settings_that_are_needed_are_named(vae: Vae, sounds: Path) -> None:
    assert "data.root=  is needed" in rejected(vae)
    fill(sounds)
    write(sounds / "long.wav", tone(0.5))
    line = rejected(vae, f"data.root={sounds}")
    assert "data.seconds=" in line
    assert "the files are 0.2 to 0.5 s long; for instance 0.2" in line
    write(sounds / "fast.wav", tone(0.5, rate=2000), 2000)
    line = rejected(vae, f"data.root={sounds}", "data.seconds=0.1")
    assert "data.rate=" in line
    assert "the files have 1,000 to 2,000 samples per second; for instance 1000" in line


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        ("tone", ["data.seconds=0"], "data.seconds"),
        ("tone", ["data.seconds=0.0001"], "has less than 2 samples at 1,000 Hz"),
        ("tone", ["data.rate=0"], "data.rate"),
        ("text", [], "has no audio file (files that end in wav flac ogg mp3, also in sub-folders)"),
        ("nan", [], "none of its 1 files is readable audio (a.wav: has samples that are not finite (NaN or infinity))"),
        ("empty", [], "none of its 1 files is readable audio (a.wav: has no samples)"),
        ("junk", [], "none of its 1 files is readable audio (a.wav: is not an audio file)"),
        ("nothing", [], "no such folder"),
    ],
)
def test_wrong_input_is_one_line(vae: Vae, tmp_path: Path, content: str, words: list[str], expected: str) -> None:
    root = tmp_path / "sounds"
    if content != "nothing":
        root.mkdir()
    path = root / ("a.txt" if content == "text" else "a.wav")
    if content in ("text", "junk"):
        path.write_text("no audio at all\n")
    elif content != "nothing":
        contents = {"tone": tone(0.1), "nan": np.full(9, np.nan), "empty": np.zeros(0)}
        write(path, contents[content], subtype="FLOAT")
    assert expected in rejected(vae, f"data.root={root}", *words)


def test_a_missing_package_is_one_line(vae: Vae, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sounds, 1)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    line = rejected(vae, f"data.root={sounds}")
    assert 'needs the package soundfile; pip install "vae_train[audio]"' in line
