"""How far an exported program is from the model that it was traced from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vae_train.batch import DataFacts
from vae_train.distributions.base import Distribution
from vae_train.evaluation.latents import posteriors
from vae_train.model.base import SingleLatent
from vae_train.rng import Rng
from vae_train.runs.export.graphs import Decoder, Graph, described
from vae_train.runs.export.ports import image_port, to_data, to_model
from vae_train.runs.export.programs import Call
from vae_train.runs.trained import TrainedModel

MAX_DIFFERENCE = 1e-4
"""Largest accepted difference."""

BATCH_SIZES = (1, 6)
"""A batch of one, and another size than that of the trace."""

MARGIN = 0.001
"""Distance of random values from the smallest and the largest value of the data, beyond which rounding could take
them."""

MISSING_FRACTION = 0.2


@torch.no_grad()
def difference(graph: Graph, call: Call, trained: TrainedModel) -> float:
    """The largest difference between the outputs of a program and those of the model.

    It is relative for values beyond 1. Values of array files are compared in the model's units, where columns are
    scaled. Inputs are samples of the model and random images, or the latents of both and random latents.

    Args:
        graph: the graph that was traced.
        call: runs the program.
        trained: the model, on the CPU.
    """
    worst = 0.0
    for size in BATCH_SIZES:
        images, label = _images(trained, size), _label(trained, size)
        if isinstance(graph, Decoder):
            inputs = _latents(trained, images, label)
            z = inputs[0] if isinstance(trained.model, SingleLatent) else inputs
            expected: Sequence[Tensor] = [trained.decode(z, label)]
        else:
            inputs, expected = [images], [t for q in _encoded(trained, images, label) for t in described(q).values()]
        outputs = call(inputs if label is None else [*inputs, label])
        for pair in zip(outputs, expected, strict=True):
            worst = max(worst, _largest(*(_comparable(values, graph) for values in pair)))
    return worst


def _largest(found: Tensor, expected: Tensor) -> float:
    error = (found - expected).abs() / expected.abs().clamp_min(1)
    equal = (found == expected) | (found.isnan() & expected.isnan())
    return float(torch.where(equal, 0.0, error).nan_to_num(torch.inf).max())


def _comparable(values: Tensor, graph: Graph) -> Tensor:
    return (to_model(values, graph.facts) if isinstance(graph, Decoder) else values).double()


def _encoded(trained: TrainedModel, images: Tensor, label: Tensor | None) -> Sequence[Distribution]:
    """The posteriors of all layers."""
    batch = trained.given(images, label).fetch(torch.arange(len(images)))  # without an rng nothing is random
    return posteriors(trained.model, batch)


def _latents(trained: TrainedModel, images: Tensor, label: Tensor | None) -> list[Tensor]:
    """Means of the posteriors of all layers, of which every second is replaced by standard normal noise."""
    means = [q.mean.float().clone() for q in _encoded(trained, images, label)]
    for z in means:
        z[1::2] = Rng(0, "parity latents").normal(z.shape, z.dtype)[1::2]
    return means


def _images(trained: TrainedModel, size: int) -> Tensor:
    """Images in the units of the data: every second is a sample of the model, the others are random.

    Half of the random ones only have extreme values, where a logit is sensitive.
    """
    facts, uniform = trained.facts, Rng(0, "parity images").uniform((2, size, *trained.facts.data_shape))
    pixels = trained.to_pixels(trained.sample(size)).float().clamp(0, 1)
    pixels[1::2] = uniform[0, 1::2]
    pixels[1::4] = pixels[1::4].round()
    images = _in_units(pixels, facts)
    if facts.missing:
        is_missing = to_data((uniform[1] < MISSING_FRACTION).float(), facts._replace(units=None), torch.float32)
        images[is_missing.bool()] = torch.nan
    return images


def _in_units(pixels: Tensor, facts: DataFacts) -> Tensor:
    """Pixels `(B, C, H, W)` in [0, 1] in units and layout of the data."""
    dtype = image_port(facts).dtype
    if facts.units is not None:
        return to_data(facts.units.from_unit(MARGIN + (1 - 2 * MARGIN) * pixels), facts, dtype)
    return to_data((pixels * 255).round() if dtype == torch.uint8 else pixels, facts, dtype)


def _label(trained: TrainedModel, size: int) -> Tensor | None:
    """Conditions that cycle through all classes, as the graphs take them; None for an unconditional model."""
    if trained.model.condition is None:
        return None
    y = trained.model.condition.cycle(size, trained.device)
    return y[:, 0] if y.shape[1] == 1 else y
