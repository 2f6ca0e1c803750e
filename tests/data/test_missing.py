"""Missing values: NaN in arrays become a mask, and everything that is measured is that of the observed values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vae_train
from tests.support import build, compose, load
from vae_train.batch import Batch
from vae_train.data.dataset import Dataset, Transforms
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

TINY = ("latent_dim=2", "logger=none", "batch_size=40")
MASKED = (*TINY, "data.missing=mask")
LINEAR = ("model.encoder.hidden=[16]", "model.decoder.hidden=[]")
WHOLE = ("data.valid=0", "data.test=0")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def holes(*shape: int, share: float = 0.3) -> np.ndarray:
    r = np.random.RandomState(0)
    x = r.rand(*shape)
    x[r.rand(*shape) < share] = np.nan
    return x


def opened(array: np.ndarray, *overrides: str) -> Dataset:
    np.save("x.npy", array)
    cfg = compose("data=arrays", "data.path=x.npy", "data.missing=mask", *overrides)
    return load(build(cfg.data), transforms=transforms(cfg))


def transforms(cfg) -> Transforms:
    return Transforms(*(build(cfg[name]) for name in ("augmentation", "corruption", "preprocessing")))


def whole(data: Dataset, rng: Rng | None = None) -> Batch:
    images = data.training() if rng else data.split("train")
    return images.fetch(torch.arange(len(images)), rng)


def test_missing_values_are_masked_and_zero_and_count_nowhere():
    x = holes(300, 3) * [1, 1000, 0.01] + [0, 5000, 0]
    data = opened(x, *WHOLE, "data.scaling=standard")
    batch, observed = whole(data), torch.tensor(~np.isnan(x))
    assert torch.equal(batch.mask[:, 0, 0], observed)
    assert (batch.x[~batch.mask] == 0).all()
    assert np.allclose(data.facts.units.shift, np.nanmean(x, 0))
    assert np.allclose(data.facts.units.scale, np.nanstd(x, 0))
    standard = torch.distributions.Normal(0.0, 1.0).log_prob(batch.x.double()) * batch.mask
    theirs = torch.distributions.Normal(torch.tensor(np.nanmean(x, 0)), torch.tensor(np.nanstd(x, 0)))
    theirs = torch.where(observed, theirs.log_prob(torch.tensor(np.nan_to_num(x))), 0.0).sum(1)
    assert torch.allclose(standard.sum((1, 2, 3)) + batch.log_det, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "overrides"),
    [
        ((60, 2, 40), ("data.layout=NCT",)),
        ((60, 40, 2), ("data.layout=NTC", "data.scaling=range")),
        ((60, 8, 8), ()),
        ((60, 3, 6, 6), ("preprocessing.logit=0.01",)),
        ((60, 5), ("data.range=[-1,1]",)),
    ],
)
def test_signals_and_images_have_masks_too(shape, overrides):
    overrides = (
        overrides
        if any("scaling" in override or "range" in override for override in overrides)
        else (*overrides, "data.scaling=standard")
    )
    data = opened(holes(*shape), *WHOLE, *overrides)
    batch = whole(data)
    assert batch.mask.shape == batch.x.shape
    assert int((~batch.mask).sum()) == int(np.isnan(holes(*shape)).sum())
    assert (batch.x[~batch.mask] == 0).all()
    assert batch.log_det.isfinite().all()


def test_levels_may_be_missing():
    x = (holes(60, 8, 8) > 0.5).astype(np.float32)
    x[np.isnan(holes(60, 8, 8))] = np.nan
    batch = whole(opened(x, "data.levels=2", "data.range=[0,1]", *WHOLE))
    assert set(batch.x.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(batch.mask[:, 0], torch.tensor(~np.isnan(x)))
    with pytest.raises(UsageError, match="between the levels"):
        opened(holes(60, 8, 8), "data.levels=2", "data.range=[0,1]")


def test_augmentation_moves_missing_values_and_corruption_adds_to_them():
    x = holes(60, 8, 8, share=0.1)
    plain = whole(opened(x, *WHOLE))
    flipped = whole(opened(x, *WHOLE, "augmentation=flip"), Rng(0, "data"))
    moved = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped.mask, plain.mask, strict=True)]
    assert all(m or torch.equal(a, b) for m, a, b in zip(moved, flipped.mask, plain.mask, strict=True))
    assert 10 < sum(moved) < 50
    hidden = whole(opened(x, *WHOLE, "corruption=missing", "corruption.noise=0.1"), Rng(0, "data"))
    assert not (hidden.mask & ~plain.mask).any()
    assert hidden.mask.float().mean() == pytest.approx(0.45, abs=0.03)
    assert (hidden.encoder_input[~hidden.mask] == 0).all()
    assert torch.equal(whole(opened(x, *WHOLE, "corruption=denoise"), Rng(0, "data")).mask, plain.mask)


def test_missing_numbers_are_counted_and_the_way_on_is_named(caplog):
    x = np.arange(400.0).reshape(100, 4)
    x[:3, 1], x[5, 3] = np.nan, np.nan
    counts = "3 in column 1, 1 in column 3"
    with pytest.raises(UsageError, match=rf"NaN\): {counts}; data.missing=mask trains without them"):
        opened(x, "data.missing=error")
    with pytest.raises(UsageError, match=r"NaN\): 12 of 300; data"):
        opened(np.where(np.arange(300).reshape(3, 10, 10) < 12, np.nan, 1.0), "data.missing=error")
    with pytest.raises(UsageError, match="infinite numbers: 1 in column 2; leave out"):
        opened(np.where(np.arange(400).reshape(100, 4) == 2, np.inf, x))
    with pytest.raises(UsageError, match="no training values in column 1; leave it out"):
        opened(np.where(np.arange(4) == 1, np.nan, x), "data.scaling=standard")
    with pytest.raises(UsageError, match="only NaN"):
        opened(np.full((20, 8, 8), np.nan))
    caplog.set_level("INFO", "vae_train")
    opened(x, "data.scaling=standard")
    assert f"missing numbers (NaN): {counts}" in caplog.text
    opened(np.random.rand(20, 4), "data.scaling=standard")
    assert "none, so data.missing=mask has no effect" in caplog.text


def test_missing_values_of_the_test_split_alone():
    complete = np.random.RandomState(1).randn(120, 4)
    np.savez("x.npz", x_train=complete, x_test=holes(80, 4))
    run = vae_train.train(*MASKED, *LINEAR, "epochs=2", "data=arrays", "data.path=x.npz", out="run")
    model = vae_train.load(run.folder)
    assert model.log_prob(holes(80, 4)).isfinite().all()
    assert model.log_prob(complete).isfinite().all()


def test_log_likelihood_and_nll_are_the_exact_marginal_of_the_observed_values():
    """A linear decoder with one scale per column: p(x) of any entries is a Gaussian whose moments it states."""
    r = np.random.RandomState(0)
    x = (r.randn(200, 2) @ r.randn(2, 5) + r.randn(200, 5)) * [1, 10, 100, 1, 0.1] + [0, 50, 0, -3, 1]
    x[r.rand(200, 5) < 0.3] = np.nan
    x[0] = np.nan
    np.save("x.npy", x)
    overrides = ("objective=miwae", "epochs=40", "lr=1e-2", "data.valid=0", "data=arrays", "data.path=x.npy")
    run = vae_train.train(*MASKED, *LINEAR, *overrides, out="run")
    model = vae_train.load(run.folder)
    mean = model.decode(np.zeros((1, 2))).numpy()[0]
    slope = model.decode(np.eye(2)).numpy() - mean
    scale = model.model.decode(torch.zeros(1, 2)).variance.sqrt().flatten().detach().numpy() * model.facts.units.scale
    covariance = slope.T @ slope + np.diag(scale**2)
    exact = [_log_normal(row[~np.isnan(row)], mean, covariance, ~np.isnan(row)) for row in x[:50]]
    found = model.log_prob(x[:50], k=5000).numpy()
    assert exact[0] == 0
    assert np.abs(found - exact).mean() < 0.02
    assert np.isfinite(model.reconstruct(x[:50])).all()


def _log_normal(values: np.ndarray, mean: np.ndarray, covariance: np.ndarray, observed: np.ndarray) -> float:
    deviation, part = values - mean[observed], covariance[np.ix_(observed, observed)]
    quadratic = deviation @ np.linalg.solve(part, deviation) if len(values) else 0.0
    return -0.5 * (quadratic + np.linalg.slogdet(part)[1] + len(values) * math.log(2 * math.pi))


def test_only_models_of_missing_values_take_them():
    np.save("x.npy", np.random.RandomState(0).randn(100, 4))
    run = vae_train.train(*TINY, "epochs=1", "data=arrays", "data.path=x.npy", out="run")
    with pytest.raises(ValueError, match=r"only models trained with data.missing=mask accept"):
        vae_train.load(run.folder).log_prob(holes(3, 4))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model/likelihood=ms_ssim",), "cannot leave out single values, which data.missing=mask needs"),
        (("augmentation=color",), "needs the mean of whole images, but some values are missing"),
    ],
)
def test_components_that_need_whole_images_are_refused(overrides, message):
    np.save("x.npy", holes(60, 12, 12))
    with pytest.raises(UsageError, match=message):
        vae_train.train(*MASKED, "data=arrays", "data.path=x.npy", *overrides)


def test_ms_ssim_does_not_go_with_hidden_pixels():
    with pytest.raises(UsageError, match=r"cannot leave out single values, which corruption.score=observed needs"):
        vae_train.train("data=digits", "corruption=missing", "model/likelihood=ms_ssim")
