"""How many codes of a codebook are in use, and a diagnosis of its collapse."""

from typing import Any

import torch
from typing_extensions import override

from vae_train.batch import Fetched
from vae_train.data.stream import evaluation_batches
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.subject import Noise, Subject
from vae_train.model.base import SingleLatent
from vae_train.model.codes.usage import CodeUsage, count_codes, usage_of
from vae_train.rng import Rng

FEW_USED_FRACTION, FEW_PERPLEXITY_FRACTION = 0.25, 0.1
"""Fractions of the codes that could be in use below which a codebook has collapsed."""


def has_codes(subject: Subject) -> str | None:
    """Requires a model whose z consists of codes."""
    is_coded = isinstance(subject.model, SingleLatent) and subject.model.codebook is not None
    return None if is_coded else "z does not consist of codes"


class CodesInUse(Metric):
    """The codes that occur in a split, and the perplexity of their frequencies: exp of the entropy, at most K.

    Every variable of model/posterior=categorical has categories of its own, which count as its codebook.

    Source: van den Oord et al., "Neural Discrete Representation Learning" (arXiv:1711.00937).
    """

    outputs = (
        MetricInfo("codes_used", "codes used", decimals=0),
        MetricInfo("code_perplexity", "perplexity of the codes", decimals=1),
    )
    requires = (has_codes,)
    order = 19

    @override
    def __call__(self, subject: Subject) -> Results:
        assert isinstance(subject.model, SingleLatent)
        noise, count = subject.noise("judge"), len(subject.images)
        usage, places = code_usage(subject.model, subject.images, noise=noise, batch_size=subject.batch_size)
        about: dict[str, Any] = {"of": usage.total, "warning": diagnosis(usage, count * places, subject.model)}
        perplexity = Estimate(usage.perplexity, None, count, {"of": usage.total // usage.num_codebooks})
        return {"codes_used": Estimate(usage.used, None, count, about), "code_perplexity": perplexity}


@torch.no_grad()
def code_usage(model: SingleLatent, images: Fetched, *, noise: Noise, batch_size: int = 512) -> tuple[CodeUsage, int]:
    """Counts the codes of images; of a categorical posterior those of the most likely categories.

    Args:
        model: a model with a codebook.
        images: the images.
        noise: noise of the binarisation.
        batch_size: images per pass.

    Returns:
        The usage, and the number of codes per image and codebook.
    """
    book = model.codebook
    assert book is not None
    total = torch.zeros(book.num_codebooks, book.num_codes, dtype=torch.float64)
    for _, batch in evaluation_batches(images, batch_size, model.device, noise.data):
        codes = model.encode(batch.x, batch.y).summary(Rng(0, "codes"))["codes"]
        total += count_codes(codes, book.num_codebooks, book.num_codes).cpu()
    return usage_of(total), torch.Size(book.code_shape).numel() // book.num_codebooks


def diagnosis(usage: CodeUsage, num_vectors: int, model: SingleLatent) -> str | None:
    """A warning about a collapsed codebook, with remedies; None for other codebooks.

    Args:
        usage: which codes occur.
        num_vectors: how many codes of each codebook were counted; no more can be in use.
        model: the model.
    """
    possible = min(usage.total // usage.num_codebooks, num_vectors)
    few_used = usage.used < FEW_USED_FRACTION * possible * usage.num_codebooks
    if not few_used and usage.perplexity >= FEW_PERPLEXITY_FRACTION * possible:
        return None
    advice = getattr(getattr(model, "posterior", None), "collapse_advice", "train longer, or use fewer categories")
    return (
        f"the codebook has collapsed: {usage.used:,} of {usage.total:,} codes are used, with a perplexity of "
        f"{usage.perplexity:,.1f}; {advice}"
    )
