"""`objective=first_stage` on the command line: weights of LPIPS from files, and what the log says without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.commandline import Vae
from tests.objective.test_first_stage import heads, vgg_state
from vae_train import load

WORDS = ("data=folder", "data.root=photos", "data.size=16", "model=conv_spatial", "latent_shape=[2,4,4]", "logger=none")
WORDS += ("model.encoder.channels=4", "objective=first_stage", "objective.channels=4", "steps=2", "batch_size=4")


@pytest.fixture(autouse=True)
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(20):
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_log_says_once_that_the_distance_is_not_lpips(vae: Vae) -> None:
    answer = vae("train", *WORDS, "out=run")
    assert answer.code == 0
    assert answer.out.count("not LPIPS") == 1


@pytest.mark.slow
def test_a_run_records_the_weights_of_lpips_and_resumes_with_the_same_only(vae: Vae) -> None:
    torch.save(vgg_state() | heads(), "lpips.pth")
    answer = vae("train", *WORDS, "objective.perceptual.weights=lpips.pth", "out=run")
    assert answer.code == 0
    assert "not LPIPS" not in answer.out
    perceptual = OmegaConf.load("run/config.yaml").objective.perceptual
    assert len(perceptual.sha256) == 64
    assert perceptual.weights == [str(Path("lpips.pth").absolute())]
    Path("lpips.pth").rename("moved.pth")
    (line,) = vae("train", "resume=run", "steps=3").errors()
    assert "lpips.pth: no such file" in line
    assert vae("sample", "run=run").code == 0, "only training needs the weights"
    torch.save(vgg_state() | heads(seed=1), "lpips.pth")
    (line,) = vae("train", "resume=run", "steps=3").errors()
    assert "restore the files of this run" in line
    config = Path("run/config.yaml")
    config.write_text(config.read_text().replace("lpips.pth", "moved.pth"))
    answer = vae("train", "resume=run", "steps=3")
    assert answer.code == 0
    assert "config.yaml" not in answer.err, "the place of the weights is no part of what is computed"


def test_a_missing_file_is_one_line(vae: Vae) -> None:
    (line,) = vae("train", *WORDS, "objective.perceptual.weights=absent.pth", "out=run").errors()
    assert line.strip().startswith("objective.perceptual")
    assert "absent.pth: no such file" in line
    assert not Path("run").exists()


def test_a_decoder_is_fine_tuned_behind_a_frozen_encoder(vae: Vae) -> None:
    phases = ("objective.weight=0",), ("objective.start_step=0", "init_from=first", "freeze=encoder", "learner.ema=0.9")
    assert vae("train", *WORDS, *phases[0], "out=first").code == 0
    assert "frozen" in vae("train", *WORDS, *phases[1], "plan=true").out
    assert vae("train", *WORDS, *phases[1], "out=second").code == 0
    assert vae("train", "resume=second", "steps=4").code == 0
    first, second = (load(run).model.state_dict() for run in ("first", "second"))
    kept = {name for name, value in first.items() if torch.equal(value, second[name])}
    assert kept == {name for name in first if name.startswith("encoder.")}


def test_a_part_that_cannot_be_frozen_is_one_line(vae: Vae) -> None:
    (line,) = vae("train", *WORDS, "freeze=encoder", "out=run").errors()
    assert line.split(None, 1) == ["freeze=encoder", "would keep a random encoder; add init_from=<run>"]
    (line,) = vae("train", *WORDS, "freeze=encoders", "out=run").errors()
    assert "must be one of encoder, decoder" in line
    assert not Path("run").exists()
