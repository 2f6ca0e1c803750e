"""The layers of the contenders that are not ours, written out in plain PyTorch: the same shapes and the same start."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

from benchmarks.work import Work

FIRST, MOST, DENSE = 32, 128, 256
"""Channels of the first scale, the most of any, and units of the linear layer: conf/model/conv.yaml."""


class Networks(NamedTuple):
    """The two halves of a VAE."""

    trunk: nn.Module
    """(B, C, H, W) -> (B, features)."""
    features: int
    decoder: nn.Module
    """(B, latents) -> (B, C, H, W): logits of a Bernoulli distribution, or means."""

    def heads(self, work: Work) -> tuple[nn.Linear, nn.Linear]:
        """The layers behind the trunk: mean and log-variance of z."""
        mean, log_variance = (nn.Linear(self.features, work.latent_dim) for _ in range(2))
        if work.network == "conv":
            # One glorot layer with twice the outputs, cut in two, as ours has it.
            bound = math.sqrt(6 / (self.features + 2 * work.latent_dim))
            for head in (mean, log_variance):
                nn.init.uniform_(head.weight, -bound, bound)
                nn.init.zeros_(head.bias)
        return mean, log_variance


def networks(work: Work) -> Networks:
    """The networks of a work, with fresh weights from PyTorch's global generator."""
    return _mlp(work) if work.network == "mlp" else _conv(work)


def _mlp(work: Work) -> Networks:
    pixels = math.prod(work.shape)
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(pixels, work.width), nn.ReLU())
    decoder = nn.Sequential(
        nn.Linear(work.latent_dim, work.width), nn.ReLU(), nn.Linear(work.width, pixels), nn.Unflatten(1, work.shape)
    )
    return Networks(trunk, work.width, decoder)


def _conv(work: Work) -> Networks:
    channels, *size = work.shape
    sizes, widths = [tuple(size)], list[int]()
    while min(sizes[-1]) > 4:
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
        widths.append(min(FIRST * 2 ** len(widths), MOST))
    layers: list[nn.Module] = []
    inputs = channels
    for outputs in widths:
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.SiLU()]
        inputs = outputs
    smallest = (inputs, *sizes[-1])
    trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(math.prod(smallest), DENSE), nn.SiLU())
    layers = [nn.Linear(work.latent_dim, DENSE), nn.SiLU(), nn.Linear(DENSE, math.prod(smallest)), nn.SiLU()]
    layers.append(nn.Unflatten(1, smallest))
    for outputs, small, large in zip(widths[::-1], sizes[:0:-1], sizes[-2::-1], strict=True):
        rest = (large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1))
        layers += [nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=rest), nn.SiLU()]
        inputs = outputs
    decoder = nn.Sequential(*layers, nn.Conv2d(inputs, channels, 3, padding=1))
    for layer in [*trunk, *decoder]:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return Networks(trunk, DENSE, decoder)
