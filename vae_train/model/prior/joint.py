"""p(z, c) = N(z; 0, I) prod_i 1 / K_i, over a real part and one-hot blocks c_i of K_i categories (Dupont, 2018)."""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.distributions.mixture import Product
from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode
from vae_train.model.prior.base import CenteredPrior
from vae_train.util.ranges import PositiveInt


class Joint(CenteredPrior):
    """A standard normal part and uniform categorical blocks, side by side; it has no parameters.

    Args:
        event_shape: (D,); D - sum(categories) elements are normal.
        data_shape: (C, H, W) of an image; not used.
        categories: number of values of each categorical variable, as in the posterior.
    """

    supports = ("joint",)

    def __init__(self, event_shape: Shape, data_shape: Shape, categories: list[PositiveInt]) -> None:
        super().__init__(event_shape, data_shape)
        self.categories = list(categories)
        if sum(categories) >= self.size:
            raise ValueError(f"latent_dim must exceed the sum of categories={self.categories}, but is {self.size}")

    @override
    def condition(self, p: Distribution, shift: Tensor, log_scale: Tensor) -> Product:
        assert isinstance(p, Product)
        maps = zip(p.parts, p.split(shift), p.split(log_scale), strict=True)
        return Product([q.shifted(a) if isinstance(q, OneHotCategorical) else q.affine(a, b) for q, a, b in maps])

    @override
    def forward(self, encode: Encode) -> Product:
        real, *blocks = self.zero.split([len(self.zero) - sum(self.categories), *self.categories])
        # Samples need no gradient: there are no parameters.
        parts = [OneHotCategorical(block, len(block), relaxation=1.0, hard=True) for block in blocks]
        return Product([Normal(real, real), *parts])
