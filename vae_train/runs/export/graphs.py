"""Encoder and decoder of a trained model as modules that map tensors in the units of the data, for tracing.

`TrainedModel` checks its input and converts units in NumPy, which cannot be traced. These modules compute the same
with tensor operations alone, without checks and without noise: dequantisation adds the mean of its noise.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Batch
from vae_train.distributions.base import Distribution, PointMass
from vae_train.distributions.categorical import OneHotCategorical
from vae_train.distributions.codes import QuantizedPoint
from vae_train.distributions.flows.base import Transformed
from vae_train.distributions.location_scale import LocationScale
from vae_train.distributions.mixture import Product
from vae_train.distributions.multivariate import LowRankNormal, MultivariateNormal
from vae_train.distributions.normal import Normal
from vae_train.distributions.sphere import VonMisesFisher
from vae_train.evaluation.latents import layer_names, posteriors
from vae_train.rng import Rng
from vae_train.runs.export.ports import Port, condition_ports, image_port, mean_port, to_data, to_model
from vae_train.runs.trained import TrainedModel

ABOUT = {
    "mean": "mean of q(z | x)",
    "log_variance": "log-variance of every latent",
    "covariance": "covariance of the latents",
    "codes": "index of every code; of categorical latents the most likely value",
    "direction": "mean direction on the unit sphere",
    "concentration": "concentration around the direction",
}
"""Output of an encoder -> its meaning."""

LAYERS = "Layers are counted from the topmost. Each q(z | x) is conditioned on the means of the layers above."


class Graph(nn.Module):
    """A module with named inputs and outputs.

    Args:
        trained: the model, of which the graph has a copy on the CPU.
    """

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    notes: tuple[str, ...] = ()
    """What a user has to know about the outputs."""

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.model = copy.deepcopy(trained.model).cpu().to(memory_format=torch.contiguous_format).eval()
        self.facts, self.transforms = trained.facts, trained.transforms
        self.conditions = condition_ports(self.model.condition)

    def drop(self, names: Iterable[str]) -> None:
        """Frees parameters and buffers that the graph does not use, by their names; an encoder has no decoder."""
        for name in names:
            module, _, attribute = name.rpartition(".")
            getattr(self.get_submodule(module), attribute).data = torch.empty(0)


class Encoder(Graph):
    """Maps images, and the condition of a conditional model, to the tensors that describe q(z | x).

    Args:
        trained: the model.
    """

    name = "encoder"

    @torch.no_grad()
    def __init__(self, trained: TrainedModel) -> None:
        super().__init__(trained)
        self.inputs = (image_port(self.facts), *self.conditions)
        layers = self.posteriors(*(port.zeros() for port in self.inputs))
        self.outputs = tuple(
            Port(layer_names(name, len(layers))[number], t.dtype, tuple(t.shape[1:]), ABOUT[name] + place)
            for number, (q, place) in enumerate(zip(layers, places(len(layers)), strict=True))
            for name, t in described(q).items()
        )
        about_layers = () if len(layers) == 1 else (LAYERS,)
        self.notes = (*dict.fromkeys(note for q in layers for note in _notes(q)), *about_layers)

    def posteriors(self, x: Tensor, y: Tensor | None = None) -> list[Distribution]:
        """q(z | x) of every layer, given the means above, for images in the units of the data."""
        levels, preprocessing = self.facts.levels, self.transforms.preprocessing
        x = to_model(x, self.facts)
        observed = ~x.isnan()
        if self.facts.missing:
            x = torch.where(observed, x, 0.0)
        if levels is not None:
            x = (x * (levels - 1)).round() / (levels - 1)
        if preprocessing is not None:
            x = preprocessing(Batch(x), levels, None).x
        return posteriors(self.model, Batch(torch.where(observed, x, 0.0) if self.facts.missing else x, _columns(y)))

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for q in self.posteriors(*inputs) for tensor in described(q).values())


class Decoder(Graph):
    """Maps latents, and the condition of a conditional model, to the mean of p(x | z) in the units of the data.

    Args:
        trained: the model.
    """

    name = "decoder"

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__(trained)
        shapes = self.model.latent_shapes
        names = zip(layer_names("z", len(shapes)), shapes, places(len(shapes)), strict=True)
        latents = (Port(name, torch.float32, tuple(shape), f"latents{place}") for name, shape, place in names)
        self.inputs = (*latents, *self.conditions)
        self.outputs = (mean_port(self.facts),)

    def likelihood(self, *inputs: Tensor) -> Distribution:
        """p(x | z) of the model's images, for z of every layer, and the condition of a conditional model."""
        layers = len(self.model.latent_shapes)
        return self.model.decode_latents(inputs[:layers], _columns(*inputs[layers:]))

    @override
    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        x = self.transforms.undo(self.likelihood(*inputs).mean)
        x = x if self.facts.levels is None else x.clamp(0, 1)
        return (to_data(x, self.facts, self.outputs[0].dtype),)


