"""q(z | x) = prod_i Cat(z_i; softmax(logits_i(x))), over blocks z_i of one-hot z      (Jang et al., 2017)."""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.model.family import Posterior
from vae_train.util.ranges import PositiveFloat, PositiveInt


class Categorical(Posterior):
    """Independent categorical variables, reparameterised by the Gumbel-softmax relaxation; the parameters are logits.

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

    @override
    def forward(self, parameters: Tensor) -> OneHotCategorical:
        return OneHotCategorical(parameters, self.categories, self.temperature, self.hard)
