"""The presets of first stages at small sizes: they are planned, trained and evaluated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import Vae

THREE = ("model.encoder.channels=[4,8,8]", "data.size=16")
FOUR = ("model.encoder.channels=[4,8,8,8]", "latent_shape=[4,2,2]", "data.size=16", "model.decoder.blocks=1")
PRESETS = {
    "kl_f8": (*FOUR, "model.encoder.blocks=1", "objective.start_step=2", "steps=4"),
    "vqgan_f8": (*FOUR, "model.encoder.blocks=1", "objective.start_step=2", "steps=4", "model.posterior.num_codes=16"),
    "first_stage_small": (*THREE, "latent_shape=[4,4,4]", "objective.start_step=2", "steps=4"),
    "vae_gan_resnet": (*THREE, "latent_shape=[8,2,2]", "model.decoder.blocks=[1,3]", "objective.start=0.5", "epochs=1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_planned_and_trained(vae: Vae, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("photos").mkdir()
    for number in range(40):
        Image.fromarray(noise.integers(0, 256, (16, 16, 3), np.uint8)).save(f"photos/{number}.png")
    words = (f"experiment={name}", "data.root=photos", "batch_size=8", "objective.channels=4", "logger=none")
    plan = vae("train", *words, *PRESETS[name], "plan=true")
    assert plan.code == 0, plan.err
    assert "parameters" in plan.out
    run = vae("train", *words, *PRESETS[name], "out=run")
    assert run.code == 0, run.err
    assert "balance" in Path("run/metrics.csv").read_text().splitlines()[0]
    assert vae("apply", "run=run", "input=photos", "num=2").code == 0
