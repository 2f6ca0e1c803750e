"""A Gaussian mixture, fitted by expectation maximisation."""

import warnings

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.mixture import Mixture
from vae_train.distributions.multivariate import MultivariateNormal
from vae_train.model.base import Encode
from vae_train.model.prior.fitted.base import ChunkedMixture, FittedPrior, mean_and_std
from vae_train.util.ranges import PositiveInt

RELATIVE_RIDGE = 1e-6
"""Added to the variances of a mixture's components, relative to those of the encodings."""


class GaussianMixture(FittedPrior):
    """A mixture of normal distributions with full covariances, fitted by scikit-learn.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        components: M, number of Gaussians.
    """

    def __init__(self, event_shape: Shape, data_shape: Shape, components: PositiveInt) -> None:
        super().__init__(event_shape, data_shape)
        self.means = nn.Buffer(torch.zeros(components, self.size))
        self.factors = nn.Buffer(torch.zeros(components, self.size, self.size))
        self.logits = nn.Buffer(torch.zeros(components))

    @override
    def fit(self, z: Tensor, held_out: Tensor, seed: int) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as EM

        components = len(self.logits)
        if len(z) < components:
            raise ValueError(f"{len(z)} encodings of training images are too few for {components} components")
        z = torch.cat([z, held_out])  # there are no settings to choose
        shift, scale = mean_and_std(z)
        mixture = EM(components, reg_covar=RELATIVE_RIDGE, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(((z - shift) / scale).numpy())
        means, covariances, weights = map(torch.from_numpy, (mixture.means_, mixture.covariances_, mixture.weights_))
        self.means.copy_(shift + scale * means)
        self.factors.copy_(scale[:, None] * torch.linalg.cholesky(covariances))
        self.logits.copy_(weights.log())

    @override
    def forward(self, encode: Encode) -> Mixture:
        means = self.means.unflatten(-1, self.event_shape)
        return ChunkedMixture(MultivariateNormal(means, self.factors, len(self.event_shape)), self.logits)
