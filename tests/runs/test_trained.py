"""A trained model works in the units of its data, whatever preprocessing and condition the run has."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import vae_train
from tests.runs.conftest import TINY
from tests.support import BINARY, NOISE
from vae_train.batch import DataFacts
from vae_train.data.dataset import Transforms
from vae_train.data.stream import evaluation_batches
from vae_train.data.transforms.preprocessing import Preprocessing
from vae_train.evaluation.metrics.nll import estimate_log_likelihood
from vae_train.model.base import SingleLatent
from vae_train.runs.run import Run
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import UsageError

pytestmark = pytest.mark.usefixtures("own_folder")


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
        model.encode(x[0, 0])
    with pytest.raises(ValueError, match="values from 0 to 2, which is out of range"):
        model.encode(2 * x)
    with pytest.raises(ValueError, match=r"z has shape \(3, 3\), expected \(N, 2\)"):
        model.decode(torch.zeros(3, 3))
    with pytest.raises(ValueError, match=r"torch\.int64; images are uint8"):
        model.encode(x.long())


def test_images_may_have_their_channels_last(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    for other in (x.permute(0, 2, 3, 1), x[:, 0], x.numpy().transpose(0, 2, 3, 1), x.bool()):
        assert torch.equal(model.encode(other).mean, model.encode(x).mean)
    with pytest.raises(ValueError, match=r"x has shape \(5, 8, 9\), expected \(B, 1, 8, 8\) or \(B, 8, 8, 1\)"):
        model.encode(torch.zeros(5, 8, 9))


def test_pixels_may_be_bytes_and_are_rounded_to_levels(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    bits = model.encode(x).mean
    assert torch.equal(model.encode((255 * x).to(torch.uint8)).mean, bits)
    assert torch.equal(model.encode((0.3 + 0.4 * x).numpy()).mean, bits)


def test_noise_is_a_function_of_the_seed(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    for method in (
        model.encode(x).sample,
        lambda seed: model.log_prob(x, seed=seed),
        lambda seed: model.sample(4, seed=seed),
    ):
        assert torch.equal(method(seed=1), method(seed=1))
        assert not torch.equal(method(seed=1), method(seed=2))
    many = x.repeat(60, 1, 1, 1)  # more than one pass
    assert torch.equal(model.encode(many).sample(), model.encode(many).sample())
    assert torch.equal(model.encode(many[:70]).sample(), model.encode(many).sample()[:70])


def test_reconstructions_decode_the_means(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    assert torch.equal(model.reconstruct(x), model.decode(model.encode(x).mean))


def test_paths_begin_and_end_at_reconstructions(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    path = model.interpolate(x[:1], x[1:2], 5)
    assert torch.allclose(path[[0, -1]], model.reconstruct(x[:2]), atol=1e-6)
    middle = model.encode(x[:2]).mean.mean(0, keepdim=True)
    assert torch.allclose(path[2:3], model.decode(middle), atol=1e-6)
    rows, z = model.traverse(x[:1], dimensions=[1]), model.encode(x[:1]).mean.clone()
    z[:, 1] = 2.5
    assert torch.allclose(rows[0, -1:], model.decode(z), atol=1e-6)


def test_scores_are_the_terms_of_the_bound(run: Run, x: torch.Tensor) -> None:
    scores = vae_train.load(run.folder).score(x, k=50)
    assert set(scores) == {"elbo", "rate", "distortion", "bits_per_dim", "nll", "nll_bits_per_dim"}
    assert torch.allclose(scores["elbo"], -(scores["rate"] + scores["distortion"]))
    assert torch.allclose(scores["nll_bits_per_dim"], scores["nll"] / 64 / math.log(2), atol=1e-5)
    assert torch.allclose(scores["bits_per_dim"], -scores["elbo"] / 64 / math.log(2), atol=1e-5)


def test_log_prob_is_the_importance_weighted_bound(run: Run) -> None:
    from vae_train.cli.commands.train import Settings
    from vae_train.cli.overrides import compose_jobs
    from vae_train.runs.build import load_data

    (job,), _ = compose_jobs("train", [*TINY, *BINARY], Settings)
    images = load_data(job.config, job.session, torch.device("cpu"), job.builder).split("test")
    model = vae_train.load(run.folder)
    bound = estimate_log_likelihood(model.model, images, 200, noise=NOISE).log_p[-1]
    total = torch.cat([model.log_prob(b.x, k=200) for _, b in evaluation_batches(images, 64)])
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


class _Stretched(SingleLatent):
    """A model of 2 v, made from a model of v."""

    def __init__(self, model: SingleLatent) -> None:
        super().__init__()
        self.inner, self.latent_shape = model, model.latent_shape

    @classmethod
    def traits(cls, **settings):
        raise NotImplementedError

    def forward(self, batch, rng, num_samples=1):
        trace = self.inner(batch._replace(x=batch.x / 2), rng, num_samples)
        return dataclasses.replace(trace, x=batch.x, px=self._stretched(trace.px))

    def encode(self, x, y=None):
        return self.inner.encode(x / 2, y)

    def decode(self, z, y=None):
        return self._stretched(self.inner.decode(z, y))

    def infer(self, x, y, rng, num_samples=1, temperature=1.0):
        return self.inner.infer(x / 2, y, rng, num_samples, temperature)

    @staticmethod
    def _stretched(px):
        zero = torch.zeros(px.event_shape)
        return px.affine(zero, zero + math.log(2))

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
    with pytest.raises(ValueError, match="pass label="):
        model.encode(x)
    labels = torch.arange(5)
    assert torch.equal(model.encode(x, labels).mean, model.encode(x, labels[:, None]).mean)
    assert not torch.equal(model.decode(torch.zeros(2, 2), [1, 2])[0], model.decode(torch.zeros(2, 2), 2)[0])
    assert model.reconstruct(x, 3).shape == model.sample(5, label=3).shape == (5, 1, 8, 8)
    assert model.sample(12).shape == (12, 1, 8, 8)
    with pytest.raises(ValueError, match="label has shape"):
        model.encode(x, [1, 2])
    with pytest.raises(ValueError, match="no such class; use 0 to 9"):
        model.sample(3, label="eel")


def test_a_condition_is_ignored_by_other_models(run: Run, x: torch.Tensor) -> None:
    model = vae_train.load(run.folder)
    assert torch.equal(model.encode(x, 3).mean, model.encode(x).mean)


def test_load_says_what_is_wrong(run: Run) -> None:
    with pytest.raises(UsageError, match="no run at nowhere"):
        vae_train.load("nowhere")
    assert isinstance(vae_train.load(run.folder, "last").facts, DataFacts)


def test_data_of_a_run_is_opened_in_the_units_of_its_model(run: Run) -> None:
    images, labels = vae_train.open_data(run.folder)
    assert images.shape[1:] == (1, 8, 8)
    assert set(np.unique(images)) == {0, 1}
    assert labels.shape == (len(images),)
    assert vae_train.load(run.folder).reconstruct(images[:3]).shape == (3, 1, 8, 8)
    with pytest.raises(UsageError, match=r"no such split; did you mean test\?"):
        vae_train.open_data(run.folder, "tset")


def test_arrays_of_a_run_are_opened_as_they_are_in_the_file() -> None:
    values = 100 + 10 * np.random.default_rng(0).random((200, 3))
    np.savez("table.npz", x=values, y=np.repeat(["eel", "cat"], 100))
    run = vae_train.train(*TINY, "data=arrays", "data.path=table.npz", "model.condition=label", out="table")
    images, labels = vae_train.open_data(run.folder, "train")
    rows = [np.flatnonzero(np.isclose(values, image, atol=1e-4).all(1)) for image in images]
    assert {len(row) for row in rows} == {1}
    assert [int(row[0] < 100) for row in rows] == labels.tolist()  # eel is class 1
    Path("table.npz").unlink()
    model = vae_train.load(run.folder)
    assert torch.equal(model.encode(images[:5], "eel").mean, model.encode(images[:5], 1).mean)
    assert torch.equal(
        model.encode(images, labels).mean, model.encode(images, ["cat" if n == 0 else "eel" for n in labels]).mean
    )
    assert model.sample(3, label="eel").shape == (3, 3)


def test_a_fitted_prior_replaces_the_models_own(run: Run) -> None:
    with pytest.raises(UsageError, match="has no fitted prior; fit it with: vae fit-prior"):
        vae_train.load(run.folder, prior="gmm")
    from vae_train.cli.main import run as command

    assert command(["fit-prior", f"run={run.folder}", "prior.components=2"]) == 0
    own, fitted = (vae_train.load(run.folder, prior=prior).sample(4) for prior in (None, "gmm"))
    assert own.shape == fitted.shape
    assert not torch.equal(own, fitted)
