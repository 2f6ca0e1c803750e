"""Multi-sample bounds on the evidence, and surrogate losses for q(z | x).

    L_K = log 1/K sum_k w_k,   w_k = p(x, z_k) / q(z_k | x),   z_k ~ q(z | x)                     (Burda et al., 2016)

`log_mean_exp` computes the bound. There are three estimators of its gradient with respect to the parameters of q:

- "standard": through z and through the density q. Unbiased; its signal-to-noise ratio falls with K (Rainforth et al.,
  2018).
- "stl": only through z (Roeder et al., 2017, Sticking the Landing, arXiv:1703.09194, eq. 8). Unbiased for K = 1, where
  it has no variance at the exact posterior; biased for K > 1 (Tucker et al., 2019).
- "dreg": only through z, with the squares of the normalised weights (Tucker et al., 2019, arXiv:1810.04152). Unbiased
  for every K, and its signal-to-noise ratio rises with K.
"""

import math
from typing import Any, Literal

from torch import Tensor
from typing_extensions import override

from vae_train.model.trace import Trace
from vae_train.model.traits import ModelTraits
from vae_train.objective.base import Context, Objective
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import PositiveInt

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


def doubly_reparameterized(log_weight: Tensor, dim: int) -> Tensor:
    """sum_k v_k² log w_k with a stop-gradient on v_k = w_k / sum_j w_j: the gradient of `log_mean_exp`, in expectation.

    This holds for gradients through z only. Only the parameters of q may use it, with a stop-gradient on the density q
    (`Trace.log_weight(stop_gradient=True)`). The value has no meaning.

    Args:
        log_weight: logarithms of importance weights, with a stop-gradient on the parameters of q.
        dim: the dimension of the K samples, which is reduced.
    """
    normalized = log_weight.detach().softmax(dim)
    return (normalized * normalized * log_weight).sum(dim)


class ImportanceWeighted(Objective):
    """The mean of the negative importance-weighted bounds of groups of samples.

    Args:
        num_samples: samples of z per image.
        groups: number of groups of equal size.
        gradient: gradient estimator for q(z | x), see `vae_train.objective.bounds`.

    Raises:
        ValueError: the samples do not form groups of equal size.
    """

    codes_error = "averages importance weights over samples of z, but those of a point mass on codes are all equal"
    needs_likelihood = True

    def __init__(self, num_samples: PositiveInt, groups: PositiveInt, gradient: Gradient) -> None:
        super().__init__(num_samples)
        if num_samples % groups:
            raise ValueError(f"num_samples={num_samples} must be a multiple of groups={groups}")
        self.groups, self.gradient = groups, gradient

    @classmethod
    @override
    def check_compatible(cls, model: ModelTraits, **settings: Any) -> Incompatible | None:
        error, gradient = super().check_compatible(model, **settings), settings["gradient"]
        if error is not None or gradient == "standard":
            return error
        instead = {"objective.gradient": "standard", "posterior": "gaussian"}
        if not all(layer.supports_stop_gradient for layer in model.layers):
            return Incompatible(f"with gradient={gradient} needs a posterior that supports a stop-gradient", instead)
        if any(layer.support in ("categorical", "joint") for layer in model.layers):
            reason = f"with gradient={gradient} trains q(z | x) only through z, but categories are not differentiable"
            return Incompatible(reason, instead)
        if gradient == "dreg" and any(layer.prior_uses_encoder for layer in model.layers):
            reason = (
                "with gradient=dreg squares the weights of the encoder's gradient, but this prior also uses the encoder"
            )
            return Incompatible(reason, {"objective.gradient": "standard", "prior": "standard_normal"})
        return None

    def log_weight(self, trace: Trace) -> Tensor:
        """Log-weights with shape `(K, B)`, with a stop-gradient on the parameters of q if `gradient` needs one."""
        return trace.log_weight(stop_gradient=self.gradient != "standard")

    @override
    def scalars(self, trace: Trace, context: Context) -> dict[str, Tensor]:
        log_weight = self.log_weight(trace).unflatten(0, (self.groups, -1))  # (groups, K, B)
        terms = {"loss": -log_mean_exp(log_weight, 1).mean()}
        if self.gradient == "dreg":
            terms["encoder_loss"] = -doubly_reparameterized(log_weight, 1).mean()
        return terms
