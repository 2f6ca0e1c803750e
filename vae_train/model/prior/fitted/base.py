"""Base class of priors that are fitted to the encodings of a trained model.

If the prior p(z) is far from the aggregate posterior q(z) = E_x q(z | x), reconstructions are good but samples bad: the
decoder receives z that it never saw in training. A density that is fitted to samples of q(z) is a prior like any
other: with it the model is a different p(x, z) with valid evidence bounds.

Source: Ghosh et al., "From Variational to Deterministic Autoencoders" (arXiv:1903.12436), section 4.
"""

from abc import abstractmethod
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.mixture import Mixture
from vae_train.model.base import Encode, Prior
from vae_train.model.codes.autoregressive import Autoregressive, CodeNetwork, log_frequencies
from vae_train.util.ranges import Range

WarmupFraction = Annotated[float, Range(0, 1, open_high=True)]

MIN_RELATIVE_STD = 1e-6
"""Standard deviation of a constant latent dimension, relative to the largest."""

MAX_ELEMENTS = 2**26
"""Logits, or weights of attention, per microbatch of the training of a distribution of codes."""

MAX_CHUNK_ELEMENTS = 2**23
"""Log-densities of components per pass."""

CHUNK_ROWS = 1024


class GradientTraining(NamedTuple):
    """How a prior with parameters is trained by gradients, to maximise the likelihood of encodings."""

    steps: int | None
    """Maximal number of updates; None if `epochs` is set."""
    patience: int
    """Held-out evaluations without improvement that end the training."""
    batch_size: int
    """Encodings per update."""
    lr: float
    """Learning rate of Adam."""
    epochs: int = 0
    """Maximal number of passes over the encodings, if `steps` is None."""
    warmup: float = 0.0
    """Fraction of the updates in which the learning rate rises from 0."""
    clip_norm: float | None = None
    """Largest L2 norm of the gradient; None for no clipping."""
    max_interval: int = 50
    """Maximal number of updates between two held-out evaluations; there are at least 50, if possible one epoch."""
    microbatches: int = 1
    """Parts of a batch that are computed one after another, to save memory."""
    final: float = 1.0
    """Factor on the learning rate at the end, where half a cosine after the warm-up ends."""

    def num_steps(self, num_encodings: int) -> int:
        """The maximal number of updates on this many encodings."""
        return -(-self.epochs * num_encodings // self.batch_size) if self.steps is None else self.steps


class FittedPrior(Prior):
    """A prior that is fitted to encodings.

    Args:
        event_shape: shape of z, or of an array of codes.
        data_shape: (C, H, W) of an image; not used.
        num_codes: K, number of values of a code; None for encodings in R^D.
    """

    gradient_training: GradientTraining | None = None
    """Settings for training after `fit`; None for no training."""

    @abstractmethod
    def fit(self, z: Tensor, held_out: Tensor, seed: int) -> None:
        """Fits all parameters that need no gradients.

        Args:
            z: (N, D) float64 encodings, or (N, *event_shape) int64 codes.
            held_out: (M, D) other encodings, for choosing settings.
            seed: seed of all random numbers.

        Raises:
            ValueError: there are too few encodings.
        """

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Restores the state of a fitted prior."""
        self.load_state_dict(weights)

    def log_prob(self, z: Tensor) -> Tensor:
        """Computes log p(z) of encodings `(N, D)`, or of codes: `(N,)` float64 on the CPU."""
        return log_density(self(no_encoder), z.view(-1, *self.event_shape))


class CodePrior(FittedPrior):
    """A distribution of arrays of codes whose network is trained on the codes of images.

    The logits of every position are the logarithms of a smoothed frequency table of the training codes, plus the
    outputs of the network, which are 0 at first. So training starts from the table and improves on it.

    Args:
        event_shape: shape of an array of codes.
        data_shape: (C, H, W) of an image; not used.
        network: predicts every code from those before it.
        epochs: maximal number of passes over the training codes.
        steps: maximal number of updates instead; None for `epochs`.
        patience: held-out evaluations without improvement that end the training.
        batch_size: arrays of codes per update.
        lr: learning rate of Adam, which falls to 0 by half a cosine.
        warmup: fraction of the updates in which it rises first.
    """

    supports = ("codes", "categorical")
    over_codes = True
    top_k: int | None = None
    """Samples only have codes that are among the k most likely ones given those before; None for all codes."""

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        network: CodeNetwork,
        epochs: int,
        steps: int | None,
        patience: int,
        batch_size: int,
        lr: float,
        warmup: float,
    ) -> None:
        super().__init__(event_shape, data_shape, network.num_codes)
        self.network, elements = network, batch_size * network.length * max(network.length, network.num_codes)
        options: dict[str, Any] = {
            "final": 0.0,
            "clip_norm": 1.0,
            "max_interval": 500,
            "microbatches": -(-elements // MAX_ELEMENTS),
        }
        self.gradient_training = GradientTraining(steps, patience, batch_size, lr, epochs, warmup, **options)
        self.log_frequencies = nn.Buffer(torch.zeros(network.length, network.num_codes))

    @override
    def fit(self, z: Tensor, held_out: Tensor, seed: int) -> None:
        self.log_frequencies.copy_(log_frequencies(z, self.network.num_codes))

    def table_log_prob(self, codes: Tensor) -> Tensor:
        """Computes log P(codes) of arrays `(N, *event_shape)` under the frequency table alone: `(N,)` float64."""
        table, flat = self.log_frequencies.cpu().double(), codes.cpu().long().view(-1, self.size)
        return table[torch.arange(self.size), flat].sum(-1)

    @override
    def forward(self, encode: Encode) -> Autoregressive:
        return Autoregressive(self.network, self.log_frequencies, self.top_k)


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
