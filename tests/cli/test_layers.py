"""What commands make of a model with several layers of latents."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vae_train
from tests.commandline import Vae

LADDER = ("model=lvae", "model.latents=[5,3,2]", "model.hidden=[16,8,8]", "batch_size=64", "logger=none")
BINARY = ("data.binarize=dynamic", "model/likelihood=bernoulli")


@pytest.fixture(scope="module")
def _ladder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vae_train.cli.main import run

    folder = tmp_path_factory.mktemp("ladder")
    assert run(["train", *LADDER, *BINARY, "steps=20", f"out={folder}/made"]) == 0
    return folder / "made"


@pytest.fixture
def ladder(_ladder: Path, tmp_path: Path) -> Path:
    """A run of a model with three layers, the test's own copy."""
    shutil.copytree(_ladder, tmp_path / "made")
    return Path("made")


def test_training_says_which_layers_are_used(vae: Vae) -> None:
    answer = vae("train", *LADDER, *BINARY, "steps=100", "out=other", "beta=1000", "lr=0.01")
    assert answer.code == 0, answer.err
    assert " of 3 layers used" in answer.out
    assert "layers carries information" in answer.out or "counted from the topmost" in answer.out
    assert "lower beta (it was 1000)" in answer.out
    assert Path("other/samples/layers.png").exists()


def test_an_evaluation_has_the_rate_of_every_layer(vae: Vae, ladder: Path) -> None:
    answer = vae("eval", f"run={ladder}", "k=5")
    assert answer.code == 0, answer.err
    assert "rate of layer 1 of 3, topmost, nats" in answer.out
    found = json.loads((ladder / "eval/test.json").read_text())
    rates = [found[f"rate_{number}"]["value"] for number in (1, 2, 3)]
    assert sum(rates) == pytest.approx(found["rate"]["value"], abs=1e-4)
    assert "rate_4" not in found
    assert "test-layers.png" in found["plots"]
    assert any("layer" in warning for warning in found["warnings"]) == (min(rates) < 0.1)
    assert found["unavailable"]["active_units"] == "needs a single latent; this model has 3 layers of latents"
    page = (ladder / "eval/test.md").read_text()
    assert "| rate of layer 3 of 3, nats |" in page
    assert "active latent dimensions" in page

    assert vae("report", f"run={ladder}").code == 0
    page = (ladder / "report.html").read_text()
    assert "Layers of latents" in page
    assert "Samples of the topmost layers of latents" in page
    assert "rate of layer 1 of 3" in page


def test_samples_have_a_temperature_per_layer(vae: Vae, ladder: Path) -> None:
    answer = vae("sample", f"run={ladder}", "temperature=[1,0.8,0]", "show=prior,layers", "num=4")
    assert answer.code == 0, answer.err
    assert {path.name for path in (ladder / "samples").glob("*-t*.png")} == {
        *("prior-seed0-num4-t1-0.8-0.png", "layers-seed0-num4-t1-0.8-0.png"),
    }
    assert vae("sample", f"run={ladder}", "temperature=[1,1]", "show=prior,layers").errors() == [
        "  temperature=[1, 1]  has 2 values, but this model has 3 layers of latents; give a number, or a list with one "
        "for each, the topmost first"
    ]
    (line,) = vae("sample", f"run={ladder}", "temperature=[1,-1,1]").errors()
    assert line.endswith("must be at least 0")


def test_a_model_with_one_layer_has_one_temperature(vae: Vae, trained: Path) -> None:
    assert vae("sample", f"run={trained}", "temperature=[0.5]", "num=4").code == 0
    (line,) = vae("sample", f"run={trained}", "temperature=[0.5,1]").errors()
    assert "has 2 values, but this model has 1 layer of latents" in line
    (line,) = vae("sample", f"run={trained}", "show=layers").errors()
    assert line == "  show=layers  needs several layers of latents; this model has one"


