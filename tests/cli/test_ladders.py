"""Models with several stochastic layers on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commandline import TINY, Vae, rows
from tests.support import LAYERED, layered_models

MODELS = pytest.mark.parametrize("name", LAYERED)


def words(name: str) -> tuple[str, ...]:
    plain = [word for word in TINY if not word.startswith(("model.", "latent_dim", "epochs"))]
    return (*plain, "threads=1", f"model={name}", *LAYERED[name], "batch_size=300")


@pytest.mark.parametrize("name", layered_models())
def test_a_run_that_goes_on_is_the_run_that_was_not_interrupted(vae: Vae, name: str) -> None:
    options = ("learner.ema=0.9", "optimizer=adamax")
    whole = vae("train", *words(name), *options, "epochs=2", "out=whole")
    assert whole.code == 0
    assert " latents in " in whole.out
    assert vae("train", *words(name), *options, "epochs=1", "out=part").code == 0
    assert vae("train", "resume=part", "epochs=2").code == 0
    both = [[row for row in rows(Path(run)) if row["epoch"] == 2] for run in ("whole", "part")]
    assert both[0] == both[1]
    assert {row["split"] for row in both[0] if "rate_1" in row} == {"train", "valid"}
    valid = both[0][-1]
    layers = [value for key, value in valid.items() if key.startswith("rate_")]
    assert sum(layers) == pytest.approx(valid["rate"], rel=1e-5)


@pytest.mark.slow
@MODELS
def test_a_compiled_run_is_the_same_run(vae: Vae, name: str) -> None:
    for mode in ("eager", "compile"):
        answer = vae("train", *words(name), "epochs=2", f"execution={mode}", f"out={mode}")
        assert (answer.code, "falling back" in answer.err + answer.out) == (0, False)
    eager, compiled = ([row["loss"] for row in rows(Path(mode))] for mode in ("eager", "compile"))
    assert compiled == pytest.approx(eager, rel=1e-3)


@MODELS
def test_the_size_of_z_is_not_a_setting_of_a_ladder(vae: Vae, name: str) -> None:
    (line,) = vae("train", *words(name), "latent_dim=3").errors()
    assert line.strip().startswith("latent_dim=3  has no effect")
    (line,) = vae("train", *words(name), "latent_shape=[3,2,2]").errors()
    assert line.strip().startswith("latent_shape=[3, 2, 2]  has no effect")


def test_an_objective_for_one_layer_is_refused(vae: Vae) -> None:
    (line,) = vae("train", *words("lvae"), "objective=factor_vae").errors()
    assert "the model has several layers of latents; use objective=elbo or model=conv" in line
