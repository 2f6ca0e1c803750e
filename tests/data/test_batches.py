from __future__ import annotations

from itertools import chain, islice
from itertools import count as count_from

import pytest
import torch

from tests.support import InMemory, tensor_images
from vae_train.batch import Batch
from vae_train.data.stream import Stream, evaluation_batches
from vae_train.rng import Rng


def numbered(count, stochastic=False):
    """Images whose label is their number and whose pixels are grey."""
    pixels = (torch.arange(count * 4) % 256).to(torch.uint8).view(count, 1, 2, 2)
    return tensor_images(pixels, 256, torch.arange(count)[:, None], stochastic)


def batches(images, size, seed=0, start=0):
    stream = Stream(images, size, seed=seed)
    return map(stream.batch, count_from(start))


def numbers(count, size, num, **options):
    return [batch.y.flatten().tolist() for batch in islice(batches(numbered(count), size, **options), num)]


@pytest.mark.parametrize("size", [1, 3, 4, 7, 10])
@pytest.mark.parametrize("start", [1, 2, 5, 9])
def test_starting_at_a_batch_equals_skipping_those_before_it(size, start):
    assert numbers(10, size, 6, start=start) == numbers(10, size, 6 + start)[start:]


@pytest.mark.parametrize("size", [1, 3, 4, 7, 10])
def test_an_epoch_covers_every_image_once(size):
    stream = list(chain.from_iterable(numbers(10, size, 30)))
    epochs = [stream[i : i + 10] for i in range(0, len(stream) - 9, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_batches_are_always_full(size):
    assert {len(batch) for batch in numbers(10, size, 20)} == {size}


def test_the_order_is_a_function_of_the_seed():
    assert numbers(50, 50, 2, seed=1) == numbers(50, 50, 2, seed=1)
    assert numbers(50, 50, 2, seed=1) != numbers(50, 50, 2, seed=2)


@pytest.mark.parametrize(("size", "count"), [(3, 3), (4, 2), (5, 2), (1, 10), (10, 1)])
def test_several_batches_at_a_time_are_the_same_batches(size, count):
    stream, ahead = Stream(numbered(10), size, seed=5), Stream(numbered(10), size, seed=5)
    for step in (0, 1, 2, 3, 4, 9, 2, 31, 30):
        one_by_one = torch.cat([stream.index(step + i) for i in range(count)])
        assert torch.equal(ahead.index(step, count), one_by_one)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(ValueError, match="a batch of 11 cannot be filled from 10 images"):
        Stream(numbered(10), 11, seed=0)


def test_batches_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    numbers(10, 4, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_dynamic_bits_are_a_function_of_seed_and_batch_number():
    first = [b.x for b in islice(batches(numbered(10, True), 10, seed=3), 4)]
    again = [b.x for b in islice(batches(numbered(10, True), 10, seed=3, start=2), 2)]
    other = next(batches(numbered(10, True), 10, seed=4)).x
    assert all(set(x.unique().tolist()) <= {0.0, 1.0} for x in first)
    assert all(torch.equal(a, b) for a, b in zip(first[2:], again, strict=True))
    assert not torch.equal(first[0], other)


def test_every_batch_draws_other_bits():
    grey = tensor_images(torch.full((10, 1, 8, 8), 128, dtype=torch.uint8), 256, None, True)
    first, second = islice(batches(grey, 10, seed=0), 2)
    assert 0.3 < (first.x != second.x).float().mean() < 0.7


def test_bits_have_the_grey_value_as_their_mean():
    images, index = numbered(10, True), torch.arange(10)
    mean = torch.stack([images.fetch(index, Rng(0, "data", i)).x for i in range(4000)]).mean(0)
    grey = images.fetch(index).x
    assert ((mean - grey).abs() <= 5 * (grey * (1 - grey) / 4000).sqrt() + 1e-9).all()
    assert set(grey.unique().tolist()) - {0.0, 1.0}


def test_pixels_leave_as_fractions_of_the_highest_level():
    images = tensor_images(torch.tensor([0, 8, 16], dtype=torch.uint8).view(3, 1, 1, 1), 17)
    batch = images.fetch(torch.tensor([2, 0, 1]))
    assert batch.x.flatten().tolist() == [1.0, 0.0, 0.5]
    assert batch.x.dtype == torch.float32
    assert batch.y is None


@pytest.mark.parametrize("size", [1, 3, 10, 64])
def test_evaluation_sees_every_image_once_in_order(size):
    found = [(start, batch.y.flatten().tolist()) for start, batch in evaluation_batches(numbered(10), size)]
    assert list(chain.from_iterable(y for _, y in found)) == list(range(10))
    assert [start for start, _ in found] == list(range(0, 10, size))


def test_a_part_of_a_batch_cuts_every_field():
    x, y = torch.rand(6, 1, 2, 2), torch.arange(6)[:, None]
    whole = Batch(x, y, encoder_input=2 * x, mask=x > 0.5, log_det=x.sum((1, 2, 3)), log_bins=0.5)
    part = whole.part(2, 5)
    assert all(torch.equal(mine, theirs[2:5]) for mine, theirs in zip(part[:-1], whole[:-1], strict=True))
    assert part.log_bins == 0.5
    assert Batch(x).part(0, 1).y is None


def test_images_on_a_device_are_the_same_images():
    images = numbered(10, True)
    moved = images.stored.to(torch.device("cpu"))
    assert torch.equal(moved.pixels, images.stored.pixels)
    assert moved.stochastic


@pytest.mark.parametrize(("side", "expected"), [(64, [5]), (1024, [2, 2, 1])])
def test_batches_of_large_images_are_smaller(side, expected):
    x = torch.zeros(1).expand(5, 3, side, side)
    found = [len(batch.x) for _, batch in evaluation_batches(InMemory(x), 500)]
    assert found == expected
