from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import BRIEF, Vae, rows


def test_eval_writes_what_it_prints(vae: Vae, trained: Path) -> None:
    answer = vae("eval", f"run={trained}")
    metrics = json.loads((trained / "eval" / "test.json").read_text())
    assert f"{metrics['elbo']['value']:.2f} ± {metrics['elbo']['se']:.2f}" in answer.out
    for name in ("elbo", "rate", "distortion", "bits_per_dim"):
        assert set(metrics[name]) == {"value", "se", "n", "seed", "date"}
        assert metrics[name]["n"] == 360
    assert metrics["elbo"]["value"] == pytest.approx(-metrics["rate"]["value"] - metrics["distortion"]["value"])


def test_eval_of_valid_agrees_with_training(vae: Vae, trained: Path) -> None:
    vae("eval", f"run={trained}", "split=valid", "num_samples=20", *BRIEF)
    metrics = json.loads((trained / "eval" / "valid.json").read_text())
    best = max(row["elbo"] for row in rows(trained) if row["split"] == "valid")
    assert metrics["elbo"]["value"] == pytest.approx(best, abs=0.3)


def test_beta_does_not_change_what_is_reported(vae: Vae) -> None:
    vae.train("beta=10", "out=run")
    for row in rows(Path("run")):
        assert row["elbo"] == pytest.approx(-row["distortion"] - row["rate"], rel=1e-5)
        assert row["loss"] == pytest.approx(row["distortion"] + 10 * row["rate"], rel=1e-5)


def test_a_split_that_does_not_exist_is_refused(vae: Vae, trained: Path) -> None:
    (line,) = vae("eval", f"run={trained}", "split=tset").errors()
    assert "must be one of train, valid, test" in line


def test_run_can_be_named_in_three_ways(vae: Vae) -> None:
    vae.train("name=first")
    vae.train("name=second")
    (second,) = Path("outputs").glob("*/*-second")
    for name in (str(second), "last", "-second"):
        assert f"{second}" in vae("eval", f"run={name}", *BRIEF).out
    Path("empty").mkdir()
    (line,) = vae("eval", "run=empty").errors()
    assert "no run at empty" in line
    (line,) = vae("eval", f"run={second},{second}").errors()
    assert line.endswith(f"is several runs; type run=[{second},{second}]")
    (line,) = vae("eval", "run=20").errors()
    assert "is ambiguous: matches" in line


def test_sample_writes_grid_single_images_and_array(vae: Vae, trained: Path) -> None:
    answer = vae("sample", f"run={trained}", "num=10", "columns=5", "save_each=true", "npz=true", "out=there/images")
    assert answer.code == 0, answer.err
    assert pixels("there/images/prior-seed0-num10-columns5.png").shape[1::-1] == (5 * 58 + 2, 2 * 58 + 2)
    singles = sorted(Path("there/images/prior-seed0-num10-columns5").glob("*.png"))
    array = np.load("there/images/prior-seed0-num10-columns5.npz")["images"]
    assert len(singles) == 10
    assert array.shape == (10, 8, 8, 1)
    assert np.abs(pixels(singles[3])[:, :, 0] / 255 - array[3, :, :, 0]).max() < 1 / 200


def pixels(path: Path | str) -> np.ndarray:
    """(H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_samples_are_a_function_of_the_seed(vae: Vae, trained: Path) -> None:
    for seed, out in ((1, "a"), (1, "b"), (2, "c")):
        vae("sample", f"run={trained}", "num=5", "npz=true", f"seed={seed}", f"out={out}")
    a, b, c = (np.load(f"{out}/prior-seed{seed}-num5.npz")["images"] for seed, out in ((1, "a"), (1, "b"), (2, "c")))
    assert (a == b).all()
    assert (a != c).any()


def test_temperature_zero_gives_one_image(vae: Vae, trained: Path) -> None:
    vae("sample", f"run={trained}", "num=4", "npz=true", "temperature=0", "out=cold")
    images = np.load("cold/prior-seed0-num4-t0.npz")["images"]
    assert np.abs(images - images[0]).max() < 1e-6


def test_pixels_can_be_sampled(vae: Vae, trained: Path) -> None:
    vae("sample", f"run={trained}", "num=4", "npz=true", "use_mean=false", "out=bits")
    assert set(np.unique(np.load("bits/prior-seed0-num4-pixels.npz")["images"])) <= {level / 16 for level in range(17)}


def test_manifold_wants_two_latents(vae: Vae, trained: Path) -> None:
    assert vae("sample", f"run={trained}", "show=manifold", "out=plane").code == 0
    assert Path("plane/manifold.png").exists()
    vae("train", "epochs=1", "latent_dim=3", "out=three")
    (line,) = vae("sample", "run=three", "show=manifold").errors()
    assert "two latents" in line


def test_reproduce_says_identical(vae: Vae, trained: Path) -> None:
    answer = vae("reproduce", f"run={trained}", "out=again")
    assert answer.code == 0, answer.err
    assert "identical" in answer.out
    assert rows(Path("again")) == rows(trained)


def test_reproduce_fails_where_metrics_differ(vae: Vae, trained: Path) -> None:
    path = trained / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["elbo"] += 5.0
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = vae("reproduce", f"run={trained}", "out=again")
    assert answer.code == 1
    assert "differs by 5" in answer.err
    assert "reproduced" in vae("reproduce", f"run={trained}", "out=third", "tolerance=6").out
