"""A run whose model and data are opened when a plot first needs them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vae_train.batch import SPLITS, Batch, DataFacts, Factor, Images, Shape, Split
from vae_train.data.dataset import Dataset
from vae_train.data.session import DataSession
from vae_train.data.stream import evaluation_batch
from vae_train.evaluation.latents import posteriors
from vae_train.evaluation.subject import Noise
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.model.prior.standard_normal import StandardNormal
from vae_train.model.traits import Support
from vae_train.plotting.grid import grey_out
from vae_train.runs.build import Builder, build_model, load_data, run_facts
from vae_train.runs.compatibility import stem
from vae_train.runs.labels import class_number, condition_errors
from vae_train.runs.run import Run
from vae_train.runs.schema import yaml_text
from vae_train.runs.show.options import Options
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.text import counted

CHUNK = 256
"""Latents per pass."""

MAX_NAME_LENGTH = 24
"""Characters of the name of a class in a plot."""

SUPPORT_NAMES: dict[Support, str] = {
    "real": "in R^D",
    "sphere": "on a sphere",
    "categorical": "that are categories",
    "joint": "of which some are categories",
    "codes": "that are codes",
}


class OpenedRun:
    """A run, and what plots need of it.

    Args:
        run: the run.
        options: settings of plots.
        builder: locates classes.
        session: reads data.
        device: where the model is placed.
    """

    def __init__(
        self, run: Run, options: Options, builder: Builder, session: DataSession, device: torch.device
    ) -> None:
        self.run, self.options, self.builder, self.session, self.device = run, options, builder, session, device
        self.notes = list[str]()
        """What an ambiguous label was taken for, known after `condition`."""

    @cached_property
    def facts(self) -> DataFacts:
        """Facts about the data; the data itself may be gone."""
        return run_facts(self.run, self.builder)

    @property
    def latent_shape(self) -> Shape:
        """Shape of z; empty for a model without a single latent."""
        model = self.builder.locate(str(self.run.config["model"]["_target_"]))
        return tuple(self.run.config.at("model.latent_shape", ())) if issubclass(model, SingleLatent) else ()

    @property
    def support(self) -> Support | None:
        """Where z lives; None for a model without a single latent."""
        target = self.run.config.at("model.posterior._target_")
        if not self.latent_shape or target is None:
            return None
        return getattr(self.builder.locate(target), "support", "real")

    @cached_property
    def layer_shapes(self) -> tuple[Shape, ...]:
        """The shape of z of every layer, the topmost first, without opening the weights."""
        with torch.device("meta") as meta:
            return build_model(self.run.config, self.facts, meta, self.builder).latent_shapes

    def lacks_support(self, *supports: Support) -> str | None:
        """Why a plot is not possible that needs a single latent with one of these supports; None if there is one."""
        if self.support in supports:
            return None
        needed = " or ".join(SUPPORT_NAMES[each] for each in supports)
        layers = len(self.layer_shapes)
        has = f"{layers} layers of latents" if self.support is None else f"latents {SUPPORT_NAMES[self.support]}"
        return f"needs latents {needed}; this model has {has}"

    @property
    def temperature_errors(self) -> list[ErrorDetail]:
        """Reports a temperature without effect, and temperatures of another number of layers."""
        value, prior = self.options.temperature, self._own_prior
        where = f"temperature={yaml_text(value)}"
        if value != 1.0 and self.options.prior is None and not getattr(prior, "has_temperature", True):
            advice = f"; fit a prior with {self._fit_command}" if self.support == "codes" else ""
            return [ErrorDetail(where, f"has no effect with model/prior={stem(prior)}{advice}")]
        if not isinstance(value, list | tuple) or len(value) == len(self.layer_shapes):
            return []
        values, layers = counted(len(value), "value"), counted(len(self.layer_shapes), "layer")
        message = f"has {values}, but this model has {layers} of latents; give a number, or a list "
        return [ErrorDetail(where, f"{message}with one for each, the topmost first")]

    def top_k_errors(self) -> list[ErrorDetail]:
        """Reports `top_k` without a fitted prior over codes."""
        if self.options.top_k is None:
            return []
        problem = self.lacks_support("codes", "categorical")
        if problem is None and self.options.prior is None:
            problem = f"needs a fitted prior over codes: {self._fit_command}"
        return [ErrorDetail(f"top_k={self.options.top_k}", problem)] if problem else []

    @property
    def has_normal_prior(self) -> bool:
        """Whether encodings are spread like a standard normal prior, up to training."""
        posterior = self.run.config.at("model.posterior._target_")
        if posterior is None or self._own_prior is not StandardNormal:
            return False
        return bool(getattr(self.builder.locate(posterior), "has_density", False))

    @property
    def conditions(self) -> str | None:
        """What the model is conditional on: "label", "factors", or nothing."""
        return self.run.config.at("model.condition")

    @cached_property
    def condition(self) -> list[int] | None:
        """The label or the factors that the options name, as numbers; None if they name none.

        Raises:
            UsageError: the model or its data does not have them.
        """
        options = self.options
        kind, value = ("factors", options.factors) if options.label is None else ("label", options.label)
        if value is None:
            return None
        where = f"{kind}={yaml_text(value)}"
        if errors := condition_errors(self.conditions, **{kind: value}):
            raise UsageError(errors)
        factors: Sequence[Factor] = self.facts.factors
        values, factors = (value, factors) if isinstance(value, list | tuple) else ([value], factors[:1])
        if len(values) != len(factors):
            message = f"has {len(values)} values, but the data has {len(factors)} factors"
            raise UsageError([ErrorDetail(where, message)])
        try:
            pairs = zip(values, factors, strict=True)
            return [class_number(each, factor, self.notes.append) for each, factor in pairs]
        except ValueError as error:
            raise UsageError([ErrorDetail(where, str(error))]) from error

    @property
    def num_classes(self) -> int:
        """Number of classes, or of values of the first factor; 0 for data without labels."""
        return self.facts.factors[0].size if self.facts.factors else 0

    def class_name(self, number: int) -> str:
        """The name of a class on one line, or its number."""
        values = self.facts.factors[0].values
        name = str(number) if values is None else " ".join(str(values[number]).split())
        return name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…"

    @cached_property
    def trained(self) -> TrainedModel:
        """The trained model, with the fitted prior that the options name."""
        return self._open(self.options.prior)

    @cached_property
    def model(self) -> LatentVariableModel:
        """The module of the trained model, with its own prior."""
        return (self.trained if self.options.prior is None else self._open(None)).model

    @property
    def single_latent(self) -> SingleLatent:
        """`model`, for plots that need a single latent."""
        assert isinstance(self.model, SingleLatent)
        return self.model

    @cached_property
    def data(self) -> Dataset:
        """The data that the model was trained on."""
        return load_data(self.run.config, self.session, self.device, self.builder)

    @cached_property
    def split(self) -> Split:
        """The split that images are taken from."""
        last: Split = next(name for name in reversed(SPLITS) if name in self.data.splits)
        return self.options.split or last

    @property
    def images(self) -> Images:
        """The images of the split."""
        images = self.data.split(self.split)
        assert images is not None
        return images

    @cached_property
    def candidates(self) -> Tensor:
        """Indices of the images of the split, of the class or the factors that the options name."""
        index = torch.arange(len(self.images))
        if self.condition is None:
            return index
        labels = self.data.labels(self.split)
        assert labels is not None
        wanted = torch.tensor(self.condition)
        return index[(labels.cpu()[:, : len(wanted)] == wanted).all(1)]

    def image_errors(self, least: int, most: int | None = None) -> list[ErrorDetail]:
        """Reports numbers of images that do not exist, or a wrong number of images.

        Args:
            least: the number of images that a plot needs.
            most: the number of images that a user may name; None for any number.
        """
        numbers, split = self.options.images, f"the {self.split} split"
        if numbers is None:
            found = len(self.candidates)
            which = "" if self.condition is None else f" of label={yaml_text(self.options.label)}"
            needed = f"needs {counted(least, 'image')}{which}; {split} has {found}, and split= chooses another"
            return [ErrorDetail(f"split={self.split}", needed)] if found < least else []
        where, size = f"images={yaml_text(numbers)}", len(self.images)
        if wrong := [number for number in numbers if number >= size]:
            return [ErrorDetail(where, f"{split} has {size:,} images, numbered from 0; it has no {wrong[0]}")]
        if len(numbers) < least or len(numbers) > (most or len(numbers)):
            wanted = f"{least}" if most == least else f"at least {least}"
            return [ErrorDetail(where, f"names {counted(len(numbers), 'image')}; name {wanted}")]
        return []

    @torch.no_grad()
    def encoded(self, index: Tensor) -> list[Tensor]:
        """Means of q(z | x) of images of the split, `(B, *shape)` per layer, with the bits that `vae eval` sees."""
        stream = Noise(0, "judge", self.split).data
        batches = (evaluation_batch(self.images, number, 1, self.device, stream) for number in index.tolist())
        layers = [torch.cat(means) for means in zip(*map(self._means, batches), strict=True)]
        return [F.normalize(z, dim=-1) for z in layers] if self.support == "sphere" else layers

    @torch.no_grad()
    def decoded(self, layers: Sequence[Tensor], y: Tensor | None) -> Tensor:
        """Means of p(x | z) in [0, 1] on the CPU, for z `(N, *shape)` of every layer and one condition `(1, F)`."""
        images = []
        for part in zip(*(z.split(CHUNK) for z in layers), strict=True):
            images.append(self.model.decode_latents(part, None if y is None else y.expand(len(part[0]), -1)).mean)
        return torch.cat([self.pixels(each) for each in images])

    def labels(self, index: Tensor) -> Tensor | None:
        """Labels or factors of images of the split, `(B, F)`; None for models that are not conditional."""
        labels = None if self.conditions is None else self.data.labels(self.split)
        return None if labels is None else labels.to(self.device)[index.to(self.device)]

    def originals(self, index: Tensor) -> Tensor:
        """Images of the split, `(B, C, H, W)` in [0, 1], without random bits or noise; missing values are grey."""
        batch = self.images.fetch(index.to(self.device))
        return grey_out(self.pixels(batch.x), batch.mask)

    def pixels(self, x: Tensor) -> Tensor:
        """Maps images of the model to [0, 1] on the CPU; continuous values may exceed this range."""
        return self.data.to_shown(x)

    def samples(self, num: int, temperature: float | Sequence[float] | None = None) -> Tensor:
        """Samples from the prior in the units of the data, as the options say.

        Args:
            num: number of samples.
            temperature: replaces that of the options.
        """
        temperature = self.options.temperature if temperature is None else temperature
        # Numbers in a tensor are not names.
        label = None if self.condition is None else torch.tensor([self.condition] * num)
        options = self.options
        return self.trained.sample(num, temperature, label, options.seed, options.use_mean, top_k=options.top_k)

    @property
    def _own_prior(self) -> Any:
        """The class of the model's own prior; None for a model without one."""
        target = self.run.config.at("model.prior._target_")
        return None if target is None else self.builder.locate(target)

    @property
    def _fit_command(self) -> str:
        """How to fit and use a prior over codes."""
        return f"vae fit-prior run={self.run.as_typed} prior=autoregressive, then add prior=autoregressive"

    def _means(self, batch: Batch) -> list[Tensor]:
        """The means of every layer, given the means above."""
        return [q.mean for q in posteriors(self.model, batch._replace(encoder_input=None))]

    def _open(self, prior: str | None) -> TrainedModel:
        return TrainedModel.open(self.run, self.options.checkpoint, self.device, self.builder, prior)
