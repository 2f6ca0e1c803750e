"""The variational autoencoder with one latent vector; the one place where shapes are plumbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from torch import Tensor

from vae_train.distributions import Distribution
from vae_train.draws import Draw
from vae_train.model.base import Network, Prior, Shape, SingleLatent
from vae_train.model.family import Family, Likelihood
from vae_train.model.trace import Latent, Trace
from vae_train.ranges import Range

if TYPE_CHECKING:
    from vae_train.data.base import Batch


class VAE(SingleLatent):
    """p(z) p(x | z) with q(z | x), each made of a network and a family (Kingma & Welling, 2014).

    The five parts arrive as partials: what the configuration knows is given, the shapes are filled in here.

    Args:
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        latent_shape: shape of z; `[D]` for a vector.
        encoder: network from images to the posterior's parameters.
        decoder: network from z to the likelihood's parameters.
        posterior: family of q(z | x).
        prior: distribution of z.
        likelihood: family of p(x | z).
    """

    def __init__(
        self,
        data_shape: Shape,
        levels: int | None,
        latent_shape: list[Annotated[int, Range(1)]],
        encoder: Callable[..., Network],
        decoder: Callable[..., Network],
        posterior: Callable[..., Family],
        prior: Callable[..., Prior],
        likelihood: Callable[..., Likelihood],
    ) -> None:
        super().__init__()
        self.data_shape, self.levels, self.latent_shape = tuple(data_shape), levels, tuple(latent_shape)
        self.posterior = posterior(event_shape=self.latent_shape, levels=None)
        self.likelihood = likelihood(event_shape=self.data_shape, levels=levels)
        self.prior = prior(event_shape=self.latent_shape, data_shape=self.data_shape)
        self.encoder = encoder(in_shape=self.data_shape, out_shape=self.posterior.parameter_shape)
        self.decoder = decoder(in_shape=self.latent_shape, out_shape=self.likelihood.parameter_shape)

    def encode(self, x: Tensor) -> Distribution:
        """See `SingleLatent.encode`."""
        return self.posterior(self.encoder(x))

    def decode(self, z: Tensor) -> Distribution:
        """See `SingleLatent.decode`."""
        leading = z.shape[: z.dim() - len(self.latent_shape)]
        parameters = self.decoder(z.reshape(-1, *self.latent_shape))
        return self.likelihood(parameters.reshape(*leading, *self.likelihood.parameter_shape))

    def forward(self, batch: Batch, draw: Draw, num_samples: int = 1) -> Trace:
        """See `LatentVariableModel.forward`."""
        q = self.encode(batch.x if batch.seen is None else batch.seen)
        z = q.sample(draw, num_samples)
        latents = (Latent(z, q, self.prior(self.encode)),)
        return Trace(batch.x, latents, self.decode(z), batch.observed, batch.log_det, batch.log_bins)

    def sample(self, num: int, draw: Draw, temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        """See `LatentVariableModel.sample`."""
        return self.decode(self.prior(self.encode).sample(draw, num, temperature))
