"""Weights that start from the training images, in runs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tests.commandline import Vae

SMALL = [
    "data=digits",
    "model=resnet",
    "model.encoder.channels=4",
    "model.encoder.blocks=1",
    "model.encoder.norm=weight",
]
SMALL += ["latent_dim=3", "batch_size=64", "logger=none"]


def weights(run: str) -> dict[str, Tensor]:
    return torch.load(Path(run) / "checkpoints" / "last.pt", weights_only=True)["model"]


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_resumed_run_and_weights_of_another_run_are_not_initialised_again(vae: Vae) -> None:
    assert vae("train", *SMALL, "steps=4", "out=whole").code == 0
    assert vae("train", *SMALL, "steps=2", "out=parts").code == 0
    assert vae("train", "resume=parts", "steps=4").code == 0
    assert equal(weights("parts"), weights("whole"))
    assert vae("train", *SMALL, "steps=1", "lr=1e-30", "init_from=whole", "out=copy", "seed=1").code == 0
    best = torch.load(Path("whole") / "checkpoints" / "best.pt", weights_only=True)["model"]
    assert equal(weights("copy"), best)
