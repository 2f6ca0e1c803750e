import pytest
import torch

from tests.support import tensor_images
from vae_train.batch import Units
from vae_train.evaluation import neighbors
from vae_train.evaluation.neighbors import nearest_images

CPU = torch.device("cpu")


def random_pixels(count: int, *shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [2**26, 4 * 12 * 7])
def test_neighbors_are_those_of_all_images(monkeypatch, chunk):
    monkeypatch.setattr(neighbors, "CHUNK_BYTES", chunk)
    pixels, queries = random_pixels(50, 3, 2, 2), random_pixels(4, 3, 2, 2, seed=1)
    images = tensor_images(pixels, None)
    found = nearest_images(queries, images, 5, lambda x: x, CPU)
    distance = (queries[:, None] - pixels).square().flatten(2).mean(2).sqrt()
    expected = distance.sort(1)
    assert torch.equal(found.numbers, expected.indices[:, :5])
    torch.testing.assert_close(found.distance, expected.values[:, :5])
    torch.testing.assert_close(found.images, pixels[found.numbers])


def test_a_copy_has_the_distance_zero_even_among_near_copies():
    pixels = random_pixels(1, 1, 20, 20).repeat(30, 1, 1, 1)
    pixels += 0.01 * random_pixels(30, 1, 20, 20, seed=1)
    found = nearest_images(pixels[7:8], tensor_images(pixels, None), 2, lambda x: x, CPU)
    assert (found.numbers[0, 0], found.distance[0, 0]) == (7, 0)
    assert 0 < found.distance[0, 1] < 0.01


def test_binary_images_are_compared_by_their_grey_values():
    pixels = (255 * random_pixels(20, 1, 4, 4)).to(torch.uint8)
    images = tensor_images(pixels, 256, None, True)
    found = nearest_images(pixels[3:4] / 255, images, 1, lambda x: x, CPU)
    assert (found.numbers.item(), found.distance.item()) == (3, pytest.approx(0, abs=1e-7))


def test_missing_values_do_not_count():
    pixels = random_pixels(10, 1, 1, 6)
    query = pixels[4:5].clone()
    pixels[4, :, :, :3] = float("nan")
    units = Units((), (0.0,), (1.0,), (0.0,), (1.0,))
    found = nearest_images(query, tensor_images(pixels, None, units=units, missing=True), 1, lambda x: x, CPU)
    assert (found.numbers.item(), found.distance.item()) == (4, pytest.approx(0, abs=1e-6))


def test_a_small_split_has_few_neighbors():
    found = nearest_images(
        random_pixels(2, 1, 4, 4), tensor_images(random_pixels(3, 1, 4, 4), None), 9, lambda x: x, CPU
    )
    assert found.distance.shape == (2, 3)
