"""`vae fit-prior`, and what is then sampled from it and scored with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.commandline import BRIEF, Vae
from tests.runs.test_fitted_priors import KINDS
from vae_train import load
from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.subject import Noise
from vae_train.runs.run import Run
from vae_train.training.checkpoint import FORMAT

FLOW = ("prior.transforms=1", "prior.hidden=[8]", "prior.steps=60")
kinds = pytest.mark.parametrize("kind", KINDS)


def metrics(run: Path | str, name: str) -> dict:
    return json.loads((Path(run) / name).read_text())


@kinds
def test_the_command_fits_scores_and_draws(vae: Vae, trained: Path, kind: str) -> None:
    vae("eval", f"run={trained}", *BRIEF)
    before = (trained / "eval/test.json").read_text()
    answer = vae("fit-prior", f"run={trained}", f"prior={kind}", *(FLOW if kind == "flow" else ()))
    assert answer.code == 0, answer.err
    found = metrics(trained, f"priors/{kind}.json")
    assert found["split"] == "valid"
    assert found["gain"]["n"] == 180
    assert found["num_encodings"] == 1257
    assert f"under the model's own prior: a gain of {found['gain']['value']:.2f} ± " in answer.out
    assert ("keep the model's own prior" in answer.out) is (found["gain"]["value"] < 0)
    state = torch.load(trained / f"priors/{kind}.pt", weights_only=True)
    assert state["settings"]["_target_"].startswith(f"vae_train.model.prior.fitted.{kind}.")

    answer = vae("eval", f"run={trained}", f"prior={kind}", "k=10", "images=false")
    assert answer.code == 0, answer.err
    assert f"test, prior={kind}" in answer.out
    assert (trained / "eval/test.json").read_text() == before
    after, own = metrics(trained, f"eval/test-{kind}.json"), json.loads(before)
    assert after["prior"] == kind
    assert after["distortion"]["value"] == own["distortion"]["value"]
    assert after["rate"]["value"] != own["rate"]["value"]
    assert all((trained / "eval" / name).exists() for name in after["plots"])

    answer = vae("sample", f"run={trained}", f"prior={kind}", "num=4")
    assert answer.code == 0, answer.err
    assert (trained / f"samples/prior-seed0-num4-{kind}.png").exists()


def test_the_gap_is_what_the_evidence_bound_gains(vae: Vae, trained: Path) -> None:
    """E_q[log p_fitted(z)] - E_q[log p(z)] by hand on the samples that the command used."""
    vae("fit-prior", f"run={trained}", "prior.components=2")
    from vae_train.data.session import DataSession
    from vae_train.runs.build import Builder, load_data, open_model
    from vae_train.runs.fitted_priors import replace_prior

    run = Run.open(str(trained))
    model, fitted_one = (open_model(run, torch.device("cpu"), Builder()) for _ in range(2))
    replace_prior(fitted_one, run, "gmm", Builder())
    data = load_data(run.config, DataSession(), torch.device("cpu"), Builder())
    noise, gains = Noise(0, "judge", "valid"), []
    with torch.no_grad():
        for start, batch in evaluation_batches(data.split("valid"), 512, stream=noise.data):
            traces = [m(batch, noise.latents(start, torch.device("cpu"))) for m in (fitted_one, model)]
            gains.append(traces[0].log_weight()[0] - traces[1].log_weight()[0])
    assert metrics(trained, "priors/gmm.json")["gain"]["value"] == pytest.approx(
        torch.cat(gains).mean().item(), abs=1e-4
    )


def test_an_autoencoder_gets_a_prior_to_draw_from(vae: Vae) -> None:
    assert vae.train("objective=rae", "model/posterior=deterministic", "out=run").code == 0
    answer = vae("fit-prior", "run=run")
    assert answer.code == 0, answer.err
    assert metrics("run", "priors/gmm.json")["own"]["value"] < 0
    answer = vae("eval", "run=run", "prior=gmm", "k=0")
    assert answer.code == 0, answer.err
    assert metrics("run", "eval/test-gmm.json")["elbo"] is None
    assert vae("sample", "run=run", "prior=gmm", "num=4").code == 0


def test_a_prior_that_was_not_fitted_names_those_that_were(vae: Vae, trained: Path) -> None:
    for command in ("eval", "sample"):
        (line,) = vae(command, f"run={trained}", "prior=kde").errors()
        assert "made has no fitted prior; fit it with: vae fit-prior run=made prior=kde" in line
    vae("fit-prior", f"run={trained}", "prior.components=1")
    vae("fit-prior", f"run={trained}", "prior.components=2")  # the first is kept as gmm.previous.pt
    for command in ("eval", "sample"):
        (line,) = vae(command, f"run={trained}", "prior=kde").errors()
        assert "made has only gmm; fit it with: vae fit-prior run=made prior=kde" in line
        (line,) = vae(command, f"run={trained}", "prior=..").errors()
        assert line.endswith("fit one with: vae fit-prior run=made prior=gmm")


def test_other_weights_are_noticed(vae: Vae, trained: Path) -> None:
    vae("fit-prior", f"run={trained}", "prior.components=1")
    path = trained / "priors/gmm.pt"
    torch.save(torch.load(path, weights_only=True) | {"fingerprint": "another"}, path)
    assert "was fitted to a different checkpoint; refit it" in vae("sample", f"run={trained}", "prior=gmm", "num=2").out
    torch.save({"format": FORMAT, "settings": {"_target_": "vae_train.model.prior.maf.MAF"}}, path)
    answer = vae("sample", f"run={trained}", "prior=gmm", "num=2")
    assert answer.code == 1
    assert "is not a prior of this model" in answer.err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["model.condition=label"], "a prior per label"),
        (["model/posterior=von_mises_fisher", "model/prior=uniform_sphere"], "only be fitted to vectors in R^D"),
    ],
)
def test_latents_that_no_density_fits_are_refused(vae: Vae, arguments: list[str], why: str) -> None:
    assert vae.train(*arguments, "out=run").code == 0
    (line,) = vae("fit-prior", "run=run").errors()
    assert why in line


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("prior.bandwidth=scott", "no such setting"),
        ("prior.components=0", "at least 1"),
        ("prior=vamp", "no such fitted prior (autoregressive, flow, gmm, kde, pixelcnn)"),
    ],
)
def test_settings_are_checked(vae: Vae, trained: Path, argument: str, why: str) -> None:
    (line,) = vae("fit-prior", f"run={trained}", argument).errors()
    assert why in line


def test_load_is_the_model_as_it_was_trained(vae: Vae, trained: Path) -> None:
    vae("fit-prior", f"run={trained}", "prior.components=1")
    assert type(load(trained).model.prior).__name__ == "StandardNormal"


def test_a_spline_needs_two_bins(vae: Vae, trained: Path) -> None:
    (line,) = vae("fit-prior", f"run={trained}", "prior=flow", "prior.bins=1").errors()
    assert "use at least 2" in line
