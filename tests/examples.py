"""An example of every distribution, and what the properties of `tests/test_distributions.py` need to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vae_train.distributions.base import Affine, Distribution, PointMass
from vae_train.distributions.bernoulli import Bernoulli, ContinuousBernoulli
from vae_train.distributions.beta import Beta
from vae_train.distributions.categorical import Levels, OneHotCategorical
from vae_train.distributions.codes import Codes, QuantizedPoint, UniformCodes
from vae_train.distributions.dequantized import Dequantized, DequantizedLaplace, DequantizedNormal
from vae_train.distributions.flows.base import Transformed
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.location_scale import Fitted, Huber, Laplace, StudentT
from vae_train.distributions.logistic import DiscretizedLogistic, LogisticMixture
from vae_train.distributions.mixture import Mixture, Product
from vae_train.distributions.multivariate import LowRankNormal, MultivariateNormal
from vae_train.distributions.normal import Normal
from vae_train.distributions.similarity import Similarity
from vae_train.distributions.sphere import UniformSphere, VonMisesFisher
from vae_train.rng import generator

Shape = tuple[int, ...]
Make = Callable[[Shape, Shape, torch.dtype, int], Distribution]


@dataclass
class Example:
    """How one is made, and what it promises beyond what all distributions promise."""

    make: Make
    """(batch, event, dtype, seed) -> a distribution."""
    levels: int | None = None
    """Values lie on the grid k / (levels - 1); 2 for bits."""
    events: tuple[Shape, ...] = ((), (4,), (1, 2, 3))
    """Event shapes that it takes."""
    batches: tuple[Shape, ...] = ((), (5,), (2, 5))
    """Batch shapes that it takes."""
    masks: bool = True
    """Whether elements may be unobserved."""
    scaled: bool = True
    """Whether a temperature is a factor on the distance of samples from the mean."""
    mean: bool = True
    """Whether it has a mean, and the mean of samples is it."""
    indices: bool = False
    """Whether its values are indices, int64."""


def numbers(shape: Shape, seed: int, *key: int) -> Tensor:
    """Standard normal float64 numbers."""
    return torch.randn(shape, generator=generator(seed, "example", *key), dtype=torch.float64)


def _normal(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Normal:
    mean, log_scale = numbers((*batch, *event), seed, 0), 0.5 * numbers((*batch, *event), seed, 1)
    return Normal(mean.to(dtype), log_scale.to(dtype), len(event))


def _affine(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Affine:
    shift, log_scale = numbers((*batch, *event), seed, 2), 0.5 * numbers((*batch, *event), seed, 3)
    return Affine(_normal(batch, event, dtype, seed), shift.to(dtype), log_scale.to(dtype))


def _dequantized(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> DequantizedNormal:
    mean, log_scale = numbers((*batch, *event), seed, 0).sigmoid(), numbers((*batch, *event), seed, 1).sigmoid() - 2.5
    return DequantizedNormal(Normal(mean.to(dtype), log_scale.to(dtype), len(event)), 17)


def _bernoulli(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Bernoulli:
    return Bernoulli(numbers((*batch, *event), seed).to(dtype), len(event))


def _mixture(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Mixture:
    return Mixture(_normal((3, *batch), event, dtype, seed), numbers((3,), seed, 2).to(dtype))


def _one_hot(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> OneHotCategorical:
    return OneHotCategorical(numbers((*batch, *event), seed).to(dtype), 3, relaxation=0.5, hard=True)


def _product(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Product:
    size = event[0] - 3
    return Product([_normal(batch, (size,), dtype, seed), _one_hot(batch, (3,), dtype, seed)])


def _uniform_sphere(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> UniformSphere:
    return UniformSphere(torch.zeros(*batch, *event, dtype=dtype))


def _von_mises_fisher(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> VonMisesFisher:
    mean = torch.nn.functional.normalize(numbers((*batch, *event), seed, 0), dim=-1)
    return VonMisesFisher(mean.to(dtype), numbers(batch, seed, 1).add(2).exp().to(dtype))


def _multivariate(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> MultivariateNormal:
    size = torch.Size(event).numel()
    free = 0.5 * numbers((*batch, size, size), seed, 1)
    factor = free.tril(-1) + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())
    return MultivariateNormal(numbers((*batch, *event), seed, 0).to(dtype), factor.to(dtype), len(event))


def _low_rank(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> LowRankNormal:
    mean, log_scale = numbers((*batch, *event), seed, 0), 0.5 * numbers((*batch, *event), seed, 1)
    directions = numbers((*batch, torch.Size(event).numel(), 2), seed, 2)
    return LowRankNormal(mean.to(dtype), log_scale.to(dtype), directions.to(dtype), len(event))


def _flowed(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Transformed:
    base = _normal(batch, event, dtype, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = MaskedFlow(torch.Size(event).numel(), 3, 2, [8], None, coupling=False).to(base.loc.dtype)
    return Transformed(base, flow(numbers((*batch, 3), seed, 2).to(base.loc.dtype)))


def _point(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> PointMass:
    return PointMass(numbers((*batch, *event), seed).to(dtype), len(event))


class Grid:
    """A codebook of the numbers 0, 1 and 2, one per element."""

    num_codes = 3

    def __init__(self, event: Shape, dtype: torch.dtype) -> None:
        self.event_shape = self.code_shape = event
        self.dtype = dtype

    def embed(self, indices: Tensor) -> Tensor:
        return indices.to(self.dtype)

    def indices(self, z: Tensor) -> Tensor:
        return z.round().long()


def _uniform_codes(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> UniformCodes:
    return UniformCodes(torch.tensor(3.0).log().neg().to(dtype), 3, event)


def _codes(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Codes:
    base = _uniform_codes(batch, event, dtype, seed)
    return Codes(base, Grid(event, base.log_mass.dtype))


def _quantized(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> QuantizedPoint:
    codes = numbers((*batch, *event), seed).round().long().clamp(-1, 1) + 1
    return QuantizedPoint(Grid(event, dtype).embed(codes), codes, len(event))


def _pixels(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, int]:
    """Locations in (0, 1), logarithms of scales, and the number of dimensions of an event."""
    loc, log_scale = numbers((*batch, *event), seed, 0).sigmoid(), numbers((*batch, *event), seed, 1).sigmoid() - 2.5
    return loc.to(dtype), log_scale.to(dtype), len(event)


def _laplace(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Laplace:
    return Laplace(*_pixels(batch, event, dtype, seed))


def _dequantized_laplace(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> DequantizedLaplace:
    return DequantizedLaplace(_laplace(batch, event, dtype, seed), 17)


def _huber(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Huber:
    loc, log_scale, ndim = _pixels(batch, event, dtype, seed)
    return Huber(loc, log_scale, 0.7, ndim)


def _student_t(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> StudentT:
    loc, log_scale, ndim = _pixels(batch, event, dtype, seed)
    return StudentT(loc, log_scale, 9.0, ndim)


def _quadrature(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Dequantized:
    return Dequantized(_huber(batch, event, dtype, seed), 17)


def _fitted(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Fitted:
    return Fitted(_dequantized(batch, event, dtype, seed), 0.01)


def _continuous_bernoulli(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> ContinuousBernoulli:
    return ContinuousBernoulli(3 * numbers((*batch, *event), seed).to(dtype), len(event))


def _beta(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Beta:
    a, b = (numbers((*batch, *event), seed, i).exp().to(dtype) for i in range(2))
    return Beta(a, b, len(event))


def _discretized_logistic(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> DiscretizedLogistic:
    loc, log_scale, ndim = _pixels(batch, event, dtype, seed)
    return DiscretizedLogistic(loc, log_scale, 17, ndim)


def _logistic_mixture(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> LogisticMixture:
    channels, *size = event
    logits = numbers((*batch, 4, *size), seed, 2).to(dtype)
    loc, log_scale, _ = _pixels(batch, (4, *event), dtype, seed)
    weights = 0.3 * numbers((*batch, 4, 3, *size), seed, 3).to(dtype) if channels == 3 else None
    return LogisticMixture(logits, loc, log_scale, weights, 17)


def _levels(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Levels:
    return Levels(numbers((*batch, *event, 5), seed).to(dtype), len(event))


def _similarity(batch: Shape, event: Shape, dtype: torch.dtype, seed: int) -> Similarity:
    return Similarity(numbers((*batch, *event), seed).sigmoid().to(dtype), 10.0)


EXAMPLES: dict[type[Distribution], Example] = {
    Normal: Example(_normal),
    Affine: Example(_affine, masks=False),
    DequantizedNormal: Example(_dequantized, levels=17),
    Bernoulli: Example(_bernoulli, levels=2, scaled=False),
    Mixture: Example(_mixture, batches=((),), masks=False, scaled=False),
    OneHotCategorical: Example(_one_hot, levels=2, events=((3,), (6,)), masks=False, scaled=False),
    Product: Example(_product, events=((4,), (5,)), masks=False, scaled=False),
    UniformSphere: Example(_uniform_sphere, events=((2,), (5,)), masks=False, scaled=False),
    VonMisesFisher: Example(_von_mises_fisher, events=((2,), (5,)), masks=False, scaled=False),
    MultivariateNormal: Example(_multivariate, events=((4,), (1, 2, 3)), masks=False),
    LowRankNormal: Example(_low_rank, events=((4,), (1, 2, 3)), masks=False),
    Transformed: Example(_flowed, events=((4,), (1, 2, 3)), masks=False, scaled=False, mean=False),
    PointMass: Example(_point, masks=False),
    QuantizedPoint: Example(_quantized, masks=False),
    UniformCodes: Example(_uniform_codes, batches=((),), masks=False, scaled=False, mean=False, indices=True),
    Codes: Example(_codes, batches=((),), masks=False, scaled=False, mean=False),
    Laplace: Example(_laplace),
    DequantizedLaplace: Example(_dequantized_laplace, levels=17),
    Huber: Example(_huber),
    StudentT: Example(_student_t),
    Dequantized: Example(_quadrature, levels=17),
    Fitted: Example(_fitted, levels=17, masks=False),  # what does not count changes the scale
    ContinuousBernoulli: Example(_continuous_bernoulli),
    Beta: Example(_beta),
    DiscretizedLogistic: Example(_discretized_logistic, levels=17, scaled=False),
    LogisticMixture: Example(_logistic_mixture, levels=17, events=((3, 2, 4), (1, 2, 4)), scaled=False),
    Levels: Example(_levels, levels=5, masks=False, scaled=False),  # no gradient reaches x
    Similarity: Example(_similarity, events=((1, 8, 8), (3, 8, 8)), masks=False),
}
