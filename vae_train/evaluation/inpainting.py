"""Draws hidden pixels from p(missing | seen), by a Markov chain or by importance resampling."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch, Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.distributions.base import Distribution
from vae_train.distributions.normal import Normal
from vae_train.model.base import SingleLatent
from vae_train.rng import ChainRng, Rng

InpaintingMethod = Literal["gibbs", "importance"]
"""Metropolis within Gibbs, or importance resampling for encoders that were trained with hidden pixels."""

STEPS = 200
"""Default length of a chain, and default number of importance samples."""

WARMUP_FRACTION = 0.25
"""Fraction of a chain that accepts every proposal."""

BATCH_SIZE, SAMPLES_PER_PASS = 256, 8
"""Images per pass through a network, counting every completion and sample of z; importance samples per pass."""

MIN_UNIFORM = 1e-30
"""Lower bound of uniform noise before its logarithm."""

START_IMAGES = 64
"""Number of the model's samples whose mean is the start of a chain."""


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

    "gibbs" is a Markov chain of z and the missing values, for any encoder. A step proposes z from q(z | seen, missing),
    accepts it by the rule of Metropolis and Hastings, and draws the missing values from p(x | z). The chain starts with
    the mean image of the model. It accepts every proposal at first (pseudo-Gibbs, Rezende et al., 2014,
    arXiv:1401.4082, appendix F), since it would hardly leave a bad start otherwise. If the density of q is only known
    at its own samples, proposals are normal with the moments of q. Source: Mattei & Frellsen, "Leveraging the Exact
    Likelihood of Deep Latent Variable Models" (arXiv:1802.04826), algorithm 2.

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
        ValueError: the model has no p(missing | seen), see `check_inpainting`, or a mask hides single channels of
            pixels whose channels depend on each other.
    """
    check_inpainting(model)
    device = model.device
    px = model.sample(START_IMAGES, Rng(seed, "inpaint start", device=device))
    mean = px.mean.mean(0)
    rows = batch_size if method == "gibbs" else max(1, batch_size // SAMPLES_PER_PASS)
    for start, batch in evaluation_batches(images, max(1, rows // completions), device, stream):
        if not px.is_factorized and _splits_pixels(batch.mask):
            raise ValueError("channels of a pixel depend on each other in this model, so a mask must hide all or none")
        parts = list[tuple[Tensor, Tensor]]()
        for first in range(0, completions, rows):
            chains = range(first, min(first + rows, completions))
            rng = partial(ChainRng, seed, "inpaint", start, chains=chains, device=device)
            todo, repeated = _Steps(steps, rng, progress, len(chains) * len(batch.x)), _repeated(batch, len(chains))
            done = _chain(model, repeated, mean, todo) if method == "gibbs" else _resampled(model, repeated, todo)
            parts.append(done)
        x, efficiency = (torch.cat([p[i].unflatten(0, (-1, len(batch.x))) for p in parts]) for i in (0, 1))
        yield Completions(start, x, batch.mask, efficiency)


@dataclass(frozen=True)
class _Steps:
    """The steps of some chains."""

    count: int
    rng: Callable[[int], Rng]
    """The noise of a step."""
    progress: Callable[[int], object]
    rows: int
    """Number of chains, for all images."""

    def taken(self, size: int = 1) -> Iterator[tuple[int, Rng]]:
        """Yields the number and the noise of every step, or of the first of `size` steps that are taken at once."""
        for first in range(0, self.count, size):
            yield first, self.rng(first)
            self.progress(self.rows * min(size, self.count - first))


def check_inpainting(model: SingleLatent) -> None:
    """Checks that a model has a distribution of missing values given seen ones.

    Raises:
        ValueError: its posterior is a point mass, or its likelihood cannot leave out single values.
    """
    likelihood, posterior = (getattr(model, part, None) for part in ("likelihood", "posterior"))
    if not getattr(posterior, "has_density", True):
        raise ValueError("the posterior is a point mass, so there is no distribution of the hidden values")
    if not getattr(likelihood, "supports_mask", True):
        name = type(likelihood).__name__
        raise ValueError(f"{name} is no likelihood of single values, so there is no distribution of the hidden ones")


def _chain(model: SingleLatent, batch: Batch, mean: Tensor, steps: _Steps) -> tuple[Tensor, Tensor]:
    """Runs a Markov chain for every image.

    Returns:
        Completed images `(B, C, H, W)`, and the fraction of accepted proposals `(B,)`.
    """
    seen, y, count = _mask(batch), batch.y, len(batch.x)
    x, z, px = torch.where(seen, batch.x, mean), None, None
    p, warmup, accepted = _prior(model, batch), int(WARMUP_FRACTION * steps.count), batch.x.new_zeros(count)
    for step, noise in steps.taken():
        q = _proposal(model, _within_levels(model, x), y, noise)
        new = q.sample(noise, 1)[0]
        if z is None or px is None or step < warmup:
            z, accept = new, torch.ones_like(accepted)
        else:
            proposed = model.decode(new, y).log_prob(x) + p.log_prob(new) - q.log_prob(new)
            current = px.log_prob(x) + p.log_prob(z) - q.log_prob(z)
            accept = noise.uniform((1, count))[0].log() < proposed - current
            z = torch.where(_like(accept, z), new, z)
        accepted += accept if step >= warmup else 0
        px = model.decode(z, y)
        x = torch.where(seen, batch.x, _on_grid(model, px.sample(noise, 1)[0]))
    return torch.where(seen, batch.x, _within_levels(model, x)), accepted / (steps.count - warmup)


def _resampled(model: SingleLatent, batch: Batch, steps: _Steps) -> tuple[Tensor, Tensor]:
    """Draws z by importance resampling, and the missing values from p(x | z).

    The largest log w + Gumbel noise selects a sample with a probability proportional to w, as a stream.

    Returns:
        Completed images `(B, C, H, W)`, and the effective fraction of samples `(B,)`.
    """
    seen, y, count = _mask(batch), batch.y, len(batch.x)
    p, q = _prior(model, batch), model.encode(torch.where(seen, batch.x, 0.0), y)
    best, log_sums = batch.x.new_full((count,), -math.inf), batch.x.new_full((2, count), -math.inf)
    z = batch.x.new_zeros(count, *model.latent_shape)
    for first, noise in steps.taken(SAMPLES_PER_PASS):
        num = min(SAMPLES_PER_PASS, steps.count - first)
        new, log_q = q.rsample_and_log_prob(noise, num)
        log_q = q.log_prob(new) if log_q is None else log_q
        log_w = model.decode(new, y).log_prob(batch.x, seen) + p.log_prob(new) - log_q
        log_sums = torch.logaddexp(log_sums, torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)]))
        gumbel = -(-noise.uniform((num, count)).clamp(min=MIN_UNIFORM).log()).log()
        score, index = (log_w + gumbel).max(0)
        z = torch.where(_like(score >= best, z), new[index, torch.arange(count, device=index.device)], z)
        best = torch.maximum(best, score)
    drawn = model.decode(z, y).sample(steps.rng(steps.count), 1)[0]
    x = torch.where(seen, batch.x, _within_levels(model, drawn))
    return x, (2 * log_sums[0] - log_sums[1]).exp() / steps.count


def _proposal(model: SingleLatent, x: Tensor, y: Tensor | None, rng: Rng) -> Distribution:
    """q(z | x), or a normal distribution with its moments if the density of q is only known at its own samples."""
    q = model.encode(x, y)
    if getattr(getattr(model, "posterior", None), "has_tractable_density", True):
        return q
    moments = q.summary(rng)
    return Normal(moments["mean"], moments["std"].log(), len(q.event_shape))


def _prior(model: SingleLatent, batch: Batch) -> Distribution:
    """The prior of z, which may depend on the condition."""
    return model(batch, Rng(0, "unused", device=batch.x.device)).latents[0].p


def _repeated(batch: Batch, count: int) -> Batch:
    """The images of a batch `count` times, one copy after the other."""
    repeats: dict[str, Any] = {
        name: value.repeat(count, *[1] * (value.dim() - 1))
        for name, value in batch._asdict().items()
        if isinstance(value, Tensor)
    }
    return batch._replace(**repeats)


def _splits_pixels(mask: Tensor | None) -> bool:
    """Whether a mask hides some channels of a pixel, but not all."""
    return mask is not None and bool((mask.any(1) != mask.all(1)).any())


def _mask(batch: Batch) -> Tensor:
    return torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask


def _like(values: Tensor, z: Tensor) -> Tensor:
    """Values `(B,)` of images, in a shape that broadcasts against `z`."""
    return values.view(-1, *[1] * (z.dim() - 1))


def _on_grid(model: SingleLatent, x: Tensor) -> Tensor:
    """Rounds values to the grid of levels, which may go on beyond [0, 1]: chains need all values that p(x | z) has."""
    return x if model.levels is None else (x * (model.levels - 1)).round() / (model.levels - 1)


def _within_levels(model: SingleLatent, x: Tensor) -> Tensor:
    """Rounds values to the levels of a pixel."""
    return x if model.levels is None else _on_grid(model, x).clamp(0, 1)
