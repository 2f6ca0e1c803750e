"""What an evaluation may depend on: neither the noise of a fit, nor the batch size, nor the order of the images."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from omegaconf import OmegaConf

import vae_train
from tests.runs.test_fitted_priors import KINDS, node
from tests.support import BUILDER, CONF, SMALL, build, build_model, compose, loaded, plain
from vae_train.data.session import DataSession
from vae_train.data.storage.stored import TensorStore
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.encodings import encode
from vae_train.evaluation.metrics.base import Estimate
from vae_train.evaluation.subject import Noise, Subject
from vae_train.evaluation.suite import evaluate
from vae_train.rng import generator
from vae_train.runs.build import load_data, open_model
from vae_train.runs.fitted_priors import fit_prior

KNOBS = {"latents": True, "images": True, "inception": None, "num_samples": 1, "k": 8, "minutes": 1, "ood": "train"}
SHAPES = (
    *("data=shapes", "data.size=16", "data.scales=2", "data.orientations=4", "data.positions=6"),
    *("data.num_train=256", "data.num_valid=64", "data.num_test=192"),
)


@pytest.mark.parametrize(
    "kind", [kind if kind != "flow" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_a_fitted_prior_is_judged_with_noise_that_it_was_not_fitted_to(kind: str) -> None:
    """Posteriors near N(0, I), so that the encodings are almost their noise."""
    cfg = compose(*SMALL, "latent_dim=8")
    data = loaded(cfg)
    rates = []
    for seed in range(3):
        model = build_model(cfg, data.facts.data_shape, data.facts.levels)
        z = encode(model, data.split("train"), noise=Noise(seed, "fit", "train")).z
        settings = {"gmm": {"components": 10}, "kde": {"bandwidth": 0.5}}.get(kind, {})
        model.prior = fit_prior(node(kind, **settings), model, z, seed, BUILDER)
        for split in ("train", "test"):
            values = image_bounds(model, data.split(split), noise=Noise(seed, "judge", split))["rate"]
            rates.append(Estimate.mean_of(values))
    for rate in rates:
        assert rate.value >= -3 * rate.se
    for one, other in zip(rates, rates[2:], strict=False):  # of the same split
        assert abs(one.value - other.value) < 4 * math.hypot(one.se, other.se)


@pytest.fixture(scope="module", params=[SHAPES, ("data=digits",)], ids=["shapes", "digits"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A small model of images with factors, or of binary ones with labels."""
    folder = tmp_path_factory.mktemp("runs")
    words = ("model.encoder.hidden=[32]", "model.decoder.hidden=[32]", "latent_dim=4", "lr=1e-2", "epochs=10")
    run = vae_train.train(*request.param, *words, "logger=none", out=str(folder / "run"))
    device = torch.device("cpu")
    model, data = open_model(run, device, BUILDER), load_data(run.config, DataSession(), device, BUILDER)
    return Subject(model, data, "test", folder, 0, 512, None, 1.0, folder, lambda name: data.split("train"))


def estimates(subject: Subject, **changes: object) -> dict[str, Estimate]:
    nodes = {
        path.stem: OmegaConf.load(path) for path in sorted((CONF / "metric").glob("*.yaml")) if path.stem != "maps"
    }
    cfg = plain(OmegaConf.create({"metrics": nodes, **KNOBS}))
    metrics = [build(metric) for metric in cfg["metrics"].values()]
    return evaluate(dataclasses.replace(subject, results={}, plots=[], **changes), metrics).estimates


@pytest.fixture(scope="module")
def whole(subject: Subject) -> dict[str, Estimate]:
    return estimates(subject)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7])
def test_no_metric_depends_on_the_batch_size(subject: Subject, whole: dict[str, Estimate], batch_size: int) -> None:
    found = estimates(subject, batch_size=batch_size)
    assert found.keys() == whole.keys()
    assert {"psnr", "frechet_distance", "recall", "auroc"} <= found.keys()
    assert {"ssim", "dci_completeness"} <= found.keys() or {"linear_probe"} <= found.keys()
    for name, estimate in whole.items():
        assert found[name].value == pytest.approx(estimate.value, rel=1e-3, abs=1e-3), name


@pytest.mark.slow
def test_no_metric_depends_on_the_order_of_the_images(subject: Subject, whole: dict[str, Estimate]) -> None:
    test = subject.data.splits["test"]
    order = torch.randperm(len(test), generator=generator(0, "permuted"))
    images = dataclasses.replace(test, store=TensorStore(test.store.pixels[order]), labels=test.labels[order])
    data = dataclasses.replace(subject.data, splits={**subject.data.splits, "test": images})
    for name, estimate in estimates(subject, data=data).items():
        error = 3 * math.hypot(estimate.se or 0.0, whole[name].se or 0.0)
        assert abs(estimate.value - whole[name].value) <= max(error, 0.1 * abs(estimate.value), 0.05), name
