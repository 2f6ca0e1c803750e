"""A trained model completes images in the units of its data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import vae_train
from tests.runs.conftest import TINY
from vae_train.runs.run import Run

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))


UPPER = torch.arange(8)[:, None].expand(8, 8) < 4


def test_seen_pixels_are_those_that_were_given(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    done = model.inpaint(x, UPPER, completions=3, steps=5)
    assert done.shape == (3, 5, 1, 8, 8)
    assert torch.equal(done[..., :4, :], x[..., :4, :].expand(3, -1, -1, -1, -1))
    assert set(done[..., 4:, :].unique().tolist()) == {0.0, 1.0}
    for mask in (UPPER[None, None], UPPER.expand(5, 1, 8, 8), np.broadcast_to(UPPER.numpy(), (5, 1, 8, 8))):
        assert torch.equal(model.inpaint(x, mask, completions=3, steps=5), done)
    ruined = torch.where(UPPER, x, torch.tensor(float("nan")))
    assert torch.equal(model.inpaint(ruined, UPPER, completions=3, steps=5), done)
    assert torch.equal(model.inpaint(ruined, completions=3, steps=5), done)
    assert torch.equal(model.inpaint(torch.where(UPPER, x, 7.0), UPPER, completions=3, steps=5), done)
    levels = (x * 255).to(torch.uint8)
    assert torch.equal(model.inpaint(levels, UPPER, steps=5)[0, ..., :4, :], (levels / 255)[..., :4, :])
    channels_last = model.inpaint(x.permute(0, 2, 3, 1).numpy(), UPPER, completions=3, steps=5)
    assert torch.equal(channels_last, done)


def test_completions_differ_and_are_a_function_of_the_seed(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    one, two = model.inpaint(x, UPPER, completions=2, steps=5, seed=1)
    assert not torch.equal(one, two)
    assert torch.equal(model.inpaint(x, UPPER, steps=5, seed=1)[0], one)
    assert not torch.equal(model.inpaint(x, UPPER, steps=5, seed=2)[0], one)
    assert torch.equal(model.inpaint(x, UPPER, steps=5, seed=1, method="gibbs")[0], one)
    assert not torch.equal(model.inpaint(x, UPPER, steps=5, seed=1, method="importance")[0], one)


def test_a_wrong_mask_is_an_error(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    with pytest.raises(ValueError, match=r"mask has shape \(5, 1, 8, 7\), expected \(5 or 1, 1 or 1, 8, 8\)"):
        model.inpaint(x, torch.ones(5, 1, 8, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask has shape \(8,\)"):
        model.inpaint(x, torch.ones(8, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask has the type torch.float32, expected bool"):
        model.inpaint(x, torch.ones(8, 8))
    with pytest.raises(ValueError, match="completions=0, steps=200"):
        model.inpaint(x, UPPER, completions=0)
    with pytest.raises(ValueError, match="out of range"):
        model.inpaint(2 * x, UPPER)


def test_dequantised_pixels_become_levels(x: torch.Tensor) -> None:
    words = ("data.binarize=none", "model/likelihood=gaussian", "preprocessing.dequantize=true")
    model = vae_train.load(vae_train.train(*TINY, *words, "preprocessing.logit=0.05", out="logit").folder)
    done = model.inpaint(x, UPPER, steps=5)[0]
    assert torch.equal(done[..., :4, :], x[..., :4, :])
    hidden = 16 * done[..., 4:, :]
    assert torch.allclose(hidden, hidden.round(), atol=1e-5)


def test_a_conditional_model_needs_its_label(x: torch.Tensor) -> None:
    model = vae_train.load(vae_train.train(*TINY, "model.condition=label", out="conditional").folder)
    with pytest.raises(ValueError, match="pass label="):
        model.inpaint(x, UPPER)
    assert model.inpaint(x, UPPER, label=3, steps=5).shape == (1, 5, 1, 8, 8)


@pytest.mark.slow
def test_missing_numbers_of_a_table_are_drawn_from_their_conditional_distribution() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=(4000, 1))
    values = np.concatenate([10 * first, 100 + first + 0.5 * generator.normal(size=(4000, 1))], 1)
    values[generator.random(values.shape) < 0.2] = np.nan
    np.save("table.npy", values)
    options = ("data=arrays", "data.path=table.npy", "data.missing=mask", "latent_dim=1", "steps=500", "lr=0.01")
    run = vae_train.train(*TINY[:2], "logger=none", *options, out="table")
    table = np.array([[15.0, np.nan], [np.nan, 98.5], [-10.0, 99.0]])
    done = vae_train.load(run.folder).inpaint(table, completions=400, steps=50).numpy()
    assert done.shape == (400, 3, 2)
    seen = ~np.isnan(table)
    assert (done[:, seen] == table[seen]).all()
    drawn = done[:, 0, 1]
    assert drawn.mean() == pytest.approx(101.5, abs=0.3)
    assert drawn.std() == pytest.approx(0.5, abs=0.15)
    # E[first | second] = 10 · (second - 100) / 1.25
    assert done[:, 1, 0].mean() == pytest.approx(-12, abs=3)
    assert (vae_train.load(run.folder).inpaint(table, seen, completions=400, steps=50).numpy() == done).all()
    hidden = vae_train.load(run.folder).inpaint(table, np.array([[True, False]]), steps=5).numpy()
    assert hidden[0, 2, 0] == -10.0 != hidden[0, 2, 1]
