"""The layers of the other implementations in plain PyTorch: shapes and initial distributions are those of vae_train."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import nn

from benchmarks.workload import Workload

FIRST_CHANNELS, MAX_CHANNELS, DENSE_UNITS = 32, 128, 256
"""Of conf/model/conv.yaml."""


class Networks(NamedTuple):
    """The two halves of a VAE."""

    trunk: nn.Module
    """(B, C, H, W) -> (B, features)."""
    features: int
    decoder: nn.Module
    """(B, latent_dim) -> (B, C, H, W): logits of a Bernoulli distribution, or means."""

    def heads(self, workload: Workload) -> tuple[nn.Linear, nn.Linear]:
        """The layers behind the trunk: mean and log-variance of z."""
        mean, log_variance = (nn.Linear(self.features, workload.latent_dim) for _ in range(2))
        if workload.network == "conv":
            # vae_train has one Glorot-initialised layer with twice the outputs, which it splits.
            bound = math.sqrt(6 / (self.features + 2 * workload.latent_dim))
            for head in (mean, log_variance):
                nn.init.uniform_(head.weight, -bound, bound)
                nn.init.zeros_(head.bias)
        return mean, log_variance


def build_networks(workload: Workload) -> Networks:
    """Builds the networks of a workload with initial weights from PyTorch's global generator."""
    return _mlp(workload) if workload.network == "mlp" else _conv(workload)


def _mlp(workload: Workload) -> Networks:
    pixels, width = math.prod(workload.shape), workload.width
    trunk = nn.Sequential(nn.Flatten(), nn.Linear(pixels, width), nn.ReLU())
    hidden = [nn.Linear(workload.latent_dim, width), nn.ReLU()]
    return Networks(trunk, width, nn.Sequential(*hidden, nn.Linear(width, pixels), nn.Unflatten(1, workload.shape)))


def _conv(workload: Workload) -> Networks:
    channels, *size = workload.shape
    sizes, widths = [tuple(size)], list[int]()
    while min(sizes[-1]) > 4:
        sizes.append(tuple((n + 1) // 2 for n in sizes[-1]))
        widths.append(min(FIRST_CHANNELS * 2 ** len(widths), MAX_CHANNELS))
    layers: list[nn.Module] = []
    inputs = channels
    for outputs in widths:
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.SiLU()]
        inputs = outputs
    smallest = (inputs, *sizes[-1])
    trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(math.prod(smallest), DENSE_UNITS), nn.SiLU())
    layers = [nn.Linear(workload.latent_dim, DENSE_UNITS), nn.SiLU()]
    layers += [nn.Linear(DENSE_UNITS, math.prod(smallest)), nn.SiLU(), nn.Unflatten(1, smallest)]
    for outputs, small, large in zip(widths[::-1], sizes[:0:-1], sizes[-2::-1], strict=True):
        padding = (large[0] - (2 * small[0] - 1), large[1] - (2 * small[1] - 1))
        layers += [nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=padding), nn.SiLU()]
        inputs = outputs
    decoder = nn.Sequential(*layers, nn.Conv2d(inputs, channels, 3, padding=1))
    for layer in [*trunk, *decoder]:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return Networks(trunk, DENSE_UNITS, decoder)
