"""What the plots of a model contain, computed another way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vae_train.data.session import DataSession
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.subject import Noise
from vae_train.plotting.sheet import Sheet
from vae_train.runs.build import Builder
from vae_train.runs.run import Run
from vae_train.runs.show.base import find_plot
from vae_train.runs.show.opened import OpenedRun
from vae_train.runs.show.options import Options

CPU = torch.device("cpu")


def opened(run: Path, **options: Any) -> OpenedRun:
    return OpenedRun(Run.open(run), Options(**options), Builder(), DataSession(), CPU)


def sheet(name: str, opened: OpenedRun) -> Sheet:
    contents = find_plot(name)(opened)
    assert contents.sheet is not None
    return contents.sheet


def test_samples_are_those_of_python(trained: Path) -> None:
    model = opened(trained, num=6, seed=4, temperature=0.5)
    expected = model.trained.sample(6, temperature=0.5, seed=4)
    assert torch.equal(sheet("prior", model).images, expected)


def test_extremes_have_the_highest_and_the_lowest_elbo(trained: Path) -> None:
    model = opened(trained, num=3)
    found = sheet("extremes", model)
    elbo = image_bounds(model.model, model.data.split("test"), noise=Noise(0, "judge", "test"))["elbo"]
    order = elbo.argsort(descending=True)
    index = torch.cat([order[:3], order.flip(0)[:3]])
    assert torch.equal(found.images, model.originals(index))
    values = [float(text.replace("−", "-")) for text in found.captions]
    assert values == pytest.approx(elbo[index].tolist(), abs=0.051)


def test_a_path_begins_and_ends_with_reconstructions_beside_the_originals(trained: Path) -> None:
    model = opened(trained, images=[5, 9], frames=4)
    images, ends = sheet("interpolate", model).images, torch.tensor([5, 9])
    assert torch.equal(images[[0, 5]], model.originals(ends))
    x = model.originals(ends)
    expected = model.trained.reconstruct(x)
    assert images[[1, 4]] == pytest.approx(expected, abs=1e-5)
    z = model.trained.encode(x).mean
    assert images[2] == pytest.approx(model.trained.decode((2 * z[:1] + z[1:]) / 3)[0], abs=1e-5)


def test_latents_are_labelled_and_ordered_by_their_rate(trained: Path) -> None:
    model = opened(trained, split="valid")
    found = sheet("traverse", model)
    names, rates = zip(*(text.split(" · ") for text, _ in found.left), strict=True)
    values = [float(rate.removesuffix(" nats")) for rate in rates]
    assert sorted(names) == ["z1", "z2"]
    assert values == sorted(values, reverse=True)
    bounds = image_bounds(model.model, model.data.split("valid"), noise=Noise(0, "judge", "valid"))
    assert sum(values) == pytest.approx(float(bounds["rate"].mean()), abs=0.11)


def test_neighbours_are_the_nearest_training_images_of_the_samples(trained: Path) -> None:
    model = opened(trained, num=2, columns=3)
    found = sheet("neighbours", model)
    samples = model.trained.to_pixels(model.trained.sample(64))
    train = model.data.split("train")
    pixels = model.pixels(train.fetch(torch.arange(len(train))).x)
    distance = torch.cdist(samples.flatten(1), pixels.flatten(1)) / 8  # sqrt(64 pixels)
    first = distance.amin(1).argsort()[:2]
    assert torch.equal(found.images[[0, 3]], samples[first])
    nearest = distance[first].sort(1)
    assert torch.equal(found.images[[1, 2, 4, 5]], pixels[nearest.indices[:, :2].flatten()])
    assert [float(found.captions[i]) for i in (1, 2, 4, 5)] == pytest.approx(nearest.values[:, :2].flatten(), abs=6e-4)


def test_a_manifold_decodes_the_values_on_its_axes(trained: Path) -> None:
    model = opened(trained, frames=5)
    found = sheet("manifold", model)
    assert [text.replace("z1 = ", "") for text, _ in found.below] == ["−2", "−1", "0", "1", "2"]
    corners = torch.tensor([[-2.0, 2.0], [2.0, 2.0], [0.0, 0.0], [-2.0, -2.0]])
    assert found.images[[0, 4, 12, 20]] == pytest.approx(model.trained.decode(corners), abs=1e-5)
