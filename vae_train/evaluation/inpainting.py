"""Draws hidden pixels from p(missing | seen), by a Markov chain or by importance resampling."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.bounds import has_equal_samples
from vae_train.evaluation.inpainting_chain import Guide, run_chain
from vae_train.evaluation.inpainting_target import HiddenValues, Steps, per_image
from vae_train.model.base import SingleLatent
from vae_train.rng import ChainRng, Rng

InpaintingMethod = Literal["gibbs", "importance"]
"""Metropolis within Gibbs, or importance resampling for encoders that were trained with hidden pixels."""

InpaintingChoice = Literal["auto", "gibbs", "importance"]
"""A method, or the one that suits how the encoder was trained."""

STEPS = 200
"""Default length of a chain, and default number of importance samples."""

BATCH_SIZE, SAMPLES_PER_PASS = 256, 8
"""Images per pass through a network, counting every completion and sample of z; importance samples per pass."""


class Completions(NamedTuple):
    """Completions of consecutive images."""

    start: int
    """Index of the first image."""
    x: Tensor
    """(completions, B, C, H, W) in the model's units. Seen values are those of the batch."""
    mask: Tensor | None
    """(B, 1 or C, H, W) bool, True for seen values; None if nothing is hidden."""
    efficiency: Tensor
    """(completions, B) fraction of proposals that a chain accepted after its warm-up, or effective fraction of the K
    importance samples, (sum w)² / (K sum w²)."""


