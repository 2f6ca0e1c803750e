"""The mean image of every class, and its decoded mean latent."""

import torch
from typing_extensions import override

from vae_train.evaluation.encodings import MAX_ENCODED_IMAGES, encodings, has_real_latents, single_latent
from vae_train.evaluation.metrics.base import Metric, Results
from vae_train.evaluation.subject import Subject, Subset
from vae_train.model.base import SingleLatent
from vae_train.plotting.sheet import plot_rows

MAX_CLASSES = 20
CHUNK_IMAGES = 512


def few_classes(subject: Subject) -> str | None:
    """Requires one label with at most `MAX_CLASSES` classes."""
    factors = subject.data.facts.factors
    if len(factors) == 1 and factors[0].size <= MAX_CLASSES:
        return None
    return f"the data has no label with at most {MAX_CLASSES} classes"


def decodes_means(subject: Subject) -> str | None:
    """Requires a decoder without a condition, and latents in R^D."""
    model = subject.model
    assert isinstance(model, SingleLatent)
    if model.condition is not None:
        return "the model is conditional"
    return None if has_real_latents(model) else "means of latents are not valid latents"


class ClassMeans(Metric):
    """An image grid: the mean image of every class above the decoded mean of its latents."""

    outputs = ()
    requires = (single_latent, few_classes, decodes_means)
    order = 34

    @override
    @torch.no_grad()
    def __call__(self, subject: Subject) -> Results:
        e, model = encodings(subject), subject.model
        assert isinstance(model, SingleLatent)
        assert e.y is not None
        labels = e.y[:, 0]
        classes = labels.unique()
        member = (labels == classes[:, None]).float()  # (classes, N)
        member = member / member.sum(1, keepdim=True)
        latents = (member @ e.mean).unflatten(1, tuple(model.latent_shape))
        images, total = Subset(subject.images, MAX_ENCODED_IMAGES), torch.zeros(())
        for rows in torch.arange(len(images)).split(CHUNK_IMAGES):
            x = subject.to_pixels(images.fetch(rows.to(model.device)).x)
            total = total + torch.einsum("kn,nchw->kchw", member[:, rows.to(member.device)].cpu(), x)
        decoded = subject.to_pixels(model.decode(latents).mean)
        grid = plot_rows({"mean image": total, "decoded mean of z": decoded}, len(classes))
        subject.add_grid("class-means", grid)
        return {}
