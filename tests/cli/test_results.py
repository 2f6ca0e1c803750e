"""Results that have to hold, measured as a user would."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from tests.commandline import Vae


@pytest.mark.slow
def test_a_vamp_prior_is_no_worse_than_the_standard_one_on_digits(vae: Vae) -> None:
    """Mean over 3 seeds of -log p(x) of the test digits: at most 0.2 nats above the standard prior's."""
    common = (
        "data.binarize=dynamic",
        "model/likelihood=bernoulli",
        "epochs=100",
        "lr=1e-3",
        "batch_size=64",
        "logger=none",
    )
    common += ("model.encoder.hidden=[128,128]", "model.decoder.hidden=[128,128]", "latent_dim=10")
    found: dict[str, list[float]] = {}
    for prior in ("standard_normal", "vamp"):
        for seed in range(3):
            run = Path(f"{prior}-{seed}")
            answer = vae("train", *common, f"model/prior={prior}", f"seed={seed}", f"out={run}")
            assert answer.code == 0, answer.err
            answer = vae("eval", f"run={run}", "k=500", "latents=false")
            assert answer.code == 0, answer.err
            metrics = json.loads((run / "eval" / "test.json").read_text())
            found.setdefault(prior, []).append(metrics["nll"]["value"])
    means = {prior: statistics.mean(values) for prior, values in found.items()}
    assert means["vamp"] <= means["standard_normal"] + 0.2, found
