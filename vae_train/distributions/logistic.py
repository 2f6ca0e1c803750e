"""Discretised logistic distributions on a grid, and their mixtures."""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng


def level_terms(x: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Log-probability of the level of `x` under discretised logistic distributions, elementwise.

    With the edges a > b of a level in units of the scale, from the location,

        log(σ(a) - σ(b)) = log σ(a) + log σ(-b) + log(1 - e^(b - a)),

    which avoids cancellation. The first level has no lower edge, and the last no upper edge.

    Args:
        x: values k / (levels - 1).
        loc: location on the scale of x.
        log_scale: logarithm of the scale.
        levels: number of values.
    """
    width, rate = 1 / (levels - 1), torch.exp(-log_scale)
    x = promote(x)
    below = F.softplus((loc - x - 0.5 * width) * rate)  # -log σ(a)
    above = F.softplus((x - 0.5 * width - loc) * rate)  # -log σ(-b)
    inner = torch.log(-torch.expm1(-width * rate))
    first, last = x < 0.5 * width, x > 1 - 0.5 * width
    return torch.where(first, 0.0, -above) + torch.where(last, 0.0, -below) + torch.where(first | last, 0.0, inner)


def level_mean(loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """The expectation of the level, sum over k >= 1 of P(level >= k), divided by levels - 1."""
    rate = torch.exp(-log_scale)
    total = torch.zeros_like(loc * rate)
    for k in range(1, levels):  # a loop, since vectorising takes `levels` times the memory
        total = total + torch.sigmoid((loc - (k - 0.5) / (levels - 1)) * rate)
    return total / (levels - 1)


def level_sample(uniform: Tensor, loc: Tensor, log_scale: Tensor, levels: int, temperature: float = 1.0) -> Tensor:
    """Samples on the grid, without a gradient; the temperature is a factor on the scale."""
    uniform = uniform.clamp_min(torch.finfo(uniform.dtype).tiny)
    x = loc + temperature * torch.exp(log_scale) * (torch.log(uniform) - torch.log1p(-uniform))
    return ((x.clamp(0, 1) * (levels - 1)).round() / (levels - 1)).detach()


class DiscretizedLogistic(Distribution):
    """Independent logistic distributions, each the mass of a level of the grid k / (levels - 1), with open ends.

    log P(k) = log(σ((x + h - loc) / scale) - σ((x - h - loc) / scale)) with x = k / (levels - 1) and h = half a level
    (Kingma et al., 2016, section 5.2; Salimans et al., 2017, eq. 2).

    Args:
        loc: location on the scale of x with shape `(*batch, *event)`.
        log_scale: logarithm of the scale, broadcasts against `loc`.
        levels: number of values that an element can take.
        event_ndim: number of trailing event dimensions.
    """

    is_factorized = True
    log_bins = 0.0

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int, event_ndim: int = 1) -> None:
        self.loc, self.log_scale, self.levels = promote(loc), promote(log_scale), levels
        # torch.broadcast_shapes imports sympy.
        super().__init__(torch.broadcast_tensors(self.loc, self.log_scale)[0].shape, event_ndim)

    @property
    @override
    def mean(self) -> Tensor:
        return level_mean(self.loc, self.log_scale, self.levels)

    @override
    def log_prob_elementwise(self, x: Tensor) -> Tensor:
        return level_terms(x, self.loc, self.log_scale, self.levels)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        uniform = rng.uniform((num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        return level_sample(uniform, self.loc, self.log_scale, self.levels, temperature)


class LogisticMixture(Distribution):
    """Pixels whose channels follow a mixture of discretised logistic distributions.

    P(x) = sum_m π_m prod_c P(x_c | loc_mc + sum_{d < c} weight_mcd x_d, scale_mc) at every pixel: the location of a
    channel may depend on the channels before it (Salimans et al., 2017, PixelCNN++, arXiv:1701.05517, eq. 1 to 3).

    Args:
        logits: of π, with shape `(*batch, M, H, W)`.
        loc: locations on the scale of x, with shape `(*batch, M, C, H, W)`.
        log_scale: logarithms of the scales, with the same shape.
        weights: dependence of channel 1 on 0, 2 on 0 and 2 on 1, with shape `(*batch, M, 3, H, W)`, if C is 3; None
            for channels that are independent within a component.
        levels: number of values that an element can take.
    """

    log_bins = 0.0

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, weights: Tensor | None, levels: int) -> None:
        self.log_weights = torch.log_softmax(promote(logits), -3)
        self.loc, self.log_scale, self.levels = promote(loc), promote(log_scale), levels
        self.weights = None if weights is None else promote(weights)
        super().__init__(self.loc.shape[:-4] + self.loc.shape[-3:], 3)

    @property
    @override
    def mean(self) -> Tensor:
        channels: list[Tensor] = []
        for c in range(self.event_shape[0]):
            channels.append(level_mean(self._location(c, channels), self.log_scale[..., c, :, :], self.levels))
        means = torch.stack(channels, -3)  # (*batch, M, C, H, W)
        return (torch.exp(self.log_weights).unsqueeze(-3) * means).sum(-4)

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        values = promote(x).unsqueeze(-4).unbind(-3)  # C of (*any, 1, H, W)
        total = self.log_weights
        for c, value in enumerate(values):
            location = self._location(c, values[:c])
            total = total + level_terms(value, location, self.log_scale[..., c, :, :], self.levels)
        terms = torch.logsumexp(total, -3)  # (*any or *batch, H, W)
        if mask is not None:
            terms = torch.where(mask.expand(*mask.shape[:-3], *self.event_shape).all(-3), terms, 0.0)
        return terms.flatten(-2).sum(-1)

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        num_channels, *size = self.event_shape
        chance = rng.uniform((num, *self.batch_shape, *size), self.loc.dtype)
        uniform = rng.uniform((num, *self.batch_shape, *self.event_shape), self.loc.dtype)
        passed = self.log_weights.exp().cumsum(-3) <= chance.unsqueeze(-3)
        last = self.log_weights.shape[-3] - 1
        index = passed.sum(-3, keepdim=True).clamp_max(last)  # (num, *batch, 1, H, W)
        channels: list[Tensor] = []
        for c in range(num_channels):
            location = self._location(c, [value.unsqueeze(-3) for value in channels])
            location, log_scale = (_pick(p, index) for p in (location, self.log_scale[..., c, :, :]))
            channels.append(level_sample(uniform[..., c, :, :], location, log_scale, self.levels, temperature))
        return torch.stack(channels, -3)

    def _location(self, c: int, before: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
        """The location of channel `c`, which depends on the channels before it, each `(*any, M or 1, H, W)`."""
        location = self.loc[..., c, :, :]
        if self.weights is not None:
            for d, value in enumerate(before):
                location = location + self.weights[..., c * (c - 1) // 2 + d, :, :] * value
        return location


def _pick(parameter: Tensor, index: Tensor) -> Tensor:
    """The component `index` at every pixel, with shape `(num, *batch, H, W)`."""
    shape = (*index.shape[:-3], *parameter.shape[-3:])
    return torch.gather(parameter.expand(shape), -3, index).squeeze(-3)
