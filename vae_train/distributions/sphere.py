"""Distributions on the unit sphere of R^D, with densities with respect to area."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Distribution, Located, promote
from vae_train.rng import Rng


def log_area(dim: int) -> float:
    """Logarithm of the area of the unit sphere of R^dim, 2 π^(dim / 2) / Γ(dim / 2)."""
    return math.log(2) + 0.5 * dim * math.log(math.pi) - math.lgamma(0.5 * dim)


class UniformSphere(Located):
    """The uniform distribution on the unit sphere.

    Args:
        loc: zeros with shape `(*batch, D)`, the mean; they determine the shape, the device and the precision.
    """

    @property
    @override
    def variance(self) -> Tensor:
        return torch.full_like(self.loc, 1 / self.loc.shape[-1])

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        return 0.0 * (promote(x) + self.loc)[..., 0] - log_area(self.loc.shape[-1])

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return F.normalize(rng.normal((num, *self.loc.shape), self.loc.dtype), dim=-1)


class VonMisesFisher(Distribution):
    """The von Mises-Fisher distribution, log f(z) = k mean·z - log Z(k), on the unit sphere of R^D for D >= 2.

    z = w mean + sqrt(1 - w²) v with a uniform direction v orthogonal to the mean. With u = atanh(w) and
    a = (D - 1) / 2, w has the unimodal log-density

        g(u) = k tanh u + a log sech² u,     mode tanh u* = k / (a + r),     -1 / g''(u*) = (a + r) / (4 a r)

    where r = sqrt(a² + k²). A grid of u around the mode avoids Bessel functions and
    rejection sampling: log Z and the moments of w use the trapezoid rule (exact up to rounding for such functions), and
    samples invert the distribution function, with a density that is linear between grid points. All results have
    gradients with respect to k, including samples. The temperature T of `sample` divides k by T². The first axis is
    mapped to the mean by a reflection (Davidson et al., 2018, algorithm 1).

    Args:
        mean: unit vectors with shape `(*batch, D)`.
        concentration: k >= 0 with shape `(*batch)`.
    """

    NUM_POINTS = 256
    summary_note = "direction and concentration are the parameters on the unit sphere, inside of which the mean lies"
    TAIL_NATS = 30.0
    """Log-density below the mode at which tails are truncated, in nats; they have a mass of 1e-12."""

    def __init__(self, mean: Tensor, concentration: Tensor) -> None:
        if mean.shape[-1] < 2:
            raise ValueError("the unit sphere needs at least 2 dimensions")
        self.direction, self.concentration = promote(mean), promote(concentration)
        super().__init__(mean.shape, 1)
        self._a = 0.5 * (mean.shape[-1] - 1)
        self._u, self._log_cells = self._grid()  # (*batch, NUM_POINTS)
        log_mass = self._log_density() + self._log_cells
        self._log_radial = torch.logsumexp(log_mass, -1)  # (*batch)
        self._log_mass = log_mass - self._log_radial[..., None]  # (*batch, NUM_POINTS)

    @property
    @override
    def mean(self) -> Tensor:
        return self.cosine(1)[..., None] * self.direction

    @property
    @override
    def variance(self) -> Tensor:
        first, second = self.cosine(1)[..., None], self.cosine(2)[..., None]
        along = self.direction**2
        return (second - first**2) * along + (1 - second) * (1 - along) / (2 * self._a)

    @override
    def summary(self, rng: Rng) -> dict[str, Tensor]:
        """Also "direction", the unit vector `(*batch, D)`, and "concentration", k with shape `(*batch)`."""
        return super().summary(rng) | {"direction": self.direction, "concentration": self.concentration}

    @property
    def log_excess(self) -> Tensor:
        """log Z(k) - k with shape `(*batch)`, minus the log-density at the mean."""
        return self._log_radial + log_area(self.event_shape[-1] - 1)

    @property
    def shortfall(self) -> Tensor:
        """E[1 - mean·z] with shape `(*batch)`, without cancellation for large k."""
        return 2 * (torch.softmax(self._log_mass, -1) * torch.sigmoid(-2 * self._u)).sum(-1)

    def cosine(self, power: int) -> Tensor:
        """E[(mean·z)^power] with shape `(*batch)`."""
        return (torch.exp(self._log_mass) * torch.tanh(self._u) ** power).sum(-1)

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        # 1 - mean·x of unit vectors, without cancellation
        return -0.5 * self.concentration * (promote(x) - self.direction).square().sum(-1) - self.log_excess

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        uniform = rng.uniform((num, *self.batch_shape), self.concentration.dtype)
        noise = rng.normal((num, *self.batch_shape, self.event_shape[-1] - 1), self.concentration.dtype)
        if temperature == 0.0:
            return self.direction.expand(num, *self.direction.shape)
        cooled = self if temperature == 1.0 else VonMisesFisher(self.direction, self.concentration / temperature**2)
        u = cooled._inverse_cdf(uniform)[..., None]  # (num, *batch, 1)
        upright = torch.cat([torch.tanh(u), F.normalize(noise, dim=-1) / torch.cosh(u)], -1)
        return self._reflect(upright)

    def _grid(self) -> tuple[Tensor, Tensor]:
        """Grid points, dense around the mode and sparse in the tails, and the log-widths of their cells."""
        k, a = self.concentration.detach(), self._a
        r = torch.sqrt(a * a + k * k)
        mode = 0.5 * torch.log((a + r + k) / (a + a * a / (r + k)))
        scale = torch.sqrt((a + r) / (4 * a * r))
        # Tails fall like exp(-2 a |u|), and the scale is at least 1 / sqrt(4 a); far below that they are normal.
        reach = max(12.0, self.TAIL_NATS / math.sqrt(a))
        bend = math.asinh(reach)
        s = torch.linspace(-1, 1, self.NUM_POINTS, dtype=k.dtype, device=k.device)
        steps = torch.sinh(bend * s) * (reach / math.sinh(bend))
        cells = torch.cosh(bend * s) * (bend * reach / math.sinh(bend) * 2 / (self.NUM_POINTS - 1))
        return mode[..., None] + scale[..., None] * steps, torch.log(scale[..., None] * cells)

    def _log_density(self) -> Tensor:
        """g - k on the grid, `(*batch, NUM_POINTS)`; tanh u - 1 is written so that float32 keeps it for large k."""
        log_sech = math.log(2) - self._u.abs() - F.softplus(-2 * self._u.abs())
        return -2 * self.concentration[..., None] * torch.sigmoid(-2 * self._u) + 2 * self._a * log_sech

    def _inverse_cdf(self, uniform: Tensor) -> Tensor:
        """u with shape `(num, *batch)` at which the distribution function is `uniform`.

        Within a cell the density is p + (q - p) f for f in [0, 1], so the area c is reached at
        f = 2 c / (p + sqrt(p² + 2 (q - p) c)).
        """
        # A lower bound keeps p² above 0 in float32, so that the root has a gradient.
        density = torch.exp(self._log_mass.clamp(min=-self.TAIL_NATS))
        area = 0.5 * (density[..., 1:] + density[..., :-1])
        below = F.pad(area.cumsum(-1), (1, 0))
        target = uniform * below[..., -1]
        cell = (target[..., None] >= below[..., 1:-1]).sum(-1, keepdim=True)  # (num, *batch, 1)
        p, q, start = (_at(table, cell) for table in (density[..., :-1], density[..., 1:], below[..., :-1]))
        rest = (target - start).clamp(min=0.0)
        share = 2 * rest / (p + torch.sqrt((p * p + 2 * (q - p) * rest).clamp(min=1e-30)))
        first, last = _at(self._u[..., :-1], cell), _at(self._u[..., 1:], cell)
        return first + share.clamp(max=1.0) * (last - first)

    def _reflect(self, x: Tensor) -> Tensor:
        """Maps the first axis to the mean direction by a reflection, using whichever of ±e1 is farther from it."""
        sign = torch.where(self.direction[..., :1] < 0, -1.0, 1.0).to(x.dtype)
        first = torch.zeros_like(self.direction[..., :1]) + sign
        axis = self.direction + F.pad(first, (0, x.shape[-1] - 1))  # (*batch, D), length at least sqrt(2)
        axis = F.normalize(axis, dim=-1)
        return -sign * (x - 2 * (x * axis).sum(-1, keepdim=True) * axis)


def _at(table: Tensor, cell: Tensor) -> Tensor:
    """Entries of a table `(*batch, N)` at indices `(num, *batch, 1)`."""
    return torch.gather(table.expand(*cell.shape[:-1], -1), -1, cell).squeeze(-1)
