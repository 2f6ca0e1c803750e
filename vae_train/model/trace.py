"""The result of one pass of inference: samples of z, and the distributions that score them."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vae_train.distributions.base import Distribution
from vae_train.distributions.codes import Codes, QuantizedPoint
from vae_train.distributions.kl import kl, kl_elementwise


@dataclass
class Latent:
    """One stochastic layer.

    Its distributions have batch (), (B,), or (K, B) if they depend on samples of the layer above.
    """

    z: Tensor
    """(K, B, *event) samples of `q`."""
    q: Distribution
    """The approximate posterior."""
    p: Distribution
    """The prior."""
    auxiliary: Tensor | None = None
    """(B,) an additional loss, such as a commitment loss. All objectives add it, but it is not part of bounds."""
    log_q: Tensor | None = None
    """(K, B) log q(z | x) of the samples, if sampling already computed it."""
    # The objective, the rate and the logged scalars share these.
    _log_p: Tensor | None = field(default=None, init=False, repr=False)
    _rate: Tensor | None = field(default=None, init=False, repr=False)

    def log_ratio(self, stop_gradient: bool = False) -> Tensor:
        """log p(z) - log q(z | x) of the samples, with shape `(K, B)`, in nats.

        Args:
            stop_gradient: whether the parameters of q(z | x) only receive a gradient through z (Roeder et al., 2017,
                Sticking the Landing, arXiv:1703.09194, eq. 8).
        """
        if isinstance(self.q, QuantizedPoint) and isinstance(self.p, Codes):
            return -self.rate().expand(self.z.shape[:2])  # all samples have the codes of q
        if self._log_p is None:
            self._log_p = self.p.log_prob(self.z)
        if stop_gradient:
            return self._log_p - self.q.detach().log_prob(self.z)
        if self.log_q is None:
            self.log_q = self.q.log_prob(self.z)
        return self._log_p - self.log_q

    def rate_elementwise(self) -> Tensor:
        """KL(q || p) of every element of z with shape `(B, *event)`, in nats; both distributions must be factorised.

        In closed form if there is one, otherwise estimated from the samples.
        """
        rates = kl_elementwise(self.q, self.p)
        if rates is None:
            return (self.q.log_prob_elementwise(self.z) - self.p.log_prob_elementwise(self.z)).mean(0)
        return rates.mean(0) if rates.dim() == self.z.dim() else rates

    def rate(self) -> Tensor:
        """KL(q || p) with shape `(B,)`, in nats: in closed form if there is one, otherwise estimated from the samples.

        A closed form of a layer that depends on the samples above is averaged over the K samples.
        """
        if self._rate is None:
            rate = kl(self.q, self.p)
            if rate is None:
                rate = -self.log_ratio()
            self._rate = rate.mean(0) if rate.dim() == 2 else rate
        return self._rate


@dataclass
class Trace:
    """One pass of inference over a batch, with K samples of z per image.

    Rates, distortions and evidence bounds are in nats per image and belong to beta = 1, whatever the objective.
    """

    x: Tensor
    """(B, C, H, W) the target."""
    mask: Tensor | None
    """(B, 1 or C, H, W) bool, True for observed pixels; None if all are observed."""
    latents: tuple[Latent, ...]
    """The stochastic layers, the topmost first."""
    px: Distribution
    """The likelihood p(x | z), batch (K, B)."""
    log_det: Tensor | None = None
    """(B,) see `Batch.log_det`."""
    log_bins: float | None = None
    """See `Batch.log_bins`."""
    # The objective and the logged scalars share it.
    _log_likelihood: Tensor | None = field(default=None, init=False, repr=False)

    def log_likelihood(self) -> Tensor:
        """log p(x | z) of the observed pixels with shape `(K, B)`, as a density of the values before preprocessing."""
        if self._log_likelihood is None:
            log_prob = self.px.log_prob(self.x, self.mask)
            self._log_likelihood = log_prob if self.log_det is None else log_prob + self.log_det
        return self._log_likelihood

    def log_weight(self, stop_gradient: bool = False) -> Tensor:
        """log p(x, z) - log q(z | x) of the samples, with shape `(K, B)`.

        It never uses a closed-form KL, with which exp of the weight would not be an unbiased estimate of p(x).

        Args:
            stop_gradient: see `Latent.log_ratio`.
        """
        return self.log_likelihood() + _sum([latent.log_ratio(stop_gradient) for latent in self.latents])

    @property
    def bounded(self) -> bool:
        """Whether rate and ELBO exist, since every posterior has a density."""
        return all(latent.q.has_density for latent in self.latents)

    def distortion(self) -> Tensor:
        """-E_q[log p(x | z)] with shape `(B,)`, estimated from the K samples."""
        return -self.log_likelihood().mean(0)

    def rate(self) -> Tensor:
        """KL(q || p) summed over the stochastic layers, with shape `(B,)`; 0 without latents."""
        rates = [latent.rate() for latent in self.latents]
        return _sum(rates) if rates else torch.zeros_like(self.distortion())

    def auxiliary(self) -> Tensor | None:
        """The auxiliary losses summed over the stochastic layers, with shape `(B,)`; None if no layer has one."""
        losses = [latent.auxiliary for latent in self.latents if latent.auxiliary is not None]
        return _sum(losses) if losses else None

    def elbo(self) -> Tensor:
        """The evidence lower bound with shape `(B,)`: -(distortion + rate), at beta = 1."""
        return -(self.distortion() + self.rate())

    def bits_per_dim(self) -> Tensor | None:
        """The negative ELBO in bits per dimension with shape `(B,)`; None if the likelihood is not a probability.

        It is (-elbo / D + log levels) / log 2 for dequantised likelihoods, an upper bound; without log levels for
        discrete ones. D is the number of observed dimensions.
        """
        bins = self.px.log_bins if self.log_bins is None else self.log_bins
        if bins is None:
            return None
        return (-self.elbo() / self.num_observed() + bins) / math.log(2)

    def num_observed(self) -> Tensor:
        """The number of observed dimensions, at least 1, with shape `(B,)`."""
        if self.mask is None:
            return torch.full_like(self.distortion(), self.x[0].numel())
        return self.mask.expand_as(self.x).flatten(1).sum(1).clamp(min=1)


def _sum(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).sum(0)
