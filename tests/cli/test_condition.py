"""Conditional models, from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vae_train
from tests.commandline import BRIEF, Vae


@pytest.fixture
def run(vae: Vae) -> Path:
    answer = vae.train("model.condition=label", "out=run")
    assert answer.code == 0, answer.err
    return Path("run")


def test_a_conditional_model_is_evaluated_and_sampled_by_label(vae: Vae, run: Path) -> None:
    assert vae("eval", "run=run", "k=10").code == 0
    answer = vae("sample", "run=run", "label=3", "num=4")
    assert answer.code == 0, answer.err
    assert (run / "samples" / "prior-seed0-num4-label3.png").exists()
    (line,) = vae("sample", "run=run", "label=10").errors()
    assert line.endswith("no such class; use 0 to 9")
    (line,) = vae("sample", "run=run", "label=cat").errors()
    assert line.endswith("no such class; use 0 to 9")
    (line,) = vae("sample", "run=run", "factors=[1]").errors()
    assert "this run's model has model.condition=label" in line


def test_a_label_for_a_model_without_one_is_refused(vae: Vae, trained: Path) -> None:
    (line,) = vae("sample", f"run={trained}", "label=3").errors()
    assert "has no condition; train one with model.condition=label" in line


def test_factors_of_shapes(vae: Vae) -> None:
    data = ("data=shapes", "data.size=8", "data.num_train=200", "data.num_valid=20", "data.num_test=20")
    answer = vae.train(*data, "model.condition=factors", "out=run")
    assert answer.code == 0, answer.err
    (line,) = vae("sample", "run=run", "factors=[1]").errors()
    assert "the data has 5 factors" in line
    assert vae("sample", "run=run", "factors=[1,0,2,3,4]", "num=2").code == 0


@pytest.mark.parametrize("data", ["folder", "arrays"])
def test_classes_found_at_run_time_outlive_the_place_of_the_data(vae: Vae, data: str) -> None:
    noise = np.random.default_rng(0)
    names, pixels = ["3", "1", "cat"], noise.integers(0, 256, (60, 8, 8), np.uint8)
    before, after = ("before", "after") if data == "folder" else ("before.npz", "after.npz")
    if data == "folder":
        for number, image in enumerate(pixels):
            folder = Path(before, names[number % 3])
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number}.png")
        place, settings = "data.root", ["data.size=8"]
    else:
        np.savez(before, x=pixels, y=np.array(names * 20))
        place, settings = "data.path", []
    tiny = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=2", "steps=2", "logger=none")
    answer = vae("train", *tiny, f"data={data}", f"{place}={before}", *settings, "model.condition=label", "out=run")
    assert answer.code == 0, answer.err
    Path(before).rename(after)
    model = vae_train.load("run")
    assert model.facts.factors[0].values == ("1", "3", "cat")
    assert torch.equal(model.sample(3, label="cat"), model.sample(3, label=torch.tensor([2] * 3)))
    for label, number in (("cat", 2), ("3", 1), ("1", 0), ("0", 0)):
        answer = vae("sample", "run=run", f"label={label}", "num=2", "npz=true", f"out={label}")
        assert answer.code == 0, answer.err
        assert answer.out.count("is the class of this name, number 0") == (label == "1")
        images = np.load(f"{label}/prior-seed0-num2-label{label}.npz")["images"]
        expected = model.sample(2, label=torch.tensor([number] * 2)).numpy()
        assert images.reshape(expected.shape) == pytest.approx(expected, abs=1e-6)
    (line,) = vae("eval", "run=run", *BRIEF).errors()
    assert f"if it moved, add {place}=" in line
    assert vae("eval", "run=run", *BRIEF, f"{place}={after}").code == 0
    assert vae("sample", "run=run", "show=traverse", f"{place}={after}", "label=cat", "split=train").code == 0


def test_plan_of_a_conditional_model(vae: Vae) -> None:
    answer = vae("train", "model.condition=label", "plan=true")
    assert answer.code == 0, answer.err
    assert "parameters" in answer.out
