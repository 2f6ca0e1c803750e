"""q(z | x) = prod_i Cat(z_i; softmax(logits_i(x))), over blocks z_i of one-hot z      (Jang et al., 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.model.family import Posterior
from vae_train.util.ranges import PositiveFloat, PositiveInt


class Categorical(Posterior):
    """Independent categorical variables, reparameterised by the Gumbel-softmax relaxation; the parameters are logits.

    Every variable is also a code whose vector is one-hot, so that a prior over codes can be fitted to them.

    Args:
        event_shape: (D,), for D / categories variables.
        categories: number of values of each variable.
        temperature: temperature of the relaxation, in training only.
        hard: whether samples are also one-hot in training, with the gradient of relaxed samples (straight-through).
            Otherwise training uses relaxed samples, whose log-mass is not defined, see `OneHotCategorical`.
    """

    support = "categorical"
    is_factorized = False
    needs_vector = True

    def __init__(self, event_shape: Shape, categories: PositiveInt, temperature: PositiveFloat, hard: bool) -> None:
        super().__init__(event_shape)
        if len(event_shape) != 1 or event_shape[0] % categories:
            shape = "x".join(map(str, event_shape))
            raise ValueError(
                f"latent_dim must be a multiple of categories={categories}, for instance {2 * categories}, not {shape}"
            )
        self.categories, self.temperature, self.hard = categories, temperature, hard
        self.num_codes, self.num_codebooks = categories, self.size // categories
        self.code_shape: Shape = (self.num_codebooks,)

    @override
    def forward(self, parameters: Tensor) -> OneHotCategorical:
        return OneHotCategorical(parameters, self.categories, self.temperature, self.hard)

    def embed(self, indices: Tensor) -> Tensor:
        """One-hot vectors with shape `(*N, D)` for the categories of the variables, int64 `(*N, D / categories)`."""
        return F.one_hot(indices, self.categories).flatten(-2).to(torch.get_default_dtype())

    def indices(self, z: Tensor) -> Tensor:
        """The largest category of every variable, int64 `(*N, D / categories)`."""
        return z.unflatten(-1, (-1, self.categories)).argmax(-1)
