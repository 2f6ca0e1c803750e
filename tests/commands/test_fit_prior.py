"""`vae fit-prior`, and what is then drawn from it and scored with it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.commandline import BRIEF, Vae
from vae_train import load
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.normal import Normal
from vae_train.evaluation.expost import KINDS, comparison, fitted, log_density, restored
from vae_train.rng import BlockRng, Rng, generator
from vae_train.runs.run import Run

FLOW = ("transforms=1", "hidden=[8]", "steps=60")
SETTINGS = {
    "gmm": {"components": 3},
    "kde": {"centers": 500, "bandwidth": "validated"},
    "flow": {"transforms": 2, "bins": 6, "hidden": [16], "steps": 400, "patience": 3, "batch_size": 256, "lr": 5e-3},
}
kinds = pytest.mark.parametrize("kind", KINDS)


def two_moons(count: int, key: int = 0) -> torch.Tensor:
    """Points around two half circles, far from the origin: nothing like N(0, I)."""
    source = generator(0, "moons", key)
    angle = math.pi * torch.rand(count, generator=source, dtype=torch.float64)
    side = (torch.rand(count, generator=source) < 0.5).double()
    points = torch.stack([angle.cos() + side, (1 - 2 * side) * angle.sin()], -1)
    return 4 + 3 * points + 0.3 * torch.randn(count, 2, generator=source, dtype=torch.float64)


def made(kind: str, z: torch.Tensor, shape: tuple[int, ...] = (2,), **settings: object):
    return fitted(kind, z, shape, (1, 8, 8), 0, SETTINGS[kind] | settings)


def figures(run: Path | str, name: str) -> dict:
    return json.loads((Path(run) / name).read_text())


def standard(z: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros(z.shape[1], dtype=z.dtype)
    return log_density(Normal(zero, zero), z)


@kinds
def test_a_fitted_density_beats_a_prior_that_is_far_away(kind: str) -> None:
    prior, _ = made(kind, two_moons(2000))
    there = two_moons(1000, 1).float()
    found = comparison(standard(there), prior.log_prob(there))
    assert found["gap"]["value"] > 10
    assert found["gap"]["value"] == pytest.approx(found["fitted"]["value"] - found["own"]["value"])
    normal, _ = made("gmm", two_moons(2000), components=1)
    assert found["fitted"]["value"] > normal.log_prob(there).mean().item() + 0.15


@kinds
def test_fitted_densities_integrate_to_1(kind: str) -> None:
    prior, _ = made(kind, two_moons(1000))
    axis = torch.linspace(-6, 16, 441)
    density = prior.log_prob(torch.cartesian_prod(axis, axis)).exp().view(441, 441)
    total = torch.trapezoid(torch.trapezoid(density, axis.double()), axis.double())
    assert total.item() == pytest.approx(1, abs=2e-3)


@kinds
def test_draws_are_like_the_encodings(kind: str) -> None:
    z = two_moons(2000)
    prior, _ = made(kind, z)
    with torch.no_grad():
        draws = prior(None).sample(Rng(0, "x"), 4000).double()
    assert torch.allclose(draws.mean(0), z.mean(0), atol=0.25)
    assert torch.allclose(draws.std(0), z.std(0), rtol=0.15)


@kinds
def test_a_saved_density_is_the_same_again(kind: str, tmp_path: Path) -> None:
    z = two_moons(600)
    prior, state = made(kind, z, (2, 1))
    torch.save(state, tmp_path / "prior.pt")
    again = restored(torch.load(tmp_path / "prior.pt", weights_only=True), (2, 1), (1, 8, 8))
    assert torch.equal(again.log_prob(z.float()), prior.log_prob(z.float()))
    repeated, _ = made(kind, z, (2, 1))
    assert torch.equal(repeated.log_prob(z.float()), prior.log_prob(z.float()))


def test_one_component_is_the_mean_and_the_covariance() -> None:
    z = two_moons(500)
    prior, _ = made("gmm", z, components=1)
    assert torch.allclose(prior.means[0].double(), z.mean(0), atol=1e-5)
    covariance = (prior.factors @ prior.factors.mT)[0].double()
    assert torch.allclose(covariance, torch.cov(z.T, correction=0), rtol=1e-4, atol=1e-4)


def test_the_gap_is_0_where_the_prior_is_the_truth_and_at_most_that_where_it_is_fitted() -> None:
    z = torch.randn(4000, 2, generator=generator(0, "z"), dtype=torch.float64)
    prior, _ = made("gmm", z, components=1)
    inside = comparison(standard(z), prior.log_prob(z.float()))["gap"]
    assert inside["value"] >= -1e-5  # maximum likelihood, on the encodings that it was fitted to
    there = torch.randn(4000, 2, generator=generator(1, "z"), dtype=torch.float64)
    found = comparison(standard(there), prior.log_prob(there.float()))["gap"]
    assert abs(found["value"]) < 5 * found["se"] + 5e-3


def test_scotts_bandwidth_is_that_of_scott() -> None:
    z = two_moons(800)
    prior, _ = made("kde", z, centers=10_000, bandwidth="scott")
    assert len(prior.centers) == 720  # without those that are held out
    expected = 720 ** (-1 / 6) * z.std(0)
    assert torch.allclose(prior.log_scale.double().exp(), expected, rtol=0.1)
    given, _ = made("kde", z, bandwidth=0.5)
    assert torch.allclose(given.log_scale.double().exp(), 0.5 * z.std(0), rtol=0.1)


def test_units_that_never_move_do_no_harm() -> None:
    z = two_moons(400)
    z[:, 1] = 2.0
    for kind in KINDS:
        prior, _ = made(kind, z)
        assert prior.log_prob(z.float()).isfinite().all()


def test_too_few_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        made("gmm", two_moons(5), components=10)


@kinds
def test_the_command_fits_scores_and_draws(vae: Vae, trained: Path, kind: str) -> None:
    vae("eval", f"run={trained}", *BRIEF)
    before = (trained / "eval/test.json").read_text()
    answer = vae("fit-prior", f"run={trained}", f"prior={kind}", *(FLOW if kind == "flow" else ()))
    assert answer.code == 0, answer.err
    found = figures(trained, f"priors/{kind}.json")
    assert found["split"] == "valid"
    assert found["gap"]["count"] == 180
    assert found["images"] == 1257
    assert f"under the model's own prior: a gap of {found['gap']['value']:.2f} ± " in answer.out
    assert torch.load(trained / f"priors/{kind}.pt", weights_only=True)["kind"] == kind

    answer = vae("eval", f"run={trained}", f"prior={kind}", "k=10", "images=false")
    assert answer.code == 0, answer.err
    assert f"test, prior={kind}" in answer.out
    assert (trained / "eval/test.json").read_text() == before
    after, own = figures(trained, f"eval/test-{kind}.json"), json.loads(before)
    assert after["prior"] == kind
    assert after["distortion"]["value"] == own["distortion"]["value"]
    assert after["rate"]["value"] != own["rate"]["value"]
    assert all((trained / "eval" / name).exists() for name in after["pictures"])

    answer = vae("sample", f"run={trained}", f"prior={kind}", "num=4")
    assert answer.code == 0, answer.err
    assert (trained / f"samples/seed0-t1-{kind}.png").exists()


def test_the_gap_is_what_the_evidence_bound_gains(vae: Vae, trained: Path) -> None:
    """E_q[log p_fitted(z)] - E_q[log p(z)] by hand on the draws that the command saw."""
    vae("fit-prior", f"run={trained}", "components=2")
    from vae_train.runs.build import loaded, open_model
    from vae_train.runs.priors import replace_prior

    run = Run.open(str(trained))
    model, fitted_one = (open_model(run, "best", torch.device("cpu")) for _ in range(2))
    replace_prior(fitted_one, run, "gmm")
    gains = []
    with torch.no_grad():
        for start, batch in evaluation_batches(loaded(run.config).split("valid"), 512):
            traces = [m(batch, BlockRng(0, "evaluation", start)) for m in (fitted_one, model)]
            gains.append(traces[0].log_weight()[0] - traces[1].log_weight()[0])
    assert figures(trained, "priors/gmm.json")["gap"]["value"] == pytest.approx(
        torch.cat(gains).mean().item(), abs=1e-4
    )


def test_an_autoencoder_gets_a_prior_to_draw_from(vae: Vae) -> None:
    assert vae.train("objective=rae", "model/posterior=deterministic", "out=run").code == 0
    answer = vae("fit-prior", "run=run")
    assert answer.code == 0, answer.err
    assert figures("run", "priors/gmm.json")["own"]["value"] < 0
    answer = vae("eval", "run=run", "prior=gmm", "k=0")
    assert answer.code == 0, answer.err
    assert figures("run", "eval/test-gmm.json")["elbo"] is None
    assert vae("sample", "run=run", "prior=gmm", "num=4").code == 0


def test_a_prior_that_was_not_fitted_names_those_that_were(vae: Vae, trained: Path) -> None:
    for command in ("eval", "sample"):
        (line,) = vae(command, f"run={trained}", "prior=kde").errors()
        assert "made has no fitted prior. Fit it: vae fit-prior run=made prior=kde" in line
    vae("fit-prior", f"run={trained}", "components=1")
    vae("fit-prior", f"run={trained}", "components=2")  # the first is kept as gmm.previous.pt
    for command in ("eval", "sample"):
        (line,) = vae(command, f"run={trained}", "prior=kde").errors()
        assert "made has gmm alone. Fit it: vae fit-prior run=made prior=kde" in line
        (line,) = vae(command, f"run={trained}", "prior=normal").errors()
        assert "must be one of gmm, kde, flow" in line


def test_other_weights_are_noticed(vae: Vae, trained: Path) -> None:
    vae("fit-prior", f"run={trained}", "components=1")
    path = trained / "priors/gmm.pt"
    torch.save(torch.load(path, weights_only=True) | {"digest": "another"}, path)
    assert "other weights: fit it again" in vae("sample", f"run={trained}", "prior=gmm", "num=2").out
    torch.save({"format": 1, "kind": "nothing"}, path)
    answer = vae("sample", f"run={trained}", "prior=gmm", "num=2")
    assert answer.code == 1
    assert "holds no prior of this model" in answer.err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["model.condition=label"], "a prior for every label"),
        (["model/posterior=von_mises_fisher", "model/prior=uniform_sphere"], "for vectors of numbers alone"),
    ],
)
def test_latents_that_no_density_fits_are_refused(vae: Vae, words: list[str], why: str) -> None:
    assert vae.train(*words, "out=run").code == 0
    (line,) = vae("fit-prior", "run=run").errors()
    assert why in line


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("bandwidth=scott", "is a setting of prior=kde, and this fits prior=gmm"),
        ("components=0", "at least 1"),
        ("prior=vamp", "must be one of gmm, kde, flow"),
    ],
)
def test_settings_are_checked(vae: Vae, trained: Path, word: str, why: str) -> None:
    (line,) = vae("fit-prior", f"run={trained}", word).errors()
    assert why in line


def test_load_is_the_model_as_it_was_trained(vae: Vae, trained: Path) -> None:
    vae("fit-prior", f"run={trained}", "components=1")
    assert type(load(str(trained)).prior).__name__ == "StandardNormal"
