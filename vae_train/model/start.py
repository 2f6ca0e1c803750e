"""Initialises the decoder's output bias from the training images."""

import math

import torch
from torch import Tensor

from vae_train.batch import Images, evenly_spaced
from vae_train.model.base import Network
from vae_train.model.family import Likelihood

MAX_PIXELS = 2**22
"""Maximal number of pixels that the bias is fitted to: 5,349 images of 28 x 28."""
PENALTY = 1e-4
"""Weight of a penalty on the bias, which keeps the log-odds of a pixel that is always 0 at about -7."""
MAX_ITERATIONS = 50


def spaced_images(images: Images, count: int, like: Tensor) -> Tensor:
    """`count` evenly spaced images `(count, C, H, W)`, including the first and the last, on the device of `like`."""
    return images.fetch(evenly_spaced(len(images), count).to(like.device)).x.to(like)


def fit_output_bias(decoder: Network, likelihood: Likelihood, images: Images) -> None:
    """Sets the decoder's last bias to maximise the likelihood of training images without information from z.

    For the Bernoulli likelihood this gives the log-odds of the mean image, from which Burda et al. (2016, Importance
    Weighted Autoencoders, arXiv:1509.00519) start in their released code. Adam changes a weight by about its learning
    rate per step, so a bias that starts at 0 needs thousands of steps to learn that the margins are black, and the
    earlier layers saturate meanwhile.

    Args:
        decoder: a network with an `output_bias`.
        likelihood: the likelihood of the decoder's outputs; not modified.
        images: the training images.
    """
    bias = decoder.output_bias()
    assert bias is not None
    count = min(len(images), max(1, MAX_PIXELS // math.prod(likelihood.event_shape)))
    batch = images.fetch(evenly_spaced(len(images), count).to(bias.device))
    x = batch.x.to(bias)
    best = bias.detach().clone().requires_grad_()
    search = torch.optim.LBFGS([best], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        px = likelihood(best.expand(likelihood.parameter_shape)[None])
        loss = PENALTY / 2 * best.square().sum() - px.log_prob(x, batch.mask).mean()
        (best.grad,) = torch.autograd.grad(loss, best)
        return loss.detach()

    search.step(closure)
    bias.data.copy_(best.detach())
