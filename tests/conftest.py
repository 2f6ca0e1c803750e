from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread():
    """Some tests set another number of threads, as `threads=` does."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def mnist_root() -> str:
    """A folder with the real MNIST."""
    places = [os.environ.get("VAE_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    for place in places:
        if place and (Path(place) / "MNIST/raw/train-images-idx3-ubyte").exists():
            return str(place)
    pytest.skip("no MNIST here: set VAE_DATA to a folder that has MNIST/raw")
