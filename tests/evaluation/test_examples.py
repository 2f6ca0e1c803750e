"""Examples that a report shows."""

from __future__ import annotations

import pytest
import torch

from tests.support import NOISE, build_model, compose, loaded
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.examples import rank_reconstructions
from vae_train.evaluation.subject import Subject, Subset


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    cfg = compose("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=3")
    data = loaded(cfg)
    model = build_model(cfg, data.facts.data_shape, data.facts.levels)
    folder = tmp_path_factory.mktemp("subject")
    return Subject(model, data, "test", folder, 0, 100, None, 1.0, folder, lambda name: data.split(name))


def test_the_worst_and_best_are_those_of_all_images(subject):
    best, worst = rank_reconstructions(subject, limit=150, count=4)
    distortion = image_bounds(subject.model, Subset(subject.images, 150), noise=NOISE, batch_size=100)["distortion"]
    ordered = distortion.sort().values
    assert torch.tensor([example.distortion for example in best]) == pytest.approx(ordered[:4])
    assert torch.tensor([example.distortion for example in worst]) == pytest.approx(ordered.flip(0)[:4])
    index = Subset(subject.images, 150).index
    assert [example.number for example in worst] == index[distortion.argsort(descending=True)[:4]].tolist()


def test_few_images_are_not_in_both_lists(subject):
    best, worst = rank_reconstructions(subject, limit=5, count=8)
    assert (len(best), len(worst)) == (2, 2)
    assert len({example.number for example in [*best, *worst]}) == 4
