"""Estimates the aggregate posterior q(z) = 1/N sum_n q(z | x_n) of N training images from a batch of B images.

With one weight for the image that z was sampled for, and one for each other image,

    log q(z_i) ~ log sum_j c_ij q(z_i | x_j)

- "weighted" (minibatch weighted sampling, Chen et al., 2018, Isolating Sources of Disentanglement in VAEs,
  arXiv:1802.04942, appendix C.1): all weights are 1 / (N B).
- "stratified" (minibatch stratified sampling, their appendix C.2): 1 / N for i = j, and (N - 1) / (N (B - 1)) for the
  others. Theirs gives the last of the others less weight; this is the average over the choice of the last one. The
  estimate of q(z) is unbiased, and exact if the batch is the whole data set.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from vae_train.batch import WHOLE, WholeBatch
from vae_train.distributions.base import Distribution

Estimator = Literal["stratified", "weighted"]


def log_weights(batch: int, total: int, estimator: Estimator, like: Tensor) -> Tensor:
    """log c with shape `(batch, batch)`, row i for the sample of image i.

    Args:
        batch: B, images in the batch.
        total: N, images in the training split.
        estimator: how the other images are weighted.
        like: a tensor with the desired device and type.
    """
    total = max(total, batch)
    if estimator == "weighted":
        return like.new_full((batch, batch), -math.log(total * batch))
    # A batch of one image has no information about the others.
    other = math.log((total - 1) / (total * (batch - 1))) if batch > 1 else 0.0
    own = torch.eye(batch, dtype=torch.bool, device=like.device)
    return torch.where(own, like.new_full((), -math.log(total)), like.new_full((), other))


def aggregate(
    q: Distribution, z: Tensor, total: int, estimator: Estimator, whole: WholeBatch = WHOLE
) -> tuple[Tensor, Tensor]:
    """log q(z) and sum_d log q(z_d) at the samples, each with shape `(K, B)`, in nats.

    Args:
        q: the posteriors of a batch, factorised, batch (B,).
        z: their samples, with shape `(K, B, *event)`.
        total: N, images in the training split.
        estimator: see above.
        whole: the whole batch, if these are some of its images.
    """
    samples = whole.gather(z, 1)
    pairs = whole.gather(q.log_prob_elementwise(samples.unsqueeze(2)).flatten(3), 2)  # (K, B, B, D): log q(z_id | x_j)
    weights = whole.own(log_weights(samples.shape[1], total, estimator, pairs), 0)
    pairs = whole.own(pairs, 1)
    joint = (pairs.sum(-1) + weights).logsumexp(-1)
    marginals = (pairs + weights.unsqueeze(-1)).logsumexp(2).sum(-1)
    return joint, marginals
