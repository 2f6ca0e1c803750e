import math

import pytest
import torch

from vae_train.evaluation.interpolation import interpolate

HOWS = ["linear", "spherical"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
@pytest.mark.parametrize(("count", "frames"), [(2, 2), (2, 9), (3, 8), (4, 4), (4, 30)])
def test_a_path_passes_exactly_through_all_latents_in_order(how, shape, count, frames):
    ends = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    path = interpolate(ends, frames, how)
    assert path.shape == (frames, *shape)
    assert path.dtype == ends.dtype
    places = [next(i for i, z in enumerate(path) if torch.equal(z, end)) for end in ends]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, frames - 1)


def test_a_linear_path_has_equal_steps_on_a_line():
    path = interpolate(torch.tensor([[0.0, 1.0], [4.0, 3.0]]), 5, "linear")
    torch.testing.assert_close(path, torch.tensor([[0, 1], [1, 1.5], [2, 2], [3, 2.5], [4, 3.0]]))


def test_segments_differ_by_at_most_one_frame():
    path = interpolate(torch.tensor([[0.0], [1.0], [2.0], [3.0]]), 12, "linear")
    steps = [int(((path >= low) & (path < low + 1)).sum()) for low in range(3)]
    assert max(steps) - min(steps) <= 1


def test_a_spherical_path_turns_and_lengthens_at_constant_rates():
    path = interpolate(torch.tensor([[2.0, 0.0], [0.0, 4.0]]), 7, "spherical")
    torch.testing.assert_close(torch.atan2(path[:, 1], path[:, 0]), torch.linspace(0, math.pi / 2, 7))
    torch.testing.assert_close(path.norm(dim=1), torch.linspace(2, 4, 7))


def test_a_spherical_path_of_unit_vectors_stays_on_the_sphere():
    ends = torch.nn.functional.normalize(torch.randn(2, 50, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(interpolate(ends, 20, "spherical").norm(dim=1), torch.ones(20))


@pytest.mark.parametrize("ends", [[[1.0, 2.0], [2.0, 4.0]], [[1.0, 2.0], [-1.0, -2.0]], [[0.0, 0.0], [1.0, 2.0]]])
def test_without_a_unique_great_circle_a_spherical_path_is_straight(ends):
    ends = torch.tensor(ends)
    torch.testing.assert_close(interpolate(ends, 6, "spherical"), interpolate(ends, 6, "linear"))


@pytest.mark.parametrize(("count", "frames", "message"), [(1, 5, "at least two latents"), (3, 2, "at least 3 frames")])
def test_a_path_that_cannot_be_is_refused(count, frames, message):
    with pytest.raises(ValueError, match=message):
        interpolate(torch.zeros(count, 2), frames, "linear")
