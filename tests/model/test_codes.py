"""Posteriors on codes: a model with few codes, whose evidence is a sum over all of them."""

from __future__ import annotations

import itertools
import math
from functools import partial

import pytest
import torch
from torch import nn

from vae_train.batch import Batch
from vae_train.distributions.base import Distribution
from vae_train.distributions.codes import Codes
from vae_train.model.base import Network, Prior
from vae_train.model.likelihood.gaussian import Gaussian as GaussianPixels
from vae_train.model.posterior.categorical import Categorical
from vae_train.model.posterior.fsq import FiniteScalar
from vae_train.model.posterior.rvq import ResidualQuantized
from vae_train.model.posterior.vq import VectorQuantized
from vae_train.model.prior.categorical import Categorical as CategoricalPrior
from vae_train.model.prior.uniform_codes import UniformCodes
from vae_train.model.vae import VAE
from vae_train.rng import Rng

SHAPE = (1, 4, 4)

LEARNED = {"learning": "ema", "decay": 0.9, "commitment": 0.25, "revive": 0.1, "start": "random"}

POSTERIORS = {
    "fsq": ([2, 1, 2], partial(FiniteScalar, levels=[2, 3])),
    "fsq_vector": ([3], partial(FiniteScalar, levels=[2, 3, 4])),
    "vq": ([3, 1, 2], partial(VectorQuantized, num_codes=4, **LEARNED)),
    "vq_vector": ([2], partial(VectorQuantized, num_codes=5, **{**LEARNED, "learning": "gradient"})),
    "rvq": ([3, 1, 2], partial(ResidualQuantized, quantizers=2, num_codes=3, **LEARNED)),
}
"""Shape of z, and a posterior with few codes."""

posteriors = pytest.mark.parametrize("name", POSTERIORS)
unique = pytest.mark.parametrize("name", [name for name in POSTERIORS if name != "rvq"])
"""Posteriors whose codes are known from their vectors."""


class Linear(Network):
    """A linear map of all elements."""

    def __init__(self, in_shape, out_shape):
        super().__init__(in_shape, out_shape)
        self.map = nn.Linear(math.prod(in_shape), math.prod(out_shape))

    def forward(self, h):
        return self.map(h.flatten(1)).view(-1, *self.out_shape)


class Table(Distribution):
    """Independent indices with the same unequal probabilities."""

    def __init__(self, log_mass, code_shape):
        self.log_mass = log_mass
        super().__init__(torch.Size(code_shape), len(code_shape))

    @property
    def mean(self):
        raise NotImplementedError

    def joint_log_prob(self, x):
        return self._sum(self.log_mass[x])

    def sample(self, rng, num, temperature=1.0):
        uniform = rng.uniform((num, *self.event_shape), self.log_mass.dtype)
        return (self.log_mass.exp().cumsum(0)[:-1] <= uniform[..., None]).sum(-1)


class TablePrior(Prior):
    """A prior over codes that are not equally likely."""

    supports = ("codes", "categorical")
    over_codes = True

    def __init__(self, event_shape, data_shape, num_codes):
        super().__init__(event_shape, data_shape, num_codes)
        self.logits = nn.Parameter(torch.linspace(-1, 1, num_codes))

    def forward(self, encode):
        return Table(self.logits.log_softmax(0), self.event_shape)


def model_of(name, prior=UniformCodes):
    shape, posterior = POSTERIORS[name]
    return _model(shape, posterior, prior)


def _model(shape, posterior, prior):
    torch.manual_seed(0)
    model = VAE(
        SHAPE,
        None,
        shape,
        encoder=Linear,
        decoder=Linear,
        posterior=posterior,
        prior=prior,
        likelihood=partial(GaussianPixels, scale=1.0, scale_mode="fixed"),
        condition=None,
        output_bias="init",
        factor_sizes=(),
    ).double()
    with torch.no_grad():
        model.encoder.map.weight.mul_(4)
    return model


def every_code(model):
    """All arrays of indices of one z, `(N, *code_shape)`."""
    book = model.codebook
    rows = list(itertools.product(range(book.num_codes), repeat=math.prod(book.code_shape)))
    return torch.tensor(rows).view(-1, *book.code_shape)


