"""What one inference pass leaves behind: the draws, and the distributions that score them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vae_train.distributions.base import Distribution
from vae_train.distributions.kl import kl, kl_elementwise
from vae_train.rng import Rng


@dataclass
class Latent:
    """One stochastic layer."""

    z: Tensor
    """(K, B, *event) draws from `q`."""
    q: Distribution
    """The approximate posterior, batch (B,)."""
    p: Distribution
    """The prior, batch () or (B,)."""
    log_q: Tensor | None = None
    """(K, B) log q(z | x) at the draws, where it came with them."""
    # Each is computed once: the objective, the rate and the log ask for them.
    _log_p: Tensor | None = field(default=None, init=False, repr=False)
    _rate: Tensor | None = field(default=None, init=False, repr=False)

    def log_ratio(self, stop_gradient: bool = False) -> Tensor:
        """log p(z) - log q(z | x) at the draws, with shape `(K, B)`, in nats.

        Args:
            held: the parameters of q(z | x) get no gradient but through z (Roeder et al., 2017, eq. 8).
        """
        if self._log_p is None:
            self._log_p = self.p.log_prob(self.z)
        if stop_gradient:
            return self._log_p - self.q.detach().log_prob(self.z)
        if self.log_q is None:
            self.log_q = self.q.log_prob(self.z)
        return self._log_p - self.log_q

    def rate_elementwise(self) -> Tensor | None:
        """KL(q || p) of every element of z with shape `(B, *event)`, in nats; None where that has no closed form."""
        return kl_elementwise(self.q, self.p)

    def rate(self) -> Tensor:
        """KL(q || p) with shape `(B,)`, in nats: in closed form where there is one, else from the draws."""
        if self._rate is None:
            closed = kl(self.q, self.p)
            self._rate = -self.log_ratio().mean(0) if closed is None else closed
        return self._rate


@dataclass
class Trace:
    """One pass of inference over a batch, with K draws per image.

    Rates, distortions and evidence bounds are in nats per image and belong to beta = 1, whatever is optimised.
    """

    x: Tensor
    """(B, C, H, W) the target."""
    latents: tuple[Latent, ...]
    """The stochastic layers; the design's hierarchies have several."""
    px: Distribution
    """The likelihood p(x | z), batch (K, B)."""
    mask: Tensor | None = None
    """(B, 1 or C, H, W) bool, the pixels that count."""
    log_det: Tensor | None = None
    """(B,) see `Batch.log_det`: x may be a map of the values that the data set means."""
    log_bins: float | None = None
    """See `Batch.log_bins`."""
    decoded: Tensor | None = None
    """(K, B, *parameters) the decoder's output, which `px` was made of."""
    decoder: nn.Module | None = None
    """The network that made it, for objectives that restrain its weights."""
    rng: Rng | None = None
    """The noise of this batch, for objectives that need some of their own."""
    # Each is computed once: the objective and the log both ask for them.
    _log_likelihood: Tensor | None = field(default=None, init=False, repr=False)
    _distortion: Tensor | None = field(default=None, init=False, repr=False)
    _rate: Tensor | None = field(default=None, init=False, repr=False)

    def log_likelihood(self) -> Tensor:
        """log p(x | z) of the observed pixels with shape `(K, B)`, as a density of what the data set means."""
        if self._log_likelihood is None:
            found = self.px.log_prob(self.x, self.mask)
            self._log_likelihood = found if self.log_det is None else found + self.log_det
        return self._log_likelihood

    def log_weight(self, stop_gradient: bool = False) -> Tensor:
        """log p(x, z) - log q(z | x) with shape `(K, B)`, at the draws.

        It never holds a closed-form KL: the mean of such weights would be no estimate of p(x).

        Args:
            held: see `Latent.log_ratio`.
        """
        ratios = [latent.log_ratio(stop_gradient) for latent in self.latents]
        return self.log_likelihood() + (ratios[0] if len(ratios) == 1 else torch.stack(ratios).sum(0))

    @property
    def bounded(self) -> bool:
        """Whether there is an evidence lower bound: not where a posterior is a point mass."""
        return all(latent.q.has_density for latent in self.latents)

    def distortion(self) -> Tensor:
        """-E_q[log p(x | z)] with shape `(B,)`, estimated from the K draws."""
        if self._distortion is None:
            self._distortion = -self.log_likelihood().mean(0)
        return self._distortion

    def rate(self) -> Tensor:
        """KL(q || p) summed over the stochastic layers, with shape `(B,)`."""
        if self._rate is None:
            rates = [latent.rate() for latent in self.latents]
            self._rate = rates[0] if len(rates) == 1 else torch.stack(rates).sum(0)
        return self._rate

    def elbo(self) -> Tensor:
        """The evidence lower bound with shape `(B,)`: -(distortion + rate), at beta = 1."""
        return -(self.distortion() + self.rate())

    def bits_per_dim(self) -> Tensor | None:
        """The ELBO in bits per dimension with shape `(B,)`, or None where the likelihood is no mass on discrete data.

        (-elbo / D + log levels) / log 2 for dequantised likelihoods, an upper bound; without log levels for masses.
        """
        bins = self.px.log_bins if self.log_bins is None else self.log_bins
        if bins is None:
            return None
        return (-self.elbo() / self.px.event_shape.numel() + bins) / math.log(2)
