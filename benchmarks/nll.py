"""The importance-weighted -log p(x) of `vae eval`: samples of z per second, beside the decoder's matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import Log
from benchmarks.training import ImportanceSampling

LATENT_DIM, HIDDEN = 50, [200, 200]
"""The network of Burda et al. (2016): 784-200-200-50-200-200-784."""

TEST_IMAGES, SAMPLES = 10_000, 5_000
"""Papers report -log p(x) of 10,000 images with 5,000 samples each."""


def measure(device: str, threads: int, repeats: int, log: Log) -> dict[str, Any]:
    """Samples of z per second, in turns with the matrix products.

    Args:
        device: "cpu" or "cuda".
        threads: PyTorch's threads.
        repeats: turns of each.
        log: reports progress.
    """
    sampling = ImportanceSampling(overrides(), random_bits(), device, threads)
    roofline = _matrix_products(sampling.chunk * sampling.num_images, device)
    own, least = [], []
    for _ in range(repeats + 1):
        own.append(sampling.seconds_per_sample())
        least.append(roofline())
    rate = Measurement.of([1 / seconds for seconds in own[1:]])
    log(f"{rate.median:,.0f} samples per second")
    return {
        "chunk": sampling.chunk,
        "flop_per_sample": 2 * sum(a * b for a, b in _layer_sizes()),
        "samples_per_second": rate.as_json(),
        "roofline_per_second": Measurement.of([1 / seconds for seconds in least[1:]]).as_json(),
        "share_of_roofline": speedup(own[1:], least[1:]).as_json(),
        "minutes": rate.map(lambda r: TEST_IMAGES * SAMPLES / r / 60).as_json(),
    }


def overrides() -> list[str]:
    """The settings of the model."""
    hidden = str(HIDDEN).replace(" ", "")
    networks = [f"model.{side}.{setting}" for side in ("encoder", "decoder")
                for setting in (f"hidden={hidden}", "activation=tanh")]  # fmt: skip
    return [f"latent_dim={LATENT_DIM}", "seed=0", "model=mlp", "model/likelihood=bernoulli", *networks]


def random_bits() -> np.ndarray:
    """As many binary images as are scored at a time, with shape (N, 28, 28)."""
    return np.random.RandomState(0).randint(2, size=(64, 28, 28)).astype(np.uint8)


def _layer_sizes() -> list[tuple[int, int]]:
    """Inputs and outputs of the decoder's layers."""
    return list(pairwise([LATENT_DIM, *HIDDEN, 784]))


def _matrix_products(rows: int, device: str) -> Callable[[], float]:
    """Measures the seconds per sample of the decoder's linear layers, for `rows` samples at a time."""
    tensors = [
        (torch.randn(b, device=device), torch.randn(rows, a, device=device), torch.randn(a, b, device=device))
        for a, b in _layer_sizes()
    ]

    def seconds_per_sample() -> float:
        start = time.perf_counter()
        for _ in range(3):
            for bias, x, weight in tensors:
                torch.addmm(bias, x, weight)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / (3 * rows)

    return seconds_per_sample
