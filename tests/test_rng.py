from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from vae_train.rng import BlockRng, ChainRng, Rng, Rows, generator

METHODS = ["normal", "uniform"]
SHAPE = (3, 10, 4)


def test_neighbouring_keys_give_unrelated_generators():
    seeds = {generator(seed, stream, i).initial_seed() for seed in range(5) for stream in "ab" for i in range(5)}
    assert len(seeds) == 50


@pytest.mark.parametrize("method", METHODS)
def test_the_same_key_gives_the_same_numbers(method):
    first, second = (getattr(Rng(1, "train", 7), method)(SHAPE) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == SHAPE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("key", [(2, "train", 7), (1, "data", 7), (1, "train", 8), (1, "train", 7, 0), (1, "train")])
def test_another_seed_stream_or_position_gives_other_numbers(method, key):
    assert not torch.isclose(getattr(Rng(1, "train", 7), method)(SHAPE), getattr(Rng(*key), method)(SHAPE)).any()


@pytest.mark.parametrize("method", METHODS)
def test_a_second_call_gives_other_numbers(method):
    rng = Rng(1, "train", 7)
    assert not torch.equal(getattr(rng, method)(SHAPE), getattr(rng, method)(SHAPE))


@pytest.mark.parametrize("method", METHODS)
def test_a_part_has_the_rows_of_the_whole_in_every_call(method):
    whole = Rng(1, "train", 7)
    parts = [Rng(1, "train", 7).part(Rows(a, b, 10)) for a, b in ((0, 3), (3, 4), (4, 10))]
    for _ in range(2):
        numbers = getattr(whole, method)(SHAPE)
        pieces = [getattr(p, method)((3, b - a, 4)) for p, (a, b) in zip(parts, ((0, 3), (3, 4), (4, 10)), strict=True)]
        assert torch.equal(torch.cat(pieces, 1), numbers)


def test_a_part_of_a_part_counts_from_the_whole_batch():
    whole = Rng(1, "train", 7).normal((2, 10, 3))
    part = Rng(1, "train", 7).part(Rows(4, 10, 10)).part(Rows(6, 8, 10))
    assert part.rows == Rows(6, 8, 10)
    assert torch.equal(part.normal((2, 2, 3)), whole[:, 6:8])


def test_a_part_can_have_numbers_that_belong_to_no_image():
    whole, part = Rng(1, "train", 7), Rng(1, "train", 7).part(Rows(4, 10, 10))
    with part.uncut():
        assert torch.equal(part.normal((5, 3)), whole.normal((5, 3)))
    assert torch.equal(part.normal((2, 6, 3)), whole.normal((2, 10, 3))[:, 4:])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cuts", [(0, 200), (0, 1, 200), (0, 64, 128, 200), (0, 63, 65, 130, 200), (0, 100, 101, 200)])
def test_block_noise_does_not_depend_on_how_images_are_cut(method, cuts):
    def whole(cuts):
        blocks = [(BlockRng(3, "evaluation", a), b - a) for a, b in pairwise(cuts)]
        calls = [[getattr(rng, method)((2, size, 5)) for rng, size in blocks] for _ in range(2)]
        return [torch.cat(call, 1) for call in calls]

    first, second = whole(cuts)
    assert torch.equal(first, whole((0, 200))[0])
    assert torch.equal(second, whole((0, 200))[1])
    assert not torch.equal(first, second)


def test_blocks_differ_from_each_other_and_between_seeds():
    noise = BlockRng(3, "evaluation", 0).normal((1, 128, 5))
    assert not torch.isclose(noise[:, :64], noise[:, 64:]).any()
    assert not torch.isclose(noise, BlockRng(4, "evaluation", 0).normal((1, 128, 5))).any()


def test_uniform_numbers_are_in_the_half_open_unit_interval():
    numbers = Rng(0, "x").uniform((1, 200_000))
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 5 * (1 / 12 / numbers.numel()) ** 0.5


def test_normal_numbers_have_mean_0_and_variance_1():
    numbers = Rng(0, "x").normal((1, 200_000), torch.float64)
    assert abs(numbers.mean()) < 5 / numbers.numel() ** 0.5
    assert abs(numbers.var() - 1) < 5 * (2 / numbers.numel()) ** 0.5


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_noise_is_never_in_half_precision(asked, given):
    assert Rng(0, "x").normal((1, 2), asked).dtype == given
    assert BlockRng(0, "x", 0).uniform((1, 2), asked).dtype == given


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), Rng(0, "x").normal(SHAPE)
    BlockRng(0, "x", 5).uniform(SHAPE)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(Rng(0, "x").normal(SHAPE), first)


def test_noise_of_chains_is_that_of_an_image_a_chain_and_a_step():
    def noise(start: int, count: int, step: int, chains: range) -> torch.Tensor:
        rng = ChainRng(0, "x", start, step, chains)
        return torch.stack([rng.normal((2, count * len(chains), 3)) for _ in range(2)]).unflatten(
            2, (len(chains), count)
        )

    whole = noise(0, 20, 5, range(4))
    assert torch.equal(noise(0, 20, 5, range(1, 3)), whole[:, :, 1:3])
    assert torch.equal(noise(7, 6, 5, range(4)), whole[..., 7:13, :])
    for other in (noise(0, 20, 6, range(4)), noise(0, 20, 5, range(4, 8)), noise(20, 20, 5, range(4))):
        assert (other != whole).all()