class MaskedImages(Fetched):
    """Images of which masks hide a part, in addition to missing values.

    Args:
        images: the images.
        seen: function of the indices `(B,)` of consecutive images, and of them `(B, C, H, W)`, that returns a mask
            `(B, 1 or C, H, W)`, True for pixels that are seen.
    """

    def __init__(self, images: Fetched, seen: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.images, self.seen = images, seen

    @override
    def __len__(self) -> int:
        return len(self.images)

    @override
    def fetch(self, index: Tensor, rng: Rng | None = None) -> Batch:
        batch = self.images.fetch(index, rng)
        seen = self.seen(index, batch.x).to(batch.x.device)
        seen = seen if batch.mask is None else seen & batch.mask
        return batch._replace(x=torch.where(seen, batch.x, 0.0), encoder_input=None, mask=seen)


@torch.no_grad()
def inpaint(
    model: SingleLatent,
    images: Fetched,
    *,
    method: InpaintingMethod,
    completions: int = 1,
    steps: int = STEPS,
    seed: int = 0,
    stream: str = "data inpaint",
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> Iterator[Completions]:
    """Draws the values that the batches' masks hide from p(missing | seen), several times for every image.

    "gibbs" is a Markov chain of z and the hidden values, for any encoder. It starts from the mean image of the model.

    - Its first half searches for z that explains the seen values: it encodes them together with hidden values of the
      chain and of samples of the model in turn.
    - Then every second step draws the hidden values from p(x | z), proposes z from q(z | seen, hidden), and accepts it
      by the rule of Metropolis and Hastings. Source: Mattei & Frellsen, "Leveraging the Exact Likelihood of Deep Latent
      Variable Models" (arXiv:1802.04826), algorithm 2. If the density of q is only known at its own samples, proposals
      are normal with the moments of q.
    - The other steps are a random walk of z in R^D with the stationary distribution p(z | seen). If p(x | z) is narrow,
      hidden values determine z, so that hardly any encoding is accepted.

    "importance" is for encoders that have seen 0 for hidden values in training. It draws K samples from q(z | seen),
    selects one with probability proportional to p(seen | z) p(z) / q(z | seen), and draws the missing values from
    p(x | z). Source: Mattei & Frellsen, "MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets"
    (arXiv:1812.02633), section 3.2.

    All completions are independent. Pixels with levels are rounded to them.

    Args:
        model: the model.
        images: N images. `Batch.mask` is True for seen values; without a mask nothing is hidden.
        method: see above.
        completions: number of completions of every image.
        steps: length of a chain, or K.
        seed: seed of all noise, which depends on the image's index, the completion and the step.
        stream: the stream of binarisation and dequantisation.
        batch_size: images per pass, counting every completion and sample of z; only affects rounding.
        progress: called with the number of images and completions after every step.

    Yields:
        The completions of consecutive images.

    Raises:
        ValueError: the model has no p(missing | seen), see `check_inpainting`, a mask hides single channels of pixels
            whose channels depend on each other, or a number is not positive.
    """
    check_inpainting(model)
    if min(completions, steps, batch_size) < 1:
        raise ValueError(f"completions={completions}, steps={steps} and batch_size={batch_size} must be at least 1")
    device = model.device
    guide = Guide.of(model, Rng(seed, "inpaint guide", device=device)) if method == "gibbs" else None
    rows = max(1, batch_size // (SAMPLES_PER_PASS if guide is None else 1))
    for start, batch in evaluation_batches(images, max(1, rows // completions), device, stream):
        _check_mask(model, batch.mask)
        parts = list[tuple[Tensor, Tensor]]()
        for first in range(0, completions, rows):
            chains = range(first, min(first + rows, completions))
            rng = partial(ChainRng, seed, "inpaint", start, chains=chains, device=device)
            target = HiddenValues(model, _repeated(batch, len(chains)))
            todo = Steps(steps, rng, progress, len(target))
            z, efficiency = _resample(target, todo) if guide is None else run_chain(target, guide, todo)
            x = target.filled(target.drawn(target.decode(z), rng(steps)))
            parts.append((x, efficiency))
        x, efficiency = (torch.cat([p[i].unflatten(0, (-1, len(batch.x))) for p in parts]) for i in (0, 1))
        yield Completions(start, x, batch.mask, efficiency)


def check_inpainting(model: SingleLatent) -> None:
    """Checks that a model has a distribution of missing values given seen ones.

    Raises:
        ValueError: its posterior is a point mass, or its likelihood cannot leave out single values.
    """
    likelihood, posterior = (getattr(model, part, None) for part in ("likelihood", "posterior"))
    if not getattr(posterior, "has_density", True):
        raise ValueError("the posterior is a point mass, so there is no distribution of the hidden values")
    if has_equal_samples(model):
        raise ValueError("the posterior is a point mass on codes, so there is no distribution of the hidden values")
    if not getattr(likelihood, "supports_mask", True):
        name = type(likelihood).__name__
        raise ValueError(f"{name} is no likelihood of single values, so there is no distribution of the hidden ones")


def _check_mask(model: SingleLatent, mask: Tensor | None) -> None:
    """Rejects masks that hide some channels of a pixel, if its channels depend on each other given z."""
    if mask is None or not (mask.any(1) != mask.all(1)).any():
        return
    if not model.sample(1, Rng(0, "unused", device=model.device)).is_factorized:
        raise ValueError("channels of a pixel depend on each other in this model, so a mask must hide all or none")


def _repeated(batch: Batch, count: int) -> Batch:
    """The images of a batch `count` times, one copy after the other."""
    repeats: dict[str, Any] = {
        name: value.repeat(count, *[1] * (value.dim() - 1))
        for name, value in batch._asdict().items()
        if isinstance(value, Tensor)
    }
    return batch._replace(**repeats)


def _resample(target: HiddenValues, steps: Steps) -> tuple[Tensor, Tensor]:
    """Draws z from q(z | seen), and resamples it with weights p(seen, z) / q(z | seen).

    The largest log w + Gumbel noise selects a sample with a probability proportional to w, as a stream.

    Returns:
        z with shape `(B, *latent_shape)`, and the effective fraction of samples `(B,)`.
    """
    count, model = len(target), target.model
    q = model.encode(torch.where(target.seen, target.x, 0.0), target.y)
    best, log_sums = target.x.new_full((count,), -math.inf), target.x.new_full((2, count), -math.inf)
    z = target.x.new_zeros(count, *model.latent_shape)
    for first, rng in steps.taken(SAMPLES_PER_PASS):
        num = min(SAMPLES_PER_PASS, steps.count - first)
        new, log_q = q.rsample_and_log_prob(rng, num)
        log_w = target.log_joint(new) - (q.log_prob(new) if log_q is None else log_q)
        log_sums = torch.logaddexp(log_sums, torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)]))
        score, index = (log_w + rng.gumbel((num, count))).max(0)
        z = torch.where(per_image(score >= best, z), new[index, torch.arange(count, device=index.device)], z)
        best = torch.maximum(best, score)
    return z, (2 * log_sums[0] - log_sums[1]).exp() / steps.count