def batch(size=20):
    return Batch(torch.randn(size, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


def evidence(model, x):
    """log p(x) as a sum over all codes."""
    indices = every_code(model)
    log_p = model.prior(model.encode).log_prob(indices)
    px = model.decode(model.codebook.embed(indices))
    scores = torch.stack([px.log_prob(image) for image in x])
    return (scores + log_p).logsumexp(1)


@unique
def test_vectors_of_codes_have_their_codes(name):
    model = model_of(name)
    indices = every_code(model)
    z = model.codebook.embed(indices)
    assert z.shape == (len(indices), *model.latent_shape)
    assert torch.equal(model.codebook.indices(z), indices)
    assert len(z.flatten(1).unique(dim=0)) == len(indices)


@posteriors
@pytest.mark.parametrize("prior", [UniformCodes, TablePrior])
def test_masses_of_all_codes_sum_to_1(name, prior):
    model = model_of(name, prior)
    indices = every_code(model)
    masses = model.prior(model.encode).log_prob(indices).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-12)
    if name != "rvq":
        assert torch.equal(model.prior_of().log_prob(model.codebook.embed(indices)).exp(), masses)


@posteriors
@pytest.mark.parametrize("prior", [UniformCodes, TablePrior])
def test_the_bound_is_the_joint_of_the_codes_and_below_the_evidence(name, prior):
    model, data = model_of(name, prior), batch()
    q = model.encode(data.x)
    assert q.codes.shape == (len(data.x), *model.codebook.code_shape)
    trace = model(data, Rng(0, "x"))
    log_p = model.prior(model.encode).log_prob(q.codes)
    joint = model.decode(model.codebook.embed(q.codes)).log_prob(data.x) + log_p
    assert torch.equal(trace.rate(), -log_p)
    assert torch.allclose(trace.elbo(), joint, rtol=0, atol=1e-12)
    assert (joint < evidence(model, data.x)).all()


@posteriors
def test_the_rate_is_constant_under_the_uniform_prior(name):
    model = model_of(name)
    expected = math.prod(model.codebook.code_shape) * math.log(model.codebook.num_codes)
    rate = model(batch(), Rng(0, "x")).rate()
    assert torch.allclose(rate, torch.full_like(rate, expected), atol=1e-6)


@posteriors
def test_all_samples_of_an_image_are_equal_and_so_are_their_weights(name):
    model, data = model_of(name, TablePrior), batch()
    trace = model(data, Rng(0, "x"), 3)
    assert torch.equal(trace.latents[0].z, trace.latents[0].z[:1].expand(3, -1, *model.latent_shape))
    assert torch.allclose(trace.log_weight(), trace.elbo().expand(3, -1), rtol=0, atol=1e-12)


@unique
@pytest.mark.parametrize("prior", [UniformCodes, TablePrior])
def test_samples_of_the_prior_have_the_masses_of_their_codes(name, prior):
    model, num = model_of(name, prior), 40_000
    book, p = model.codebook, model.prior_of()
    indices = book.indices(p.sample(Rng(0, "x"), num))
    for code in every_code(model):
        mass = p.log_prob(book.embed(code)).exp().item()
        count = (indices == code).view(num, -1).all(1).sum().item()
        assert abs(count - num * mass) < 5 * math.sqrt(num * mass) + 1


@posteriors
def test_the_encoder_gets_the_gradient_of_the_vectors(name):
    model, data = model_of(name), batch()
    model(data, Rng(0, "x")).distortion().mean().backward()
    networks = [*model.encoder.parameters(), *model.decoder.parameters()]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in networks)
    assert all(p.grad is None or not p.grad.any() for p in model.posterior.parameters())


def test_a_prior_over_codes_can_replace_that_of_categories():
    posterior = partial(Categorical, categories=3, temperature=0.5, hard=True)
    model = _model([6], posterior, partial(CategoricalPrior, categories=3, learned=False))
    uniform = model.prior_of().log_prob(model.codebook.embed(every_code(model)).double())
    model.prior = TablePrior(model.codebook.code_shape, SHAPE, model.codebook.num_codes).double()
    assert isinstance(model.prior_of(), Codes)
    masses = model.prior_of().log_prob(model.codebook.embed(every_code(model)))
    assert masses.exp().sum().item() == pytest.approx(1)
    assert not torch.allclose(masses, uniform)
    with torch.no_grad():
        trace = model(batch(), Rng(0, "x"), 4)
        codes = model.codebook.indices(trace.latents[0].z)
        log_ratio = model.prior(model.encode).log_prob(codes) - trace.latents[0].q.log_prob(trace.latents[0].z)
    assert torch.allclose(trace.rate(), -log_ratio.mean(0))
    assert model.float().sample(5, Rng(0, "x")).mean.shape == (5, *SHAPE)


@pytest.mark.parametrize(
    ("shape", "levels", "message"),
    [
        ([3], [8, 5], "levels has 2 entries for 3 numbers; use latent_dim=2"),
        ([3, 2, 2], [8, 5], r"use latent_shape=\[2,2,2\]"),
        ([64], 4, r"levels=\[8,5,5,5\] with latent_dim=4"),
        ([2], [4, 1], "at least 2 levels"),
    ],
)
def test_impossible_levels_are_refused(shape, levels, message):
    with pytest.raises(ValueError, match=message):
        FiniteScalar(tuple(shape), levels)
