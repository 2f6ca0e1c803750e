"""Pixels of 10 to 16 bits and of two values, from the file to the image grids of a run whose data is gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vae_train
from tests.commandline import Vae
from tests.data.pictures import save


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def bright(bits: int, count: int = 40) -> np.ndarray:
    """(N, 8, 8) images, three quarters of whose range is used, from the middle on."""
    high = 2**bits - 1
    return np.random.default_rng(0).integers(high // 2, high, (count, 8, 8), endpoint=True)


def brightness(path: str | Path) -> float:
    """The mean of the pixels of a PNG on [0, 1], without the grey frame."""
    grey = np.asarray(Image.open(path).convert("L"))
    return float(grey[grey != 128].mean() / 255)


@pytest.mark.parametrize("bits", [12])
def test_arrays_of_more_than_8_bits_are_trained_on_and_shown_in_their_range(bits: int, vae: Vae) -> None:
    np.save("x.npy", bright(bits).astype(np.uint16))
    answer = vae("data", "data=arrays", "data.path=x.npy", "out=seen")
    assert answer.code == 0, answer.err
    assert f" · {2**bits} levels · " in answer.out
    assert answer.out.count("data.levels=") == 1
    assert brightness("seen/mean.png") == pytest.approx(0.75, abs=0.03)
    answer = vae.train("data=arrays", "data.path=x.npy", "out=run", "batch_size=8")
    assert answer.code == 0, answer.err
    assert json.loads(Path("run/facts.json").read_text())["levels"] == 2**bits
    assert "data.levels=" not in vae("eval", "run=run", "k=5", "latents=false").out  # the run says it
    Path("x.npy").unlink()
    samples = vae_train.load("run").sample(4)
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert vae("sample", "run=run", "num=4").code == 0
    drawn = brightness("run/samples/prior-seed0-num4.png")
    assert drawn == pytest.approx(samples.mean().item(), abs=0.03)
    assert brightness("run/samples/final.png") == pytest.approx(drawn, abs=0.1)


def test_a_training_on_16_bits_can_be_planned(vae: Vae) -> None:
    np.save("x.npy", bright(16).astype(np.uint16))
    answer = vae.train("data=arrays", "data.path=x.npy", "plan=true", "batch_size=8")
    assert answer.code == 0, answer.err
    assert "training images 8 KiB" in answer.out


def test_black_and_white_arrays_are_binary(vae: Vae) -> None:
    np.save("x.npy", 255 * (bright(8) > 190).astype(np.uint8))
    arguments = ("data=arrays", "data.path=x.npy", "out=run", "batch_size=8")
    (line,) = vae.train(*arguments).errors()
    assert "but the data is binary" in line
    assert "use model/likelihood=bernoulli" in line
    assert vae.train(*arguments, "model/likelihood=bernoulli").code == 0
    Path("x.npy").unlink()
    samples = vae_train.load("run").sample(4, use_mean=False)
    assert set(samples.unique().tolist()) <= {0.0, 1.0}
    assert torch.isfinite(vae_train.load("run").log_prob(samples)).all()


def test_folders_of_more_than_8_bits_are_trained_on_and_shown_in_their_range(vae: Vae) -> None:
    for number, image in enumerate(bright(12).astype(np.uint16)):
        save(Path(f"photos/{number:02d}.png"), image)
        save(Path(f"dim/{number:02d}.png"), image // 10)
    answer = vae.train("data=folder", "data.root=photos", "out=run", "batch_size=8")
    assert answer.code == 0, answer.err
    assert answer.out.count("are taken as 12 bits, 4,096 levels; otherwise set data.levels=") == 1
    assert json.loads(Path("run/facts.json").read_text())["levels"] == 4096
    answer = vae("train", "resume=run", "epochs=3")
    assert answer.code == 0, answer.err
    assert "data.levels=" not in answer.out
    np.save("bits.npy", (4000 * (bright(12) > 3000)).astype(np.uint16))
    for other in ("dim", "bits.npy"):  # in the run's levels and range, not those of their own pixels
        answer = vae("eval", "run=run", "k=5", "latents=false", f"ood={other}")
        assert answer.code == 0, answer.err
        assert "data.levels=" not in answer.out
    shutil.rmtree("photos")
    shutil.rmtree("home")
    samples = vae_train.load("run").sample(4)
    assert vae("sample", "run=run", "num=4").code == 0
    assert brightness("run/samples/prior-seed0-num4.png") == pytest.approx(samples.mean().item(), abs=0.03)


def test_black_and_white_files_are_binary(vae: Vae) -> None:
    for number, image in enumerate(bright(8) > 190):
        save(Path(f"photos/{number:02d}.png"), image)
    arguments = ("data=folder", "data.root=photos", "out=run", "batch_size=8")
    (line,) = vae.train(*arguments).errors()
    assert "but the data is binary" in line
    assert vae.train(*arguments, "model/likelihood=bernoulli").code == 0
    assert json.loads(Path("run/facts.json").read_text())["levels"] == 2
