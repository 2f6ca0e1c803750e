"""`vae fit-prior` with priors over codes, and what is then sampled from them and scored with them."""

from __future__ import annotations

import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.commandline import BRIEF, TINY, Vae
from vae_train import load
from vae_train.training.checkpoint import FORMAT
from vae_train.training.learner import Learner

SPATIAL = (
    *("data=digits", "model=conv_spatial", "model.encoder.channels=4", "latent_shape=[2,2,2]", "epochs=5"),
    *("model/posterior=fsq", "model.posterior.levels=3", "logger=none", "lr=1e-2", "batch_size=50"),
)
"""4 codes of 9 values each."""
SMALL = ("prior.steps=60", "prior.width=8", "prior.layers=1", "prior.batch_size=32")
AUTOREGRESSIVE = ("prior=autoregressive", *SMALL, "prior.heads=2")


@pytest.fixture(scope="module")
def _spatial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vae_train.cli.main import run

    folder = tmp_path_factory.mktemp("spatial")
    assert run(["train", *SPATIAL, f"out={folder}/made"]) == 0
    return folder / "made"


@pytest.fixture
def spatial(_spatial: Path, tmp_path: Path) -> Path:
    """A run with spatial codes, the test's own copy."""
    shutil.copytree(_spatial, tmp_path / "made")
    return Path("made")


def value(path: Path, name: str) -> float:
    return json.loads(path.read_text())[name]["value"]


@pytest.mark.parametrize("kind", ["autoregressive", pytest.param("pixelcnn", marks=pytest.mark.slow)])
def test_the_bound_improves_by_what_the_command_says(vae: Vae, spatial: Path, kind: str) -> None:
    assert vae("eval", "run=made", *BRIEF).code == 0
    answer = vae("fit-prior", "run=made", f"prior={kind}", *SMALL, *(["prior.heads=2"] * (kind == "autoregressive")))
    assert answer.code == 0, answer.err
    found = json.loads((spatial / f"priors/{kind}.json").read_text())
    assert found["own"]["value"] == pytest.approx(-4 * math.log(9))
    nats = -found["fitted"]["value"] / 4
    assert f"180 valid images is {nats:.3f} nats, {nats / math.log(2):.3f} bits per code" in answer.out
    assert f"{math.log(9):.3f} nats, {math.log2(9):.3f} bits for uniform codes" in answer.out
    assert found["fitted"]["value"] > found["frequency_table"]["value"] - 0.05
    assert f"the rate falls by {found['gain']['value']:.2f} ±" in answer.out

    answer = vae("eval", "run=made", f"prior={kind}", *BRIEF)
    assert answer.code == 0, answer.err
    own, fitted = spatial / "eval/test.json", spatial / f"eval/test-{kind}.json"
    saved = value(own, "rate") - value(fitted, "rate")
    assert saved > 0.1
    assert value(fitted, "rate_saved") == pytest.approx(saved, abs=1e-4)
    assert value(fitted, "rate") == pytest.approx(4 * value(fitted, "code_nats"), abs=1e-4)
    bits = value(own, "bits_per_dim") - value(fitted, "bits_per_dim")
    assert value(fitted, "bits_per_dim_saved") == pytest.approx(bits, abs=1e-5)
    assert value(fitted, "code_bits") < value(fitted, "code_bits_uniform")
    assert value(fitted, "distortion") == value(own, "distortion")


def test_samples_have_a_temperature_and_the_most_likely_codes(vae: Vae, spatial: Path) -> None:
    assert vae("fit-prior", "run=made", *AUTOREGRESSIVE).code == 0
    answer = vae("sample", "run=made", "prior=autoregressive", "num=4", "temperature=0.5", "top_k=2", "npz=true")
    assert answer.code == 0, answer.err
    assert (spatial / "samples/prior-seed0-num4-t0.5-top2-autoregressive.png").exists()
    model = load(spatial, prior="autoregressive")
    samples = model.sample(16, seed=1)
    assert torch.equal(model.sample(70, seed=1)[:16], samples)
    assert not torch.equal(model.sample(16, seed=1, top_k=1), samples)
    assert torch.equal(model.sample(16, seed=1, top_k=1), model.sample(16, seed=2, temperature=0.0))
    assert torch.equal(model.sample(16, seed=1), samples)
    x = torch.rand(3, 1, 8, 8)
    own = load(spatial).score(x)
    assert not torch.equal(model.score(x)["rate"], own["rate"])
    answer = vae("apply", "run=made", "prior=autoregressive", "task=score", "input=test", "num=3")
    assert answer.code == 0, answer.err


