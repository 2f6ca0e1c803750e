"""-E[log 1/K sum_k p(x, z_k) / q(z_k | x)],  z_1 … z_K ~ q(z | x)      (IWAE).

Burda et al., 2016, Importance Weighted Autoencoders, arXiv:1509.00519, eq. 8.
"""

from vae_train.objective.bounds import Gradient, ImportanceWeighted
from vae_train.util.ranges import PositiveInt


class IWAE(ImportanceWeighted):
    """The negative importance-weighted bound. The bound rises with K, from the ELBO at K = 1 to log p(x).

        >>> import torch
        >>> from vae_train.distributions.normal import Normal
        >>> from vae_train.model.trace import Latent, Trace
        >>> from vae_train.rng import Rng
        >>> rng, zero = Rng(0, "example"), torch.zeros(1)
        >>> q, p = Normal(torch.zeros(4, 1), zero), Normal(zero, zero)
        >>> z = q.sample(rng, 5)  # (K, B, 1)
        >>> trace = Trace(torch.zeros(4, 1), None, (Latent(z, q, p),), Normal(z, zero))
        >>> IWAE(num_samples=5, gradient="standard")(None, trace, 0, rng)["loss"] < -trace.elbo().mean()
        tensor(True)

    With missing pixels only the observed ones count, which is the missing-data bound that Mattei & Frellsen (2019,
    arXiv:1812.02633) call MIWAE.

    Args:
        num_samples: K, samples of z per image.
        gradient: gradient estimator for q(z | x), see `vae_train.objective.bounds`.
    """

    def __init__(self, num_samples: PositiveInt, gradient: Gradient) -> None:
        super().__init__(num_samples, 1, gradient)