def test_plots_of_all_layers_and_of_a_single_one(vae: Vae, ladder: Path) -> None:
    answer = vae("sample", f"run={ladder}", "show=interpolate,neighbours,extremes", "num=2", "out=grids")
    assert answer.code == 0, answer.err
    assert (Path("grids") / "interpolate-seed0-num2.gif").exists()
    lines = vae("sample", f"run={ladder}", "show=traverse,manifold").errors()
    assert lines == [
        f"  show={name}  needs latents in R^D; this model has 3 layers of latents" for name in ("traverse", "manifold")
    ]


def test_latents_of_all_layers_as_a_file_and_back(vae: Vae, ladder: Path) -> None:
    source = (f"run={ladder}", "input=test", "num=6")
    answer = vae("apply", *source, "task=encode", "sample=true", "out=encoded")
    assert answer.code == 0, answer.err
    assert "latents 2, 3, 5" in answer.out
    with np.load("encoded/latents.npz") as arrays:
        shapes = {name: arrays[name].shape for name in arrays.files if name.startswith(("mean", "std", "sample"))}
    assert shapes == {
        f"{kind}_{n}": (6, size) for kind in ("mean", "std", "sample") for n, size in ((1, 2), (2, 3), (3, 5))
    }
    head = Path("encoded/latents.csv").read_text().splitlines()[0].split(",")
    assert head[:4] == ["file", "label", "mean_1_0", "mean_1_1"]

    assert vae("apply", f"run={ladder}", "input=encoded/latents.npz", "task=decode", "out=decoded").code == 0
    assert vae("apply", *source, "task=reconstruct", "out=rebuilt").code == 0
    decoded, rebuilt = (sorted(Path(name).glob("*/*.png")) for name in ("decoded", "rebuilt"))
    assert [path.read_bytes() for path in decoded] == [path.read_bytes() for path in rebuilt]
    assert vae("apply", f"run={ladder}", "input=encoded/latents.npz", "task=decode", "key=sample").code == 0
    (line,) = vae("apply", f"run={ladder}", "input=encoded/latents.npz", "task=decode", "key=mode").errors()
    assert "no array mode_1; the file has mean_1, std_1" in line


def test_tasks_that_use_all_layers(vae: Vae, ladder: Path) -> None:
    source = (f"run={ladder}", "input=test", "num=4")
    for task in ("denoise", "interpolate", "score"):
        answer = vae("apply", *source, f"task={task}", f"out={task}")
        assert answer.code == 0, answer.err
    with Path("score/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert sum(float(row[f"rate_{n}"]) for n in (1, 2, 3)) == pytest.approx(float(row["rate"]), abs=1e-3)


def test_exported_programs_take_and_return_all_layers(vae: Vae, ladder: Path) -> None:
    answer = vae("export", f"run={ladder}", "format=pt2", "out=exported")
    assert answer.code == 0, answer.err
    card = Path("exported/README.md").read_text()
    assert "reconstruction = decoder(mean_1, mean_2, mean_3)[0]" in card
    model = vae_train.load(ladder)
    os.chdir("exported")
    found: dict[str, Any] = {"image": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}
    exec(card.split("```python\n")[1].split("```")[0], found)
    expected = model.encode(found["image"])
    for n, layer in enumerate(expected, 1):
        assert torch.allclose(found[f"mean_{n}"], layer.mean, atol=1e-5)
    assert torch.allclose(found["reconstruction"], model.decode(expected.mean), atol=1e-5)


def test_what_needs_a_single_latent_is_refused(vae: Vae, ladder: Path) -> None:
    (line,) = vae("apply", f"run={ladder}", "input=test", "task=inpaint", "mask=left").errors()
    assert line == "  task=inpaint  needs a single latent; this model has 3 layers of latents"
    (line,) = vae("fit-prior", f"run={ladder}").errors()
    assert line.endswith(
        "several layers of latents with learned priors, but a prior can only be fitted to a single latent"
    )


def test_a_plan_of_a_model_with_several_layers(vae: Vae) -> None:
    answer = vae("train", *LADDER, *BINARY, "steps=20", "plan=true")
    assert answer.code == 0, answer.err
    assert "decoder" in answer.out
    assert "time            about" in answer.out
