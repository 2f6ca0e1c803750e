"""p(z) = prod_i Cat(z_i; softmax(logits_i)), over blocks z_i of one-hot z      (Jang et al., 2017)."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.model.base import Encode, Prior
from vae_train.util.ranges import PositiveInt


class Categorical(Prior):
    """Independent categorical variables with uniform or learned probabilities.

    Args:
        event_shape: (D,).
        data_shape: (C, H, W) of an image; not used.
        categories: number of values of each variable, as in the posterior; divides D.
        learned: whether the probabilities are trained; they start equal.
    """

    supports = ("categorical",)

    def __init__(self, event_shape: Shape, data_shape: Shape, categories: PositiveInt, learned: bool) -> None:
        super().__init__(event_shape, data_shape)
        if self.size % categories:
            raise ValueError(f"latent_dim must be a multiple of categories={categories}, not {self.size}")
        self.categories = categories
        logits = torch.zeros(event_shape)
        self.logits = nn.Parameter(logits) if learned else nn.Buffer(logits, persistent=False)

    @override
    def condition(self, p: Distribution, shift: Tensor, log_scale: Tensor) -> OneHotCategorical:
        assert isinstance(p, OneHotCategorical)  # y shifts the logits; categories have no scale
        return p.shifted(shift)

    @override
    def forward(self, encode: Encode) -> OneHotCategorical:
        # Samples need no gradient, since these parameters are trained by log-probabilities.
        return OneHotCategorical(self.logits, self.categories, relaxation=1.0, hard=True)
