import pytest
import torch

from tests.support import BINARY, NOISE, build_model, compose, loaded
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.encodings import encode
from vae_train.evaluation.subject import Subset
from vae_train.evaluation.traversals import TRAVERSAL_LIMIT, LatentRange, mean_rates, traverse
from vae_train.model.base import SingleLatent

VECTOR = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=3")
SPATIAL = ("model=conv_spatial", "latent_shape=[2,2,2]", "model.encoder.channels=4", "model.decoder.channels=4")


def model_and_images(*overrides: str) -> tuple[SingleLatent, Subset]:
    cfg = compose(*overrides)
    data = loaded(cfg)
    model = build_model(cfg, data.facts.data_shape, data.facts.levels).eval()
    return model, Subset(data.split("test"), 70)


def test_a_traversal_moves_one_element_over_the_range_of_the_encodings():
    model, images = model_and_images(*VECTOR)
    encodings = encode(model, images, noise=NOISE)
    (row,) = traverse(model, encodings.mean[0], [1], LatentRange.of(encodings, 3), steps=5)
    z, values = encodings.mean[0].repeat(5, 1), encodings.z[:, 1]
    reach = TRAVERSAL_LIMIT * values.std(unbiased=False)
    z[:, 1] = torch.linspace(float(values.mean() - reach), float(values.mean() + reach), 5)
    assert row == pytest.approx(model.decode(z).mean.detach(), abs=1e-5)


def test_a_channel_moves_as_a_whole():
    model, images = model_and_images(*SPATIAL)
    encodings = encode(model, images, noise=NOISE)
    z, reach = encodings.mean[3].view(2, 2, 2), LatentRange.of(encodings, 2)
    rows = traverse(model, z, [1, 0], reach, steps=3)
    assert len(rows) == 2
    means = encodings.z.view(-1, 2, 4).mean(2)[:, 1]
    moved = z.clone()
    moved[1] += means.mean() - TRAVERSAL_LIMIT * means.std(unbiased=False) - z[1].mean()
    assert rows[0][0] == pytest.approx(model.decode(moved[None]).mean[0].detach(), abs=1e-5)


def test_a_conditional_model_keeps_its_condition():
    model, images = model_and_images(*VECTOR, "model.condition=label")
    encodings = encode(model, images, noise=NOISE)
    reach, y = LatentRange.of(encodings, 3), torch.tensor([[4]])
    (row,) = traverse(model, encodings.mean[0], [0], reach, steps=1, y=y)
    z = encodings.mean[:1].clone()
    z[0, 0] = reach.mean[0] - TRAVERSAL_LIMIT * reach.std[0]
    assert row == pytest.approx(model.decode(z, y).mean.detach(), abs=1e-5)


@pytest.mark.parametrize("overrides", [VECTOR, SPATIAL, (*VECTOR, "model.condition=label"), (*VECTOR, *BINARY)])
def test_the_rates_of_latents_add_up_to_the_rate(overrides):
    model, images = model_and_images(*overrides)
    rates = mean_rates(model, images, noise=NOISE, batch_size=32)
    assert len(rates) == model.latent_shape[0]
    expected = image_bounds(model, images, noise=NOISE)["rate"].double().mean()
    torch.testing.assert_close(rates.sum(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_closed_form_latents_have_no_rates():
    model, images = model_and_images(*VECTOR, "model/prior=mixture")
    assert mean_rates(model, images, noise=NOISE, batch_size=32) is None
