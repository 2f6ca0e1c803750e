"""q(z, c | x) = N(z; mean(x), diag) prod_i Cat(c_i; softmax(logits_i(x)))      (JointVAE; Dupont, 2018, eq. 5)."""

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import promote
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.distributions.mixture import Product
from vae_train.distributions.normal import Normal
from vae_train.model.family import Posterior
from vae_train.util.ranges import PositiveFloat, PositiveInt


class Joint(Posterior):
    """A diagonal normal part and one-hot categorical blocks.

    The parameters are the mean and the log-variance of the normal part, then the logits of every block.

    Args:
        event_shape: (D,); D - sum(categories) elements are normal.
        categories: number of values of each categorical variable.
        temperature: temperature of the Gumbel-softmax relaxation, in training only.
        hard: whether blocks are also one-hot in training, see `vae_train.distributions.categorical`.
    """

    support = "joint"
    is_factorized = False
    needs_vector = True

    def __init__(
        self, event_shape: Shape, categories: list[PositiveInt], temperature: PositiveFloat, hard: bool
    ) -> None:
        super().__init__(event_shape)
        self.categories, self.temperature, self.hard = list(categories), temperature, hard
        taken = sum(self.categories)
        if len(event_shape) != 1 or event_shape[0] <= taken:
            shape = "x".join(map(str, event_shape))
            raise ValueError(
                f"latent_dim must exceed the sum of categories={self.categories}, since the rest is "
                f"normal; use for instance {taken + 10}, not {shape}"
            )
        self.normal = event_shape[0] - taken
        self.parameter_shape = (2 * self.normal + taken,)

    @override
    def forward(self, parameters: Tensor) -> Product:
        mean, log_variance, *blocks = promote(parameters).split([self.normal, self.normal, *self.categories], -1)
        parts = [OneHotCategorical(logits, logits.shape[-1], self.temperature, self.hard) for logits in blocks]
        return Product([Normal(mean, 0.5 * log_variance), *parts])
