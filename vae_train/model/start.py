"""Where a decoder starts: from the training images, instead of from what its initialisation happens to say."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vae_train.model.base import Network
from vae_train.model.family import Likelihood

if TYPE_CHECKING:
    from vae_train.batch import Images

PIXELS = 2**22
"""As many are looked at: 5,349 images of 28 x 28."""
PULL = 1e-4
"""Weight of a penalty on the bias. It keeps a pixel that is always 0 from minus infinity: at log-odds of -7."""
ITERATIONS = 50


def evenly_spread(images: Images, count: int, like: Tensor) -> Tensor:
    """`count` images `(count, C, H, W)` from first to last, on the device of `like` and of its type."""
    index = torch.linspace(0, len(images) - 1, count, dtype=torch.float64).round().long()
    return images.fetch(index.to(like.device)).x.to(like)


def fit_output_bias(decoder: Network, likelihood: Likelihood, images: Images) -> None:
    """Moves the decoder's last bias to where training images are likeliest while z says nothing.

    For the Bernoulli likelihood these are the log-odds of the mean image, from which Burda et al. (2016) start in their
    released code. Adam moves a weight by at most about its rate per step: a bias that starts at 0 needs thousands of
    steps to learn that the margins are black, and the layers below saturate meanwhile to help it.

    Args:
        decoder: a network that tells its `output_bias`.
        likelihood: what its outputs are the parameters of; it stays as it is.
        images: the training images.
    """
    bias = decoder.output_bias()
    assert bias is not None
    count = min(len(images), max(1, PIXELS // math.prod(likelihood.event_shape)))
    x = evenly_spread(images, count, bias)
    scores = copy.deepcopy(likelihood)  # some learn from what they score
    best = bias.detach().clone().requires_grad_()
    search = torch.optim.LBFGS([best], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        px = scores(best.expand(likelihood.parameter_shape)[None])
        found = PULL / 2 * best.square().sum() - px.log_prob(x).mean()
        found.backward()
        return found.detach()

    search.step(loss)
    bias.data.copy_(best.detach())
