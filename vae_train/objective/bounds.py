"""Multi-sample bounds of the evidence, and the surrogates whose gradients train q(z | x).

    L_K = log 1/K sum_k w_k,   w_k = p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)                     (Burda et al., 2016)

`log_mean_exp` is the bound. Its gradient with respect to the parameters of q can be taken in three ways:

- "standard": through z and through the density q. Unbiased; its signal-to-noise ratio falls with K (Rainforth et al.,
  2018).
- "stl": through z alone (Roeder et al., 2017, Sticking the Landing, arXiv:1703.09194, eq. 8). Unbiased for K = 1, where
it has no variance at the exact
  posterior; biased for K > 1 (Tucker et al., 2019).
- "dreg": through z alone, with the squares of the normalised weights (Tucker et al., 2019, arXiv:1810.04152). Unbiased
for every
  K, and its signal-to-noise ratio rises with K.
"""

import math
from typing import Literal

from torch import Tensor

Gradient = Literal["standard", "stl", "dreg"]


def log_mean_exp(log_weight: Tensor, dim: int) -> Tensor:
    """log 1/K sum_k exp(log_weight_k), in nats.

        >>> import torch
        >>> log_mean_exp(torch.tensor([1.0, 3.0]).log(), 0).exp()
        tensor(2.)

    Args:
        log_weight: logarithms of importance weights.
        dim: the dimension of the K samples, which is reduced.
    """
    return log_weight.logsumexp(dim) - math.log(log_weight.shape[dim])


def grouped(log_weight: Tensor, groups: int) -> Tensor:
    """The K samples of `log_weight`, with shape `(K, B)`, in `groups` groups: `(groups, K / groups, B)`."""
    return log_weight.unflatten(0, (groups, -1))


def doubly_reparameterised(log_weight: Tensor, dim: int) -> Tensor:
    """sum_k v_k² log w_k with a stop-gradient on v_k = w_k / sum_j w_j: the gradient of `log_mean_exp`, in expectation.

    That holds for gradients through z alone. Only the parameters of q may use it, with a stop-gradient on the density q
    (`Trace.log_weight(stop_gradient=True)`). The value itself has no meaning.

    Args:
        log_weight: logarithms of importance weights, with a stop-gradient on the parameters of q.
        dim: the dimension of the K samples, which is reduced.
    """
    normalised = log_weight.detach().softmax(dim)
    return (normalised * normalised * log_weight).sum(dim)
