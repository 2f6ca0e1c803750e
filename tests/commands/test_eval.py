"""`vae eval`: every figure with its uncertainty, why others are missing, many runs at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import TINY, Vae


def figures(run: Path | str, split: str = "test") -> dict:
    return json.loads((Path(run) / "eval" / f"{split}.json").read_text())


def test_every_figure_has_its_uncertainty_and_what_it_was_measured_on(vae: Vae, trained: Path) -> None:
    answer = vae("eval", f"run={trained}", "k=200")
    assert answer.code == 0, answer.err
    found = figures(trained)
    for name in ("elbo", "rate", "distortion", "bits_per_dim", "gap", "nll", "nll_bits_per_dim"):
        assert set(found[name]) >= {"value", "se", "count"}, name
        assert found[name]["se"] > 0
    assert found["nll"]["draws"] == 200
    assert found["nll"]["count"] == 360
    assert found["nll"]["value"] <= -found["elbo"]["value"] + 3 * found["elbo"]["se"]
    assert found["nll_bits_per_dim"]["value"] == pytest.approx(found["nll"]["value"] / 64 / np.log(2))
    assert [point["draws"] for point in found["nll_curve"]] == [1, 10, 100, 200]
    assert "200 draws of z for each of 360 images, about" in answer.out
    assert "360 images, K = 200" in answer.out
    assert "binary pixels, drawn" in answer.out


def test_the_table_has_every_figure_and_why_others_are_missing(vae: Vae, trained: Path) -> None:
    vae("eval", f"run={trained}", "k=0")
    text = (trained / "eval/test.md").read_text()
    assert "| -log p(x), importance-weighted, nats | – | k=0 asks for none |" in text
    assert f"| ELBO (beta = 1), nats | {figures(trained)['elbo']['value']:.2f} ± " in text
    assert figures(trained)["nll"] is None
    assert figures(trained)["why"]["nll"] == "k=0 asks for none"
    for name in figures(trained)["pictures"]:
        assert f"![]({name})" in text
        assert np.array(Image.open(trained / "eval" / name)).std() > 1


def test_the_training_split_has_no_gap_to_itself(vae: Vae, trained: Path) -> None:
    assert vae("eval", f"run={trained}", "k=1", "split=train").code == 0
    assert figures(trained, "train")["gap"] is None
    assert "this is the training split" in figures(trained, "train")["why"]["gap"]


def test_grey_targets_have_no_bits(vae: Vae) -> None:
    vae.train("data.binarize=none", "model.likelihood.grey_targets=true", "out=run")
    vae("eval", "run=run", "k=10")
    assert figures("run")["bits_per_dim"] is figures("run")["nll_bits_per_dim"] is None
    assert figures("run")["nll"]["value"] > 0
    assert "**grey targets: not a likelihood**" in Path("run/eval/test.md").read_text()


def test_auto_chooses_by_the_time(vae: Vae, trained: Path) -> None:
    vae("eval", f"run={trained}", "minutes=1e-6")
    assert figures(trained)["nll"]["draws"] == 100


@pytest.mark.parametrize("k", ["-1", "half", "1.5"])
def test_a_number_of_draws_is_checked(vae: Vae, trained: Path, k: str) -> None:
    (line,) = vae("eval", f"run={trained}", f"k={k}").mistakes()
    assert "auto" in line or "at least 0" in line


def test_the_batch_size_changes_rounding_only(vae: Vae, trained: Path) -> None:
    found = []
    for size in (512, 33):
        vae("eval", f"run={trained}", f"batch_size={size}", "k=20")
        found.append(figures(trained))
    for name in ("elbo", "nll", "gap", "mutual_information", "total_correlation"):
        assert found[0][name]["value"] == pytest.approx(found[1][name]["value"], abs=1e-3)


def test_a_folder_of_runs_is_scored_as_a_table(vae: Vae) -> None:
    vae("train", "-m", *TINY, "beta=1,50", "sweep=s")
    answer = vae("eval", "run=outputs/sweeps/s", "k=10", "latents=false")
    assert answer.code == 0, answer.err
    assert "| run | ELBO (beta = 1), nats |" in answer.out
    rows = [line for line in answer.out.splitlines() if line.startswith("| outputs/sweeps/s/")]
    assert len(rows) == 2
    assert figures("outputs/sweeps/s/0")["nll"]["draws"] == figures("outputs/sweeps/s/1")["nll"]["draws"] == 10
    (line,) = vae("eval", "run=nowhere").mistakes()
    assert "no run at nowhere" in line


def test_a_model_that_was_collapsed_is_told_so_and_a_healthy_one_is_not(vae: Vae) -> None:
    healthy = ("latent_dim=4", "epochs=25", "model.encoder.hidden=[64]", "model.decoder.hidden=[64]", "logger=none")
    for name, words in (("healthy", ["lr=3e-3"]), ("collapsed", ["beta=100"])):
        assert vae("train", *healthy, *words, f"out={name}").code == 0
        vae("eval", f"run={name}", "k=10")
    assert figures("healthy")["diagnosis"] is None
    assert figures("healthy")["active_units"]["value"] >= 3
    assert "none of 4 units is active" in figures("collapsed")["diagnosis"]
    assert "lower beta (it was 100)" in figures("collapsed")["diagnosis"]
    assert figures("collapsed")["active_units"]["value"] == 0
    assert figures("collapsed")["mutual_information"]["value"] == pytest.approx(0, abs=0.05)
