"""Vectors and signals: every column or channel has units of its own, in training, in metrics and in samples."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vae_train
from tests.support import build, compose, load
from vae_train.data.dataset import Dataset, Transforms
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

TINY = (
    "model.encoder.hidden=[16]",
    "model.decoder.hidden=[16]",
    "latent_dim=2",
    "logger=none",
    "epochs=2",
    "batch_size=40",
)
WHOLE = ("data.valid=0", "data.test=0")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(count: int = 300) -> np.ndarray:
    r = np.random.RandomState(0)
    x = r.randn(count, 3)
    x[:, 2] = x[:, 0] + 0.1 * r.randn(count)
    return x


def opened(array: np.ndarray, *overrides: str) -> Dataset:
    np.save("x.npy", array)
    overrides = (
        overrides if any("scaling" in override for override in overrides) else (*overrides, "data.scaling=standard")
    )
    return load(build(compose("data=arrays", "data.path=x.npy", *overrides).data))


def trained(name: str, array: np.ndarray, *overrides: str):
    np.save(f"{name}.npy", array)
    return vae_train.train(*TINY, "data=arrays", f"data.path={name}.npy", *overrides, out=name)


@pytest.mark.parametrize(
    ("layout", "shape", "axes"),
    [("ND", (60, 5), (0,)), ("NCT", (60, 2, 40), (0, 2)), ("NTC", (60, 40, 2), (0, 1))],
)
def test_training_values_of_every_column_are_standardised(layout, shape, axes):
    r = np.random.RandomState(1)
    widths = 10.0 ** np.arange(shape[-1 if layout != "NCT" else 1])
    widths = widths[:, None] if layout == "NCT" else widths
    data = opened(1e9 + widths * r.randn(*shape), f"data.layout={layout}")
    train = data.split("train").fetch(torch.arange(len(data.split("train")))).x
    dims = (0, 2, 3) if layout != "ND" else (0,)
    assert train.mean(dims).abs().max() < 1e-5
    assert (train.std(dims, correction=0) - 1).abs().max() < 1e-5
    test = data.split("test").fetch(torch.arange(2)).x
    assert data.facts.layout == layout
    assert test.abs().max() < 6


def test_densities_are_those_of_the_numbers_in_the_file():
    x = table() * [1, 1000, 0.01] + [0, 5000, 0]
    data = opened(x, *WHOLE)
    batch = data.split("train").fetch(torch.arange(300))
    ours = torch.distributions.Normal(0.0, 1.0).log_prob(batch.x.double()).sum((1, 2, 3)) + batch.log_det
    theirs = torch.distributions.Normal(*map(torch.tensor, (x.mean(0), x.std(0)))).log_prob(torch.tensor(x)).sum(1)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_range_of_every_column_is_0_to_1_in_plots():
    x = table() * [1, 1000, 0.01] + [0, 5000, 7]
    data = opened(x, *WHOLE)
    seen, units = data.split("train").fetch(torch.arange(300)).x, data.facts.units
    unit = units.to_unit(seen)
    assert torch.allclose(unit.amin((0, 1, 2)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(unit.amax((0, 1, 2)), torch.ones(3), atol=1e-5)
    assert torch.allclose(units.from_unit(unit), seen, atol=1e-4)


def test_masked_values_count_no_jacobian():
    cfg = compose("corruption=missing", "corruption.mask=0.5")
    np.save("x.npy", table() * [1, 1000, 0.01])
    source = build(compose("data=arrays", "data.path=x.npy", "data.scaling=standard", *WHOLE).data)
    batch = load(source, transforms=Transforms(corruption=build(cfg.corruption))).training()
    batch = batch.fetch(torch.arange(300), Rng(0, "data"))
    scales = torch.tensor((table() * [1, 1000, 0.01]).std(0)).log()
    assert torch.allclose(batch.log_det.double(), -(batch.mask[:, 0, 0] * scales).sum(1), atol=1e-4)


def test_other_units_of_the_file_change_the_elbo_by_their_jacobian():
    factors = {"a": np.ones(3), "b": np.full(3, 0.01), "c": np.array([1.0, 1000.0, 1.0])}
    shift = {"a": 0.0, "b": 0.0, "c": np.array([0.0, 5000.0, 0.0])}
    runs = {k: trained(k, table() * factors[k] + shift[k]) for k in factors}
    elbo = {k: run.summary()["best_elbo"] for k, run in runs.items()}
    assert elbo["b"] - elbo["a"] == pytest.approx(3 * math.log(100), abs=1e-4)
    assert elbo["a"] - elbo["c"] == pytest.approx(math.log(1000), abs=1e-4)
    models = {k: vae_train.load(run.folder) for k, run in runs.items()}
    samples = {k: model.sample(200, use_mean=False).numpy() for k, model in models.items()}
    assert np.allclose(samples["a"] * factors["c"] + shift["c"], samples["c"], rtol=1e-3, atol=1e-2)
    p = {k: m.log_prob(table()[:5] * factors[k] + shift[k]) for k, m in models.items()}
    assert torch.allclose(p["a"] - p["c"], torch.tensor(math.log(1000)).double(), atol=1e-3)


@pytest.mark.slow
def test_a_scale_is_learned_for_every_column_or_channel():
    signals = np.random.RandomState(0).randn(100, 2, 12)
    raw = [
        vae_train.load(trained(name, x, *overrides).folder).model.likelihood.scale.raw.shape
        for name, x, overrides in (
            ("vectors", table(100), ()),
            ("signals", signals, ("model/likelihood=laplace",)),
            ("one", table(100), ("model/likelihood=huber", "model.likelihood.scale_mode=shared")),
        )
    ]
    assert raw == [(1, 1, 3), (2, 1, 1), ()]


@pytest.mark.parametrize("likelihood", ["beta", "continuous_bernoulli"])
def test_bounded_likelihoods_see_the_range_of_every_column(likelihood):
    x = table() * [1, 1000, 0.01]
    model = vae_train.load(trained("x", x, f"model/likelihood={likelihood}").folder)
    assert np.allclose(model.facts.units.low, x.min(0))
    assert model.log_prob(x[:20]).isfinite().all()
    with pytest.raises(ValueError, match=r"out of range: values are .*, per column"):
        model.log_prob(x[:1] + 1e6)
    with pytest.raises(UsageError, match="needs numbers in"):
        trained("y", x, f"model/likelihood={likelihood}", "data.scaling=standard")


def test_values_outside_of_the_training_range_are_named(caplog):
    np.savez("x.npz", x_train=table(50), x_test=table(50) * [1, 9, 1])
    caplog.set_level("INFO", "vae_train")
    source = build(compose("data=arrays", "data.path=x.npz", "data.scaling=range").data)
    assert load(source).facts.units.high[1] > 7
    assert "extend the training range: " in caplog.text
    assert "column 1 (" in caplog.text


def test_constant_columns_and_integers_are_said(caplog):
    caplog.set_level("INFO", "vae_train")
    data = opened(np.stack([np.arange(50), np.full(50, 7)], 1))
    assert data.facts.levels is None
    assert data.facts.units.scale[1] == 1
    assert "constant columns, scaled by 1: column 1 (7 to 7)" in caplog.text
    assert "for discrete levels set data.levels=" in caplog.text
    assert opened(np.stack([np.arange(50), np.full(50, 7)], 1), "data.levels=50").facts.levels == 50


def test_a_series_is_not_silently_an_image(caplog):
    caplog.set_level("INFO", "vae_train")
    with pytest.raises(UsageError, match=r"may be grey images \(NHW\) or signals \(NTC"):
        opened(np.random.rand(20, 24, 6))
    assert opened(np.random.rand(20, 24, 6), "data.layout=NTC").facts.data_shape == (6, 1, 24)
    assert opened(np.random.rand(20, 8, 8)).facts.data_shape == (1, 8, 8)
    assert "grey images (N, H, W); for signals set data.layout=NTC or NCT" in caplog.text


@pytest.mark.parametrize(("layout", "shape"), [("NTC", (80, 12, 3)), ("NHWC", (80, 6, 6, 3)), ("NHW", (80, 6, 6))])
def test_samples_have_the_layout_of_the_file(layout, shape):
    array = 5 + np.random.RandomState(0).rand(*shape)
    model = vae_train.load(trained("x", array, f"data.layout={layout}").folder)
    assert model.sample(4).shape == (4, *shape[1:])
    assert model.reconstruct(array[:3]).shape == (3, *shape[1:])
    assert model.reconstruct(array[:3]).mean() == pytest.approx(5.5, abs=0.6)


@pytest.mark.slow
def test_tables_with_levels_are_sampled_as_levels_of_the_file():
    model = vae_train.load(
        trained("x", np.arange(400).reshape(100, 4) % 9, "data.levels=9", "model/likelihood=categorical").folder
    )
    samples = model.sample(50, use_mean=False)
    assert set(samples.unique().tolist()) <= set(range(9))
    assert samples.max() > 1


@pytest.mark.parametrize(
    ("shape", "override", "message"),
    [
        ((60, 3), "augmentation=color", "brightness and contrast are for images"),
        ((60, 3), "augmentation=flip", "vectors have no order"),
        ((60, 2, 40), "augmentation=affine", "rotation and crop are for images, not for signals"),
        ((60, 2, 40), "augmentation.crop=2", "rotation and crop are for images, not for signals"),
        ((60, 4), "corruption=inpaint", "hides images of 1x4 pixels completely or not at all"),
    ],
)
def test_transforms_that_are_for_images(shape, override, message):
    with pytest.raises(UsageError, match=message):
        trained("x", np.random.RandomState(0).rand(*shape), override)


def test_signals_move_in_time_alone():
    signals = np.random.RandomState(0).rand(60, 2, 40) + 1
    np.save("x.npy", signals)
    cfg = compose("data=arrays", "data.path=x.npy", "data.scaling=range", "augmentation.translation=0.2", *WHOLE)
    transforms = Transforms(augmentation=build(cfg.augmentation))
    moved = load(build(cfg.data), transforms=transforms).training().fetch(torch.arange(60), Rng(0, "data")).x
    assert moved[..., 15:25].mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_a_linear_gaussian_is_learned_in_its_own_units():
    """x = W z + mu + 0.3 e: -log p, rate, active units and covariance, against their exact values."""
    r = np.random.RandomState(0)
    w = np.array([[3, 0], [2, 1], [0, 4], [1, 1], [-2, 2], [0.5, -1]])
    mu = np.array([100.0, -50, 0, 20, 3, -7])
    cov = w @ w.T + 0.09 * np.eye(6)
    x = r.randn(9000, 2) @ w.T + mu + 0.3 * r.randn(9000, 6)
    np.savez("x.npz", x_train=x[:6000], x_valid=x[6000:7500], x_test=x[7500:])
    overrides = ("latent_dim=4", "epochs=150", "lr=1e-2", "lr_schedule=cosine", "logger=none")
    overrides += ("model.encoder.hidden=[]", "model.decoder.hidden=[]")
    run = vae_train.train("data=arrays", "data.path=x.npz", *overrides, out="run")
    model = vae_train.load(run.folder)
    truth = torch.distributions.MultivariateNormal(torch.tensor(mu), torch.tensor(cov)).log_prob(torch.tensor(x[7500:]))
    assert model.log_prob(x[7500:]).mean().item() == pytest.approx(truth.mean().item(), abs=0.1)
    q = model.encode(x[7500:])
    kl = 0.5 * (q.mean**2 + q.std**2 - 1 - 2 * q.std.log())
    rate = 0.5 * np.linalg.slogdet(np.eye(2) + w.T @ w / 0.09)[1]
    assert kl.sum(1).mean().item() == pytest.approx(rate, abs=0.1)
    assert int((q.mean.var(0) > 0.01).sum()) == 2
    found = np.cov(model.sample(5000, use_mean=False, seed=1).numpy().T)
    assert np.abs(found - cov).max() < 0.05 * np.abs(cov).max()
