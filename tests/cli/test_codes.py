"""Models whose z consists of codes, in every command."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commandline import Vae
from vae_train import load

SMALL = ("steps=6", "batch_size=64", "logger=none", "trainer.eval_batch_size=500")
DENSE = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]")
MAPS = ("model=conv_spatial", "latent_shape=[4,4,4]", "model.encoder.channels=4")
FEW = ("model.posterior.num_codes=12",)


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vae_train.cli.main import run

    folder = tmp_path_factory.mktemp("codes")
    assert run(["train", *SMALL, *MAPS, *FEW, "model/posterior=vq", f"out={folder}/run"]) == 0
    return folder / "run"


CONV = ("model=conv", "model.encoder.channels=4", "latent_dim=4")


@pytest.mark.parametrize(
    ("posterior", "network"), [("vq", DENSE), ("vq", CONV), ("vq", MAPS), ("rvq", MAPS), ("fsq", MAPS)]
)
def test_a_posterior_on_codes_chooses_its_prior(vae: Vae, posterior: str, network: tuple[str, ...]) -> None:
    few = () if posterior == "fsq" else FEW
    answer = vae("train", *SMALL, *network, *few, f"model/posterior={posterior}", "out=run")
    assert answer.code == 0, answer.err
    assert "codes used, perplexity" in answer.out
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    (epoch,) = (row for row in rows if (row["split"], row["scope"]) == ("train", "epoch"))
    assert epoch["codes_used"] >= 1
    assert epoch["code_perplexity"] >= 1
    codes, columns = {"vq": (12, 1), "rvq": (12, 4), "fsq": (4**4, 1)}[posterior]
    places = 16 if network == MAPS else 1
    valid = next(row for row in rows if row["split"] == "valid")
    assert valid["rate"] == pytest.approx(places * columns * math.log(codes), rel=1e-5)
    assert valid["elbo"] == pytest.approx(-valid["rate"] - valid["distortion"], rel=1e-6)
    assert "codes_used" not in valid


@pytest.mark.parametrize(
    ("posterior", "prior"), [("categorical", "categorical"), ("von_mises_fisher", "uniform_sphere"), ("joint", "joint")]
)
def test_other_posteriors_choose_their_prior_too(vae: Vae, posterior: str, prior: str) -> None:
    answer = vae("train", *SMALL, *DENSE, f"model/posterior={posterior}", "latent_dim=10", "out=run")
    assert answer.code == 0, answer.err
    assert f"vae_train.model.prior.{prior}." in Path("run/config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model/prior=vamp"], "the posterior has support codes; use model/prior=uniform_codes"),
        (["beta=4"], "weights the rate by beta=4, but the rate of a point mass on codes has no gradient; use beta=1"),
        (["objective/beta_schedule=linear"], "weights the rate by a schedule"),
        (["objective=free_bits"], "bounds the rate by free bits"),
        (["objective=capacity"], "bounds the rate by a capacity"),
        (["objective=geco"], "weighs the rate against the distortion"),
        (["objective.num_samples=5"], "are all equal; use objective.num_samples=1"),
        (["objective=iwae"], "averages importance weights"),
        (["objective=wae_mmd"], "matches the distribution of z to the prior"),
        (["objective=rae"], "penalises the norm of z"),
    ],
)
def test_what_makes_no_sense_for_codes_is_one_line(vae: Vae, words: list[str], message: str) -> None:
    (line,) = vae("train", "model/posterior=vq", *words, "out=run").errors()
    assert message in line
    assert not Path("run").exists()


def test_every_command_takes_a_model_on_codes(vae: Vae, coded: Path) -> None:
    answer = vae("eval", f"run={coded}", "k=20")
    assert answer.code == 0, answer.err
    report = json.loads((coded / "eval/test.json").read_text())
    assert report["nll"]["value"] == -report["elbo"]["value"]
    assert "equal to -ELBO" in answer.out
    assert "active_units" in report["unavailable"]
    assert 1 <= report["codes_used"]["value"] <= report["codes_used"]["of"] == 12
    assert 1 <= report["code_perplexity"]["value"] <= report["codes_used"]["value"]

    answer = vae("apply", f"run={coded}", "task=encode", "input=test", "num=9", "out=latents")
    assert answer.code == 0, answer.err
    with np.load("latents/latents.npz") as file:
        assert file["codes"].shape == (9, 4, 4)
        assert file["codes"].dtype == np.int64
    for words in (
        ("task=decode", "input=latents/latents.npz"),
        ("task=reconstruct", "input=test", "num=3"),
        ("task=score", "input=test", "num=5", "k=10"),
    ):
        answer = vae("apply", f"run={coded}", *words, f"out={words[0].removeprefix('task=')}")
        assert answer.code == 0, answer.err
    assert "-log p(x) is equal to -ELBO" in answer.out
    (line,) = vae("apply", f"run={coded}", "task=interpolate", "input=test", "num=3", "out=path").errors()
    assert "between which there is no path" in line
    (line,) = vae("apply", f"run={coded}", "task=inpaint", "input=test", "num=3", "out=painted").errors()
    assert "no distribution of the hidden values" in line

    answer = vae("sample", f"run={coded}", "show=prior,neighbours,extremes", "num=2")
    assert answer.code == 0, answer.err
    for show in ("traverse", "interpolate", "manifold"):
        (line,) = vae("sample", f"run={coded}", f"show={show}").errors()
        assert "latents that are codes" in line
    (line,) = vae("fit-prior", f"run={coded}", "prior=gmm").errors()
    assert "model/posterior=vq" in line
    assert vae("report", f"run={coded}").code == 0


def test_the_plan_of_a_model_on_codes(vae: Vae) -> None:
    answer = vae("train", *SMALL, *MAPS, *FEW, "model/posterior=vq", "plan=true")
    assert answer.code == 0, answer.err
    assert not Path("outputs").exists()


def test_a_code_may_have_more_numbers_than_an_image_has_values(vae: Vae) -> None:
    words = ("model=conv_spatial", "model.encoder.channels=4", "trainer.epochs=1", "plan=true")
    assert vae("train", *words, "latent_shape=[32,4,4]", "model/posterior=vq").code == 0
    (line,) = vae("train", *words, "latent_shape=[2,8,8]").errors()
    assert line.startswith("  latent_shape=[2,8,8]  exceeds the 64 values per image")


def test_the_api_decodes_indices(coded: Path) -> None:
    model = load(coded)
    x = torch.rand(3, 1, 8, 8)
    latents = model.encode(x)
    codes = latents.arrays["codes"]
    assert codes.shape == (3, 4, 4)
    assert torch.equal(model.decode(codes), model.reconstruct(x))
    assert torch.equal(latents.std, torch.zeros_like(latents.mean))
    with pytest.raises(ValueError, match="from 0 to 11"):
        model.decode(codes + 12)
    with pytest.raises(ValueError, match=r"expected \(N, 4, 4\)"):
        model.decode(codes[:, 0])
    with pytest.raises(ValueError, match="no path"):
        model.interpolate(x[:1], x[1:2])
    with pytest.raises(ValueError, match="one by one"):
        model.traverse(x[:1])
    scores = model.score(x, k=7)
    assert torch.equal(scores["nll"].float(), -scores["elbo"])


def test_a_collapsed_codebook_is_said_in_words(vae: Vae) -> None:
    still = ("model.posterior.start=random", "model.posterior.revive=0", "model.posterior.num_codes=64", "lr=1e-9")
    answer = vae("train", *SMALL, *DENSE, "model/posterior=vq", *still, "latent_dim=2", "out=run")
    assert answer.code == 0, answer.err
    assert "the codebook has collapsed: " in answer.out
    assert "of 64 codes are used" in answer.out
    assert "model.posterior.revive" in answer.out
    assert not Path("run/samples/manifold.png").exists()


def test_a_run_continues_with_the_same_codes(vae: Vae) -> None:
    words = (*SMALL[1:], *DENSE, *FEW, "model/posterior=vq")
    assert vae("train", *words, "steps=8", "out=whole").code == 0
    assert vae("train", *words, "steps=5", "out=parts").code == 0
    assert vae("train", "resume=parts", "steps=8").code == 0
    states = [torch.load(f"{name}/checkpoints/last.pt", weights_only=True)["model"] for name in ("whole", "parts")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
