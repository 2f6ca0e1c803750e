"""Means of a learner's scalars over a split, of which every rank evaluates some batches."""

import torch
from torch import Tensor

from vae_train.batch import Images
from vae_train.data.stream import evaluation_batches
from vae_train.training.learner import Learner
from vae_train.training.ranks import Ranks
from vae_train.util.numbers import to_float64


def validate(learner: Learner, images: Images, batch_size: int, step: int) -> dict[str, float]:
    """Averages the learner's scalars over the images of a split, with the same bits on any number of ranks.

    Args:
        learner: evaluates the batches.
        images: the split.
        batch_size: images per pass; the last batch may be smaller.
        step: number of updates so far.
    """
    ranks, names, sums = learner.ranks, list[str](), list[Tensor]()
    every = slice(ranks.rank, None, ranks.size)
    for start, batch in evaluation_batches(images, batch_size, learner.device, batches=every):
        scalars = learner.evaluate(batch, start, step)
        names = list(scalars)
        sums.append(to_float64(torch.stack(list(scalars.values()))) * len(batch.x))
    if ranks.size > 1:
        names = ranks.broadcast(names)  # a rank may have no batch
        sums = _of_all(ranks, sums, torch.zeros(len(names), dtype=torch.float64, device=learner.device))
    total: Tensor = torch.zeros((), device=learner.device)
    for value in sums:
        total = total + value
    return dict(zip(names, (total / len(images)).tolist(), strict=True))


def _of_all(ranks: Ranks, sums: list[Tensor], zero: Tensor) -> list[Tensor]:
    """The sums of the batches of all ranks, in the order of the batches, which the ranks took in turn."""
    count = ranks.largest(len(sums))
    padded = torch.stack([*sums, *[zero] * (count - len(sums))])
    return list(ranks.gather(padded).transpose(0, 1).flatten(0, 1).unbind())
