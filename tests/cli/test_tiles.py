"""`vae apply task=reconstruct tile=`: images of any size by a fully convolutional model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import Vae
from vae_train import load

WORDS = ("model.encoder.channels=4", "model/likelihood=laplace", "logger=none", "steps=20", "batch_size=8")


def smooth(height: int, width: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def run(vae: Vae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("photos").mkdir()
    for number in range(20):
        smooth(16, 16).rotate(18 * number).save(f"photos/{number}.png")
    source = ("data=folder", "data.root=photos", "data.size=16", "model=conv_spatial", "latent_shape=[4,8,8]")
    assert vae("train", *source, *WORDS, "out=run").code == 0
    return "run=run"


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def test_images_keep_their_size_and_have_no_seams(vae: Vae, run: str) -> None:
    Path("large").mkdir()
    for name, size in (("wide", (40, 70)), ("small", (9, 30)), ("tile", (16, 16))):
        smooth(*size).save(f"large/{name}.png")
    Path("large/broken.png").write_bytes(b"no image")
    answer = vae("apply", run, "input=large", "tile=auto", "out=results")
    assert answer.code == 0, answer.err
    assert "tiles of 16x16 pixels overlap by 4" in answer.out
    assert "broken.png" in answer.out + answer.err
    assert pixels("results/reconstructions/wide.png").shape == (40, 70, 3)
    assert pixels("results/reconstructions/small.png").shape == (9, 30, 3)
    model = load("run")
    expected = model.reconstruct(pixels("large/tile.png")[None].astype(np.uint8))[0].permute(1, 2, 0)
    assert np.abs(pixels("results/reconstructions/tile.png") - 255 * expected.numpy()).max() <= 0.51
    assert json.loads(Path("results/apply.json").read_text())["settings"] == {"tile": "auto", "overlap": None}


def test_larger_tiles_agree_with_smaller_ones(vae: Vae, run: str) -> None:
    """A model without normalisation does the same in tiles of any size, if they overlap enough."""
    smooth(64, 64).save("a.png")
    for tile, overlap in ((32, 16), (64, 0)):
        assert vae("apply", run, "input=a.png", f"tile={tile}", f"overlap={overlap}", f"out=in-{tile}").code == 0
    few, one = (pixels(f"in-{tile}/reconstructions/a.png") for tile in (32, 64))
    assert np.abs(few - one)[:40, :40].max() <= 4
    assert vae("apply", run, "input=a.png", "out=scaled").code == 0
    assert pixels("scaled/reconstructions/a.png").shape == (16, 16, 3)


def test_what_tiles_do_not_fit_is_one_line(vae: Vae, run: str, trained: Path) -> None:
    smooth(40, 40).save("a.png")

    def refusal(*words: str) -> str:
        (line,) = vae("apply", "input=a.png", *words).errors()
        return line

    assert "needs a fully convolutional model" in refusal(f"run={trained}", "tile=auto")
    assert "use tile=null, which scales images to 8x8" in refusal(f"run={trained}", "tile=auto")
    assert "must be a multiple of 2; use tile=16" in refusal(run, "tile=17")
    assert "exceeds half of a tile" in refusal(run, "tile=16", "overlap=9")
    assert "has no effect without tile" in refusal(run, "overlap=4")
    (line,) = vae("apply", run, "input=test", "tile=auto").errors()
    assert "needs a model of images, and image files" in line
    source = ("data=folder", "data.root=photos", "data.size=16", *WORDS[1:])
    vectors = ("latent_dim=4", "model.encoder.channels=[4]")
    for words in (("model=conv", *vectors), ("model=resnet", *vectors), ("model=lvae",)):
        assert vae("train", *source, *words, f"out={words[0]}").code == 0
        assert "needs a fully convolutional model" in refusal(f"run={words[0]}", "tile=auto")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_image_but_for_its_pixels(vae: Vae, run: str) -> None:
    def peak(side: int) -> int:
        smooth(side, side).save("a.png")
        words = ["apply", run, "input=a.png", "tile=auto", f"out=of-{side}", "threads=1"]
        code = f"import sys; from vae_train.cli.main import run; code = run({words!r}); import resource; "
        code += "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        return int(out.rpartition("PEAK ")[2])

    small, large = peak(512), peak(2048)
    numbers = 3 * (2048**2 - 512**2)
    assert large - small < 30 * numbers / 1024, "a few copies of the image as float32, in KiB"
