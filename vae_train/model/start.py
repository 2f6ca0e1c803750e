"""Initialises weight-normalised layers and the decoder's output bias from the training images."""

import math

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from vae_train.batch import Images, evenly_spaced
from vae_train.model.base import LatentVariableModel, Network
from vae_train.model.blocks.weight_norm import WeightNormLayer, normalize_output
from vae_train.model.family import Likelihood
from vae_train.rng import Rng

MAX_PIXELS = 2**22
"""Maximal number of pixels that the bias is fitted to: 5,349 images of 28 x 28."""
PENALTY = 1e-4
"""Weight of a penalty on the bias, which keeps the log-odds of a pixel that is always 0 at about -7."""
MAX_ITERATIONS = 50

MIN_IMAGES, MAX_IMAGES, MAX_VALUES = 16, 256, 2**20
"""Limits of the images that weight-normalised layers are fitted to: their number, and the number of their values."""


def spaced_images(images: Images, count: int, like: Tensor) -> Tensor:
    """`count` evenly spaced images `(count, C, H, W)`, including the first and the last, on the device of `like`."""
    return images.fetch(evenly_spaced(len(images), count).to(like.device)).x.to(like)


@torch.no_grad()
def normalize_activations(model: LatentVariableModel, images: Images) -> None:
    """Initialises weight-normalised layers so that their outputs on training images have mean 0 and variance 1.

    Every layer is initialised just before its first use in one pass of inference, so that later layers see normalised
    inputs. Models without such layers are not changed.

    Salimans & Kingma, 2016, Weight Normalization, arXiv:1602.07868, section 3.

    Args:
        model: the model.
        images: the training images; some evenly spaced ones are used.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, WeightNormLayer)]
    if not layers:
        return
    handles = dict[nn.Module, RemovableHandle]()

    def initialize(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        handles.pop(layer).remove()  # a prior may use the encoder again
        assert isinstance(layer, WeightNormLayer)
        normalize_output(layer, *inputs)

    for layer in layers:
        handles[layer] = layer.register_forward_pre_hook(initialize)
    count = min(max(MIN_IMAGES, MAX_VALUES // math.prod(model.data_shape)), MAX_IMAGES, len(images))
    batch = images.fetch(evenly_spaced(len(images), count).to(model.device))
    model(batch._replace(x=batch.x.to(layers[0].weight)), Rng(0, "initialize", device=model.device))
    for handle in handles.values():
        handle.remove()


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
