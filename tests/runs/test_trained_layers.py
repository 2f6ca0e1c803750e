"""A trained model with several layers of latents in Python: latents are lists, with an entry per layer."""

from __future__ import annotations

import copy

import pytest
import torch

import vae_train
from tests.support import BINARY
from vae_train.rng import Rng
from vae_train.runs.trained import TrainedModel

LADDER = ("model=lvae", "model.latents=[5,3,2]", "model.hidden=[16,8,8]", "steps=20", "batch_size=64", "logger=none")
SHAPES = [(2,), (3,), (5,)]
"""Shapes of z, the topmost first."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return vae_train.load(vae_train.train(*LADDER, *BINARY, out=tmp_path_factory.mktemp("runs") / "ladder").folder)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()


def test_encodings_have_an_entry_per_layer(model: TrainedModel, x: torch.Tensor) -> None:
    z = model.encode(x)
    assert len(z) == 3
    for values in (z.mean, z.std, z.sample(seed=1), [layer.mean for layer in z], [layer.sample(1) for layer in z]):
        assert [value.shape for value in values] == [(5, *shape) for shape in SHAPES]
    assert all((std > 0).all() for std in z.std)


def test_means_are_those_given_the_means_above(model: TrainedModel, x: torch.Tensor) -> None:
    latents = model.model.infer(x, None, Rng(0, "unused"), temperature=0.0)
    for layer, latent in zip(model.encode(x), latents, strict=True):
        assert torch.allclose(layer.mean, latent.z[0], atol=1e-6)
        assert torch.allclose(layer.std, latent.q.variance.sqrt().broadcast_to(latent.z.shape)[0], atol=1e-6)


def test_samples_belong_to_images_and_not_to_batches(model: TrainedModel, x: torch.Tensor) -> None:
    whole, part = model.encode(x), model.encode(x[:2])
    for a, b in zip([*whole.sample(3), *whole.mean], [*part.sample(3), *part.mean], strict=True):
        assert torch.allclose(a[:2], b, atol=1e-6)
    for a, b in zip(whole, part, strict=True):
        assert torch.allclose(a.sample(3)[:2], b.sample(3), atol=1e-6)
    assert not torch.allclose(whole.sample(3)[0], whole.sample(4)[0])


@torch.no_grad()
def test_layers_are_sampled_together(model: TrainedModel, x: torch.Tensor) -> None:
    """z of the second layer varies more than given the mean of the first."""
    model = copy.deepcopy(model)
    for prior in model.model.priors:
        prior.weight.mul_(20)
    many = x[:1].expand(4000, -1, -1, -1)
    z = model.encode(many)
    together, alone = z.sample()[1].var(0), z[1].sample().var(0)
    expected = model.model.infer(many, None, Rng(0, "other"))[1].z[0].var(0)
    assert torch.allclose(together, expected, rtol=0.2)
    assert (together > 1.3 * alone).any()


def test_reconstructions_decode_the_means_of_all_layers(model: TrainedModel, x: torch.Tensor) -> None:
    decoded = model.decode(model.encode(x).mean)
    assert decoded.shape == (5, 1, 8, 8)
    assert torch.equal(model.reconstruct(x), decoded)
    assert torch.equal(model.decode([z.numpy() for z in model.encode(x).mean]), decoded)


def test_what_is_not_a_list_of_latents(model: TrainedModel) -> None:
    with pytest.raises(ValueError, match="list of 3 tensors, one per layer of latents, the topmost first"):
        model.decode(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="list of 3 tensors"):
        model.decode([torch.zeros(1, 2)])
    with pytest.raises(ValueError, match=r"layer 2 of z has shape \(4, 5\), expected \(4, 3\)"):
        model.decode([torch.zeros(4, 2), torch.zeros(4, 5), torch.zeros(4, 3)])
    with pytest.raises(ValueError, match=r"layer 3 of z has shape \(2, 5\), expected \(4, 5\)"):
        model.decode([torch.zeros(4, 2), torch.zeros(4, 3), torch.zeros(2, 5)])


def test_scores_have_the_rate_of_every_layer(model: TrainedModel, x: torch.Tensor) -> None:
    scores = model.score(x, k=20)
    assert torch.allclose(scores["rate_1"] + scores["rate_2"] + scores["rate_3"], scores["rate"], atol=1e-4)
    assert torch.allclose(scores["elbo"], -scores["rate"] - scores["distortion"], atol=1e-4)
    assert torch.allclose(-scores["nll"].float(), model.log_prob(x, k=20).float(), atol=1e-3)


def test_a_path_moves_all_layers(model: TrainedModel, x: torch.Tensor) -> None:
    path, ends = model.interpolate(x[:1], x[1:2], 5), model.encode(x[:2]).mean
    assert torch.allclose(path[[0, -1]], model.reconstruct(x[:2]), atol=1e-6)
    assert torch.allclose(path[2], model.decode([z.mean(0)[None] for z in ends])[0], atol=1e-6)


def test_every_layer_may_have_its_temperature(model: TrainedModel) -> None:
    assert torch.equal(model.sample(4, [1, 1, 1], seed=2), model.sample(4, 1.0, seed=2))
    assert torch.equal(model.sample(4, [0.5, 0.5, 0.5], seed=2), model.sample(4, 0.5, seed=2))
    at_mean = model.sample(4, [0, 0, 0])
    assert torch.allclose(at_mean, at_mean[:1].expand_as(at_mean))
    only_top = model.sample(4, [1, 0, 0])
    assert not torch.allclose(only_top, only_top[:1].expand_as(only_top))
    with pytest.raises(ValueError, match="one number, or 3: one per stochastic layer"):
        model.sample(4, [1, 0.8])


def test_what_needs_a_single_latent_says_so(model: TrainedModel, x: torch.Tensor) -> None:
    for call in (lambda: model.traverse(x[:1]), lambda: model.inpaint(x[:1], torch.ones(8, 8, dtype=torch.bool))):
        with pytest.raises(TypeError, match="needs a single latent; the model has 3 layers of latents"):
            call()
