"""Adversarial losses of reconstructions, and the weight that balances them with another loss.

hinge:          critic: ½ E[max(0, 1 - D(x))] + ½ E[max(0, 1 + D(x̂))]           adversarial: -E[D(x̂)]
nonsaturating:  critic: ½ E[softplus(-D(x))] + ½ E[softplus(D(x̂))]              adversarial: E[softplus(-D(x̂))]
both with R1:   critic: + r1 / 2 · E |dD(x) / dx|²                               (Mescheder et al., 2018, eq. 9)
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vae_train.batch import WholeBatch
from vae_train.distributions.base import promote
from vae_train.model.trace import Trace
from vae_train.objective.critics import PatchCritic

Kind = Literal["hinge", "nonsaturating"]

MAX_BALANCE = 1e4
"""Upper bound of the adaptive weight, as in the code of Esser et al."""


def observed(trace: Trace, x: Tensor) -> Tensor:
    """`x` with 0 for missing pixels, so that networks on images ignore them."""
    return x if trace.mask is None else torch.where(trace.mask, x, 0.0)


def adversarial_loss(logits: Tensor, kind: Kind) -> Tensor:
    """The loss of reconstructions, with shape `()`, from the critic's logits of them."""
    return (-logits if kind == "hinge" else F.softplus(-logits)).mean()


def critic_loss(critic: PatchCritic, real: Tensor, fake: Tensor, kind: Kind, r1: float) -> Tensor:
    """The loss of the critic, with shape `()`.

    Args:
        critic: maps images to logits.
        real: images, without a gradient.
        fake: reconstructions, without a gradient.
        kind: the losses, see above.
        r1: weight of the penalty on the critic's gradient at real images.
    """
    # Gradients are disabled in evaluation, but R1 needs one.
    with torch.enable_grad():
        real = real.requires_grad_(r1 > 0)
        real_logits, fake_logits = critic(real), critic(fake)
        if kind == "hinge":
            loss = 0.5 * (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean())
        else:
            loss = 0.5 * (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean())
        if not r1:
            return loss
        (gradient,) = torch.autograd.grad(real_logits.mean(-1).sum(), real, create_graph=True)
        return loss + 0.5 * r1 * gradient.square().flatten(1).sum(-1).mean()


def gradient_ratio(loss: Tensor, adversarial: Tensor, at: Tensor, whole: WholeBatch) -> Tensor:
    """|d loss / d at| / |d adversarial / d at|, at most `MAX_BALANCE`, with shape `()` and without a gradient.

    Args:
        loss: a mean over the images of this process.
        adversarial: another one.
        at: a parameter, or a tensor with a row per image.
        whole: the whole batch, whose gradients are compared.
    """
    gradients = [torch.autograd.grad(term, at, retain_graph=True)[0] for term in (loss, adversarial)]
    norms = [whole.norm(promote(gradient), isinstance(at, nn.Parameter)) for gradient in gradients]
    return (norms[0] / (norms[1] + 1 / MAX_BALANCE)).clamp(max=MAX_BALANCE).to(loss.dtype)
