"""A trained model works in the units of its data, whatever preprocessing and condition the run has."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vae_train
from tests.support import BINARY, NOISE
from vae_train.batch import DataFacts
from vae_train.data.dataset import Transforms
from vae_train.data.stream import evaluation_batches
from vae_train.data.transforms.preprocessing import Preprocessing
from vae_train.evaluation.metrics.nll import estimate_log_likelihood
from vae_train.model.base import LatentVariableModel
from vae_train.runs.run import Run
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import UsageError

TINY = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=2", "logger=none", "epochs=1")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vae_train.train(*TINY, *BINARY, out=tmp_path_factory.mktemp("runs") / "binary")


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()


def test_train_reports_all_errors_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        vae_train.train("data=mnits", beta=-1, nothing=3)
    assert [e.where for e in caught.value.errors] == ["data=mnits", "nothing=3", "beta=-1"]
    assert not Path("outputs").exists()


def test_shapes(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    assert not model.model.training
    assert model.encode(x).mean.shape == (5, 2)
    assert model.decode(torch.zeros(3, 2)).shape == (3, 1, 8, 8)
    assert model.sample(300).shape == (300, 1, 8, 8)
    assert model.log_prob(x).shape == (5,)
    with pytest.raises(ValueError, match=r"expected \(B, 1, 8, 8\)"):
        model.encode(x[0])
    with pytest.raises(ValueError, match="out of range"):
        model.encode(2 * x)


def test_pixels_may_be_bytes_and_are_rounded_to_levels(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    bits = model.encode(x).mean
    assert torch.equal(model.encode((255 * x).to(torch.uint8)).mean, bits)
    assert torch.equal(model.encode((0.3 + 0.4 * x).numpy()).mean, bits)


def test_noise_is_a_function_of_the_seed(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    for method in (model.reconstruct, model.log_prob, lambda x, seed: model.sample(4, seed=seed)):
        assert torch.equal(method(x, seed=1), method(x, seed=1))
        assert not torch.equal(method(x, seed=1), method(x, seed=2))


def test_log_prob_is_the_importance_weighted_bound(run: Run) -> None:
    from vae_train.cli.commands.train import Settings
    from vae_train.cli.overrides import compose_jobs
    from vae_train.runs.build import load_data

    (job,), _ = compose_jobs("train", [*TINY, *BINARY], Settings)
    images = load_data(job.config, job.session, torch.device("cpu"), job.builder).split("test")
    model = vae_train.load(run.folder)
    bound = estimate_log_likelihood(model.model, images, 200, noise=NOISE).log_p[-1]
    total = torch.cat([model.log_prob(b.x, num_samples=200) for _, b in evaluation_batches(images, 64)])
    assert total.mean().item() == pytest.approx(bound.mean().item(), abs=0.05)


def test_preprocessing_and_its_jacobian_are_applied(run: Run, x: torch.Tensor) -> None:
    words = ("data.binarize=none", "model/likelihood=gaussian", "preprocessing.dequantize=true")
    model = vae_train.load(vae_train.train(*TINY, *words, out="plain").folder)
    grey = (x * 7 + 5) / 16
    # The network sees and returns values that are twice as large, of which its likelihood has half the density.
    stretched = TrainedModel(
        _Stretched(model.model), model.facts, Transforms(preprocessing=Preprocessing(True, None, None, 0.5))
    )
    assert torch.allclose(stretched.log_prob(grey), model.log_prob(grey), atol=1e-3)
    assert torch.allclose(stretched.reconstruct(grey), model.reconstruct(grey), atol=1e-5)


class _Stretched(LatentVariableModel):
    """A model of 2 v, made from a model of v."""

    def __init__(self, model: LatentVariableModel) -> None:
        super().__init__()
        self.inner = model

    @classmethod
    def traits(cls, **settings):
        raise NotImplementedError

    def forward(self, batch, rng, num_samples=1):
        trace = self.inner(batch._replace(x=batch.x / 2), rng, num_samples)
        zero = torch.zeros(batch.x.shape[1:])
        px = trace.px.affine(zero, zero + math.log(2))
        return dataclasses.replace(trace, x=batch.x, px=px)

    def sample(self, num, rng, temperature=1.0, y=None):
        raise NotImplementedError


def test_arrays_keep_their_own_numbers_and_their_layout() -> None:
    values = 100 + 10 * np.random.default_rng(0).random((200, 3)).astype(np.float32)
    np.save("vectors.npy", values)
    run = vae_train.train(*TINY, "data=arrays", "data.path=vectors.npy", out="arrays")
    model, x = vae_train.load(run.folder), values[:5]
    assert model.sample(50).shape == (50, 3)
    assert 95 < float(model.reconstruct(x).min()) <= float(model.sample(50).max()) < 115
    assert torch.equal(model.log_prob(x), model.log_prob(x.reshape(5, 1, 1, 3)))
    standard = TrainedModel(model.model, model.facts._replace(units=None), model.transforms)
    mean, scale = (model.facts.units.array(name) for name in ("shift", "scale"))
    own = standard.log_prob((x.reshape(5, 1, 1, 3) - mean) / scale)
    assert torch.allclose(model.log_prob(x), own - float(np.log(scale).sum()), atol=1e-3)


def test_a_conditional_model_needs_its_condition(x: torch.Tensor) -> None:
    run = vae_train.train(*TINY, "model.condition=label", out="conditional")
    model = vae_train.load(run.folder)
    with pytest.raises(ValueError, match="pass y="):
        model.encode(x)
    labels = torch.arange(5)
    assert torch.equal(model.encode(x, labels).mean, model.encode(x, labels[:, None]).mean)
    assert not torch.equal(model.decode(torch.zeros(2, 2), [1, 2])[0], model.decode(torch.zeros(2, 2), 2)[0])
    assert model.reconstruct(x, 3).shape == model.sample(5, y=3).shape == (5, 1, 8, 8)
    assert model.sample(12).shape == (12, 1, 8, 8)
    with pytest.raises(ValueError, match="y has shape"):
        model.encode(x, [1, 2])


def test_a_condition_is_ignored_by_other_models(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    assert torch.equal(model.encode(x, 3).mean, model.encode(x).mean)


def test_load_says_what_is_wrong(run: Run) -> None:
    with pytest.raises(UsageError, match="no run at nowhere"):
        vae_train.load("nowhere")
    assert isinstance(vae_train.load(run.folder, "last").facts, DataFacts)
