from __future__ import annotations

import math

import pytest
import torch

from tests.support import NOISE, SMALL, build, build_model, compose, load, tensor_images
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.metrics.base import Estimate
from vae_train.rng import BlockRng

NUM = 150


@pytest.fixture(scope="module", params=["dynamic", "none"])
def setting(request):
    """Binary digits with a Bernoulli likelihood, or grey ones with a Gaussian likelihood."""
    likelihood = "bernoulli" if request.param == "dynamic" else "gaussian"
    cfg = compose(*SMALL, f"data.binarize={request.param}", f"model/likelihood={likelihood}")
    data = load(build(cfg.data))
    shape, levels = data.facts.data_shape, data.facts.levels
    return build_model(cfg, shape, levels), tensor_images(data.split("test").stored.pixels[:NUM], levels)


def bounds(model, images, noise=NOISE, **options):
    found = image_bounds(model, images, noise=noise, **options)
    return {name: Estimate.mean_of(values) for name, values in found.items()}


@torch.no_grad()
def direct(model, images, num_samples=1):
    batch = images.fetch(torch.arange(len(images)), BlockRng(0, NOISE.data, 0))
    return model(batch, NOISE.latents(0, torch.device("cpu")), num_samples)


@pytest.mark.parametrize("num_samples", [1, 4])
def test_metrics_equal_a_direct_computation(setting, num_samples):
    model, images = setting
    found = bounds(model, images, num_samples=num_samples, batch_size=64)
    trace = direct(model, images, num_samples)
    assert found["elbo"].value == pytest.approx(trace.elbo().mean().item(), rel=1e-5)
    assert found["distortion"].value == pytest.approx(trace.distortion().mean().item(), rel=1e-5)
    assert found["rate"].value == pytest.approx(trace.rate().mean().item(), rel=1e-5)
    assert {found[name].n for name in ("elbo", "rate", "distortion")} == {NUM}
    assert found["elbo"].value == pytest.approx(-found["distortion"].value - found["rate"].value)


def test_the_direct_computation_equals_a_loop_over_images(setting):
    model, images = setting
    batch, noise = images.fetch(torch.arange(NUM)), NOISE.latents(0, torch.device("cpu")).normal((1, NUM, 3))[0]
    total = 0.0
    for i in range(NUM):
        q = model.encode(batch.x[i : i + 1])
        mean, scale = q.mean[0], q.log_scale[0].exp()
        px = model.decode(mean + scale * noise[i])
        rate = 0.5 * (mean**2 + scale**2 - 1 - 2 * scale.log()).sum()
        total += (px.log_prob(batch.x[i]) - rate).item()
    assert bounds(model, images)["elbo"].value == pytest.approx(total / NUM, rel=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 64, 100, 149])
def test_the_batch_size_changes_rounding_only(setting, batch_size):
    model, images = setting
    whole, cut = (bounds(model, images, batch_size=size, num_samples=2) for size in (NUM, batch_size))
    for name in ("elbo", "distortion", "rate"):
        assert cut[name].value == pytest.approx(whole[name].value, abs=1e-4)
        assert cut[name].se == pytest.approx(whole[name].se, abs=1e-4)


def test_the_standard_error_is_that_of_the_mean_over_images(setting):
    model, images = setting
    values = direct(model, images).elbo().double()
    spread = math.sqrt(((values - values.mean()) ** 2).sum().item() / (NUM - 1))
    assert bounds(model, images)["elbo"].se == pytest.approx(spread / math.sqrt(NUM), rel=1e-5)


def test_one_image_has_no_standard_error(setting):
    model, images = setting
    found = bounds(model, tensor_images(images.stored.pixels[:1], images.stored.levels))
    assert found["elbo"].se is None


def test_bits_per_dim_follow_the_formula(setting):
    model, images = setting
    found = bounds(model, images)
    bins = 0.0 if images.stored.levels == 2 else math.log(images.stored.levels)
    for key, sign, offset in (("value", -1, bins), ("se", 1, 0.0)):
        expected = (sign * getattr(found["elbo"], key) / 64 + offset) / math.log(2)
        assert getattr(found["bits_per_dim"], key) == pytest.approx(expected, rel=1e-5)


def test_what_is_no_likelihood_has_no_bits_per_dim():
    model = build_model(compose(*SMALL, "model.likelihood.grey_targets=true"), (1, 8, 8), 17)
    assert "bits_per_dim" not in bounds(model, tensor_images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), 17))


def test_metrics_are_a_function_of_the_seed(setting):
    model, images = setting
    first, again, other = (bounds(model, images, noise=NOISE._replace(seed=seed))["elbo"].value for seed in (1, 1, 2))
    assert first == again != other
