"""The importance-weighted -log p(x) of `vae eval`: draws of z per second, beside the decoder's matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from benchmarks.results import Spread, times_as_fast
from benchmarks.team import Say
from vae_train.data.storage.stored import ArrayImages
from vae_train.evaluation.importance import IMAGES, fitting, seconds_per_draw
from vae_train.model.architecture.mlp import MLP
from vae_train.model.likelihood.bernoulli import Bernoulli
from vae_train.model.posterior.gaussian import Gaussian
from vae_train.model.prior.standard_normal import StandardNormal
from vae_train.model.vae import VAE
from vae_train.util.runtime import prepare

SHAPE, LATENTS, HIDDEN = (1, 28, 28), 50, [200, 200]
"""The network of Burda et al. (2016): 784-200-200-50-200-200-784."""

TEST_IMAGES, DRAWS = 10_000, 5_000
"""What papers report the figure of."""


def measure(device: str, threads: int, repeats: int, say: Say) -> dict[str, Any]:
    """Seconds per draw of z of one image, in turns with those of the matrix products.

    Args:
        device: where.
        threads: PyTorch's threads.
        repeats: turns of each.
        say: told how far it is.
    """
    prepare(threads)
    model, images = _model().to(device).eval(), _images(device)
    at_once = fitting(model, images, device)
    floor = _floor(at_once * IMAGES, device)
    ours, least = [], []
    for _ in range(repeats + 1):
        ours.append(seconds_per_draw(model, images, device, at_once))
        least.append(floor())
    rate = Spread.of([1 / seconds for seconds in ours[1:]])
    say(f"{rate.median:,.0f} draws per second")
    return {
        "draws_at_once": at_once,
        "flop_per_draw": 2 * sum(a * b for a, b in _layers()),
        "draws_per_second": rate.as_json(),
        "floor_per_second": Spread.of([1 / seconds for seconds in least[1:]]).as_json(),
        "share_of_the_floor": times_as_fast(ours[1:], least[1:]).as_json(),
        "minutes": rate.map(lambda r: TEST_IMAGES * DRAWS / r / 60).as_json(),
    }


def _model() -> VAE:
    torch.manual_seed(0)

    def network(in_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> MLP:
        return MLP(in_shape, out_shape, hidden=HIDDEN, activation="tanh", gated=False, init="torch")

    def likelihood(event_shape: tuple[int, ...], levels: int | None) -> Bernoulli:
        return Bernoulli(event_shape, levels, grey_targets=False)

    def posterior(event_shape: tuple[int, ...], levels: int | None) -> Gaussian:
        return Gaussian(event_shape, levels, log_variance=None)

    return VAE(SHAPE, 2, [LATENTS], network, network, posterior, StandardNormal, likelihood, None, (), "init")


def _images(device: str) -> ArrayImages:
    source = torch.Generator().manual_seed(0)
    return ArrayImages(torch.randint(2, (IMAGES, *SHAPE), dtype=torch.uint8, generator=source).to(device), 2)


def _layers() -> list[tuple[int, int]]:
    """Inputs and outputs of the decoder's layers."""
    return list(pairwise([LATENTS, *HIDDEN, 784]))


def _floor(rows: int, device: str) -> Callable[[], float]:
    """Seconds per draw of the decoder's linear layers, for `rows` draws at a time."""
    tensors = [
        (torch.randn(b, device=device), torch.randn(rows, a, device=device), torch.randn(a, b, device=device))
        for a, b in _layers()
    ]

    def go() -> float:
        begin = time.perf_counter()
        for _ in range(3):
            for bias, x, weight in tensors:
                torch.addmm(bias, x, weight)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / (3 * rows)

    return go