def places(layers: int) -> list[str]:
    """Which layer a port belongs to, for its meaning; empty for a single one."""
    if layers == 1:
        return [""]
    return [f" of layer {number} of {layers}{', topmost' * (number == 1)}" for number in range(1, layers + 1)]


def _columns(y: Tensor | None = None) -> Tensor | None:
    """The condition with shape `(B, F)`, as models take it."""
    return y[:, None] if y is not None and y.dim() == 1 else y


def described(q: Distribution) -> Mapping[str, Tensor]:
    """The tensors that describe a posterior without a sample of it, by name; all families have at least "mean"."""
    tensors, log_variance = {"mean": q.mean}, _log_variance(q)
    if log_variance is not None:
        tensors["log_variance"] = log_variance
    if isinstance(q, MultivariateNormal):
        tensors["covariance"] = q.factor @ q.factor.mT
    if isinstance(q, LowRankNormal):
        own = torch.diag_embed(torch.exp(2 * q.log_scale).flatten(1))
        tensors["covariance"] = own + q.directions @ q.directions.mT
    if isinstance(
        q, OneHotCategorical | QuantizedPoint | VonMisesFisher | Product
    ):  # summaries of others may draw samples
        summary = q.summary(Rng(0, "summary"))
        tensors |= {name: tensor for name, tensor in summary.items() if name not in ("mean", "std")}
    return tensors


def _log_variance(q: Distribution) -> Tensor | None:
    """The log-variance of every real latent with a density; None for other latents, and for flows, which have to draw.

    For a product of real and categorical latents it is that of the real ones.
    """
    if isinstance(q, Normal):
        return (2 * q.log_scale).expand(q.mean.shape)
    if isinstance(q, Product):
        parts = [part for part in map(_log_variance, q.parts) if part is not None]
        return torch.cat(parts, -1) if parts else None
    return q.variance.log() if isinstance(q, LocationScale | MultivariateNormal | LowRankNormal) else None


def _notes(q: Distribution) -> Iterator[str]:
    """What a posterior has instead of a log-variance, a sentence each."""
    if isinstance(q, Transformed):
        yield "`mean` is the mean of the base distribution after the flow; a flow has no log-variance in closed form."
    elif isinstance(q, QuantizedPoint):
        yield "`codes` has the indices of the codes, and `mean` their vectors, which the decoder takes."
    elif isinstance(q, PointMass):
        yield "The posterior is a point, so `mean` is the latent itself and there is no variance."
    elif isinstance(q, VonMisesFisher):
        yield "The latents are on the unit sphere: decode `direction`. `mean` is inside of the sphere."
    elif isinstance(q, OneHotCategorical):
        yield "`mean` has the probabilities of all categories; latents are one-hot."
    elif isinstance(q, Product):
        yield "`log_variance` is that of the real latents, which come first; the other latents are one-hot."
    elif isinstance(q, MultivariateNormal | LowRankNormal):
        yield "The latents are dependent: `log_variance` is the logarithm of the diagonal of `covariance`."
