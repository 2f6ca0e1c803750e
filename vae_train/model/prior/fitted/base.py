"""Base class of priors that are fitted to the encodings of a trained model.

If the prior p(z) is far from the aggregate posterior q(z) = E_x q(z | x), reconstructions are good but samples bad: the
decoder receives z that it never saw in training. A density that is fitted to samples of q(z) is a prior like any
other: with it the model is a different p(x, z) with valid evidence bounds.

Source: Ghosh et al., "From Variational to Deterministic Autoencoders" (arXiv:1903.12436), section 4.
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution
from vae_train.distributions.mixture import Mixture
from vae_train.model.base import Prior

MIN_RELATIVE_STD = 1e-6
"""Standard deviation of a constant latent dimension, relative to the largest."""

MAX_CHUNK_ELEMENTS = 2**23
"""Log-densities of components per pass."""

CHUNK_ROWS = 1024


class GradientTraining(NamedTuple):
    """How a prior with parameters is trained by gradients, to maximise the likelihood of encodings."""

    steps: int
    """Maximal number of updates."""
    patience: int
    """Held-out evaluations without improvement that end the training."""
    batch_size: int
    """Encodings per update."""
    lr: float
    """Learning rate of Adam."""


class FittedPrior(Prior):
    """A prior that is fitted to encodings.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
    """

    gradient_training: GradientTraining | None = None
    """Settings for training after `fit`; None for no training."""

    @abstractmethod
    def fit(self, z: Tensor, held_out: Tensor, seed: int) -> None:
        """Fits all parameters that need no gradients.

        Args:
            z: (N, D) float64 encodings.
            held_out: (M, D) other encodings, for choosing settings.
            seed: seed of all random numbers.

        Raises:
            ValueError: there are too few encodings.
        """

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Restores the state of a fitted prior."""
        self.load_state_dict(weights)

    def log_prob(self, z: Tensor) -> Tensor:
        """Computes log p(z) of encodings `(N, D)`: `(N,)` float64."""
        return log_density(self(no_encoder), z.view(-1, *self.event_shape))


class ChunkedMixture(Mixture):
    """A mixture that scores values in chunks, so that many components fit into memory."""

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        leading = x.shape[: x.dim() - len(self.event_shape)]
        rows = x.reshape(-1, *self.event_shape)
        count = max(1, MAX_CHUNK_ELEMENTS // (len(self.log_weights) * self.event_shape.numel()))
        chunks = [super(ChunkedMixture, self).joint_log_prob(chunk) for chunk in rows.split(count)]
        return torch.cat(chunks).view(leading)


@torch.no_grad()
def log_density(p: Distribution, z: Tensor) -> Tensor:
    """Computes log p(z) of values `(N, *event)` in chunks: `(N,)` float64 on the CPU."""
    return torch.cat([p.log_prob(chunk).cpu().double() for chunk in z.split(CHUNK_ROWS)])


def mean_and_std(z: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of every latent dimension, `(D,)` each; deviations are positive."""
    scale = z.std(0)
    return z.mean(0), scale.clamp_min(MIN_RELATIVE_STD * max(float(scale.max()), MIN_RELATIVE_STD))


def no_encoder(x: Tensor) -> Distribution:
    """Placeholder for the encoder, which a fitted prior never calls."""
    raise RuntimeError("a fitted prior needs no images")
