from __future__ import annotations

import pytest
import torch

from vae_train.objective.critics import PatchCritic, VectorCritic, permute_dims
from vae_train.rng import generator


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 17), (1, 28, 28), (3, 64, 48)])
def test_patches_are_judged_whatever_the_size(shape):
    torch.manual_seed(0)
    critic, x = PatchCritic(shape, 4), torch.rand(3, *shape, generator=generator(0, "x"))
    logits = critic(x)
    assert logits.shape == (3, logits.shape[1])
    assert logits.shape[1] >= 4
    assert torch.allclose(critic(x[:1]), logits[:1], atol=1e-6), "an image's logits depend on the others"


def test_images_without_patches_are_refused():
    with pytest.raises(ValueError, match=r"at least 8x8 pixels, not 7x20"):
        PatchCritic((1, 7, 20), 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_critics_take_every_type(dtype):
    assert VectorCritic(3, [5, 4])(torch.zeros(2, 6, 3, dtype=dtype)).shape == (2, 6)
    assert PatchCritic((1, 8, 8), 2)(torch.zeros(2, 1, 8, 8, dtype=dtype)).isfinite().all()


def test_no_two_units_are_of_one_image():
    z = torch.arange(6).unsqueeze(1).expand(6, 4).unsqueeze(0).float()  # every unit says which image it is of
    moved = permute_dims(z)
    for i in range(6):
        assert moved[0, i].tolist() == [(i - 1 - d) % 6 for d in range(4)]
    for d in range(4):
        assert sorted(moved[0, :, d].tolist()) == list(range(6)), "a marginal has changed"


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches_smaller_than_z_are_rolled_too(batch):
    z = torch.rand(2, batch, 7, generator=generator(0, "z"))
    moved = permute_dims(z)
    assert torch.equal(moved.sort(1).values, z.sort(1).values)
    if batch > 1:
        assert not torch.equal(moved[:, :, 0], z[:, :, 0])


def test_correlated_units_are_independent_after_rolling():
    first = torch.randn(1, 5000, 1, generator=generator(0, "z"))
    z = torch.cat([first, first, -first], -1)
    assert torch.corrcoef(permute_dims(z)[0].T).sub(torch.eye(3)).abs().max() < 0.07