def test_an_interrupted_training_is_continued_and_a_finished_one_is_not_repeated(
    vae: Vae, spatial: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(spatial, "other")
    assert vae("fit-prior", "run=other", *AUTOREGRESSIVE).code == 0
    step, taken = Learner.step, [0]

    def counted(learner: Learner, inputs: Any) -> Any:
        taken[0] += 1
        if taken[0] == 20:
            signal.raise_signal(signal.SIGINT)
        return step(learner, inputs)

    monkeypatch.setattr(Learner, "step", counted)
    answer = vae("fit-prior", "run=made", *AUTOREGRESSIVE, "refit=true")
    assert answer.code == 128 + signal.SIGINT
    typed = f"vae fit-prior prior=autoregressive run=made {' '.join(AUTOREGRESSIVE[1:])}"
    assert answer.err.strip() == f"interrupted at step 20; checkpoint saved. Continue with: {typed}"
    assert "has no fitted prior" in vae("sample", "run=made", "prior=autoregressive").err

    (line,) = vae("fit-prior", "run=made", *AUTOREGRESSIVE, "prior.lr=0.5", "seed=3").errors()
    assert "a training with prior.lr=0.001 seed=0 was interrupted after step 20; type that to continue it" in line
    answer = vae("fit-prior", "run=made", *AUTOREGRESSIVE)
    assert answer.code == 0, answer.err
    assert "continuing after step 20" in answer.out
    once, again = (torch.load(f"{run}/priors/autoregressive.pt", weights_only=True) for run in ("other", "made"))
    for name, weight in once["weights"].items():
        assert torch.equal(weight, again["weights"][name]), name
    assert sorted(path.name for path in (spatial / "priors").iterdir()) == ["autoregressive.json", "autoregressive.pt"]

    taken[0] = 100
    answer = vae("fit-prior", "run=made", *AUTOREGRESSIVE)
    assert "already fitted with these settings; refit=true fits it again" in answer.out
    assert "bits per code" in answer.out
    assert taken[0] == 100
    assert vae("fit-prior", "run=made", *AUTOREGRESSIVE, "refit=true").code == 0
    assert taken[0] == 160


def test_a_damaged_training_is_reported(vae: Vae, spatial: Path) -> None:
    path = spatial / "priors/autoregressive.unfinished.pt"
    settings = {"settings": {}, "seed": 0, "fingerprint": "", "progress": {"step": 3}, "format": FORMAT}
    path.parent.mkdir()
    path.write_bytes(b"nothing")
    answer = vae("fit-prior", "run=made", *AUTOREGRESSIVE)
    assert answer.code == 0, answer.err
    assert "training the prior anew" in answer.out + answer.err
    state = torch.load(spatial / "priors/autoregressive.pt", weights_only=True)
    torch.save(settings | {name: state[name] for name in ("settings", "fingerprint")}, path)
    answer = vae("fit-prior", "run=made", *AUTOREGRESSIVE, "prior.lr=1e-4")
    assert answer.code == 2
    torch.save(torch.load(path, weights_only=True) | {"settings": state["settings"] | {"steps": None}}, path)
    (line,) = vae("fit-prior", "run=made", *AUTOREGRESSIVE).errors()
    assert "a training with prior.steps=null was interrupted after step 3" in line
    torch.save(settings | {name: state[name] for name in ("settings", "fingerprint")}, path)
    (spatial / "priors/autoregressive.pt").unlink()
    answer = vae("fit-prior", "run=made", *AUTOREGRESSIVE)
    assert answer.code == 1
    assert "the interrupted training cannot be continued" in answer.err
    assert "refit=true starts anew" in answer.err


def test_categories_are_codes(vae: Vae) -> None:
    small = (word.replace("latent_dim=2", "latent_dim=10") for word in TINY)
    assert vae("train", *small, "model/posterior=categorical", "model/prior=categorical", "out=run").code == 0
    answer = vae("fit-prior", "run=run", *AUTOREGRESSIVE)
    assert answer.code == 0, answer.err
    answer = vae("eval", "run=run", "prior=autoregressive", *BRIEF)
    assert answer.code == 0, answer.err
    assert "cross-entropy of the codes, bits/code" in answer.out
    assert vae("sample", "run=run", "prior=autoregressive", "num=2", "top_k=2").code == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["prior=gmm"], "model/posterior=fsq, but this prior is a density of vectors in R^D; use prior=autoregressive"),
        (["prior=autoregressive", "prior.heads=3"], "width must be a multiple of heads=3"),
        (["prior=pixelcnn", "prior.kernel=2"], "kernel must be odd"),
        (["prior=autoregressive", "prior.warmup=1"], "must be in [0, 1)"),
    ],
)
def test_what_makes_no_sense_is_refused(vae: Vae, spatial: Path, arguments: list[str], why: str) -> None:
    (line,) = vae("fit-prior", "run=made", *arguments).errors()
    assert why in line


def test_latents_that_are_no_codes_are_refused(vae: Vae, trained: Path) -> None:
    (line,) = vae("fit-prior", "run=made", "prior=autoregressive").errors()
    assert "model/posterior=gaussian, but this prior is a distribution of codes; use prior=gmm" in line
    (line,) = vae("sample", "run=made", "top_k=2").errors()
    assert "needs latents that are codes" in line
    with pytest.raises(ValueError, match="top_k needs a fitted prior over codes"):
        load(trained).sample(2, top_k=3)


def test_top_k_needs_a_fitted_prior(vae: Vae, spatial: Path) -> None:
    (line,) = vae("sample", "run=made", "top_k=2").errors()
    assert "vae fit-prior run=made prior=autoregressive, then add prior=autoregressive" in line


def test_a_temperature_needs_a_prior_that_has_one(vae: Vae, spatial: Path) -> None:
    assert vae("sample", "run=made", "temperature=0.5").errors() == [
        "  temperature=0.5  has no effect with model/prior=uniform_codes; fit a prior with vae fit-prior run=made "
        "prior=autoregressive, then add prior=autoregressive"
    ]
    assert vae("sample", "run=made", "temperature=1", "num=2").code == 0
