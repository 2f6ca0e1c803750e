"""A trained model in the units of its data, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vae_train.batch import DataFacts
from vae_train.data.dataset import Transforms
from vae_train.data.storage.layouts import from_images
from vae_train.evaluation.bounds import has_equal_samples
from vae_train.evaluation.inpainting import STEPS, InpaintingChoice, InpaintingMethod, inpaint
from vae_train.evaluation.interpolation import NO_PATH, Interpolation, interpolate
from vae_train.evaluation.latents import LatentLayers, Latents, latents
from vae_train.evaluation.metrics.nll import estimate_log_likelihood
from vae_train.evaluation.scores import image_scores
from vae_train.evaluation.subject import Noise
from vae_train.evaluation.traversals import LatentRange, traverse
from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.model.prior.fitted.base import CodePrior
from vae_train.plotting.grid import plot_grid
from vae_train.plotting.png import to_pil
from vae_train.rng import Rng
from vae_train.runs.build import Builder, build_transforms, open_model, run_facts
from vae_train.runs.fitted_priors import replace_prior
from vae_train.runs.given import GivenImages, Label, as_images, condition, given_latents
from vae_train.runs.incomplete import IncompleteImages
from vae_train.runs.run import Run

CHUNK = 256
"""Images or latents per pass."""


class TrainedModel:
    """A model in evaluation mode that takes and returns data in its original units.

    Images are tensors or arrays `(B, C, H, W)` or `(B, H, W, C)` in the units of the data. For pixels these are numbers
    in [0, 1], or uint8 from 0 to 255; they are rounded to the levels that the model was trained on, so that a model of
    binary images sees 0 and 1. For continuous images, vectors and signals these are the numbers of the file,
    returned as float64 on the CPU. Images of an array file may be given, and are returned, in its layout: vectors as
    `(B, D)`. Preprocessing of the run (dequantisation, logit, normalisation) is applied and undone here, and
    `log_prob` contains all Jacobians. Latents of a model with several layers are lists with an entry per layer, the
    topmost first. A conditional model needs `label`, others ignore it: a class by name or number,
    one for all images or one for each, or factors of variation `(B, F)`. Models trained with `data.missing=mask` accept
    NaN as missing values: `log_prob` is then that of the observed values, and reconstructions impute the missing ones.

    No method computes gradients. `model` is the `torch.nn.Module` itself, which takes preprocessed images.

    Args:
        model: the module.
        facts: facts about the stored images.
        transforms: transforms between stored images and the model.

    Example:
        >>> import torch, vae_train
        >>> run = vae_train.train("data=digits", latent_dim=2, epochs=1)
        >>> model = vae_train.load(run.folder)
        >>> x = torch.rand(5, 1, 8, 8)
        >>> z = model.encode(x)
        >>> z.mean.shape, z.std.shape, z.sample(seed=1).shape
        (torch.Size([5, 2]), torch.Size([5, 2]), torch.Size([5, 2]))
        >>> model.decode(z.mean).shape, model.reconstruct(x).shape, model.sample(3, seed=1).shape
        (torch.Size([5, 1, 8, 8]), torch.Size([5, 1, 8, 8]), torch.Size([3, 1, 8, 8]))
        >>> model.log_prob(x, k=10).shape, sorted(model.score(x))
        (torch.Size([5]), ['bits_per_dim', 'distortion', 'elbo', 'rate'])
        >>> model.interpolate(x[:1], x[1:2], 8).shape, model.traverse(x[:1]).shape
        (torch.Size([8, 1, 8, 8]), torch.Size([2, 9, 1, 8, 8]))
        >>> upper_half = torch.arange(8)[:, None].expand(8, 8) < 4
        >>> model.inpaint(x, upper_half, completions=3, steps=10).shape
        torch.Size([3, 5, 1, 8, 8])
    """

    def __init__(self, model: LatentVariableModel, facts: DataFacts, transforms: Transforms) -> None:
        self.model, self.facts, self.transforms = model.eval(), facts, transforms._replace(units=facts.units)

    @classmethod
    def open(
        cls, run: Run, checkpoint: str, device: torch.device, builder: Builder, prior: str | None = None
    ) -> TrainedModel:
        """Opens the trained model of a run.

        Args:
            run: the run.
            checkpoint: "best" by what `trainer.monitor` says, or "last".
            device: where the model is placed.
            builder: locates classes.
            prior: name of a prior fitted by `vae fit-prior`, which replaces the model's own; None for its own.

        Raises:
            UsageError, RunError: see `vae_train.runs.build.read_weights` and `replace_prior`.
        """
        model, transforms = open_model(run, device, builder, checkpoint), build_transforms(run.config, builder)
        if prior is not None:
            replace_prior(model, run, prior, builder)
        return cls(model, run_facts(run, builder), transforms.active())

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    def to(self, device: torch.device | str) -> TrainedModel:
        """Moves the model to a device and returns it."""
        self.model.to(device)
        return self

    def encode(self, x: Any, label: Label = None) -> Latents | LatentLayers:
        """The posteriors q(z | x), with `mean` and `std` `(B, *latent_shape)` and a method `sample`.

        Args:
            x: images.
            label: the condition of a conditional model.

        Returns:
            For a model with several layers a list of their posteriors, whose `mean`, `std` and `sample` are lists.
        """
        images, stream = self.given(x, label), _noise(0).data
        if isinstance(self.model, SingleLatent):
            return latents(self.model, images, stream=stream, batch_size=CHUNK)
        return LatentLayers(self.model, images, stream=stream, batch_size=CHUNK)

    def decode(self, z: Any, label: Label = None) -> Tensor:
        """The means of p(x | z), images with shape `(N, C, H, W)`.

        Args:
            z: latents with shape `(N, *latent_shape)`; a tensor or an array. For a model whose z consists of codes also
                their indices, integers `(N, *code_shape)`, as in `arrays["codes"]` of its latents. For a model with
                several layers, a list with one for each, the topmost first.
            label: the condition of a conditional model.

        Raises:
            ValueError: the latents have another shape, or are of another number of layers.
        """
        return self._decoded(given_latents(z, self.model), label)

    def reconstruct(self, x: Any, label: Label = None) -> Tensor:
        """The images that the means of q(z | x) decode to, with shape `(B, C, H, W)`.

        Args:
            x: images.
            label: the condition of a conditional model.
        """
        return self.decode(self.encode(x, label).mean, label)

    @torch.no_grad()
    def sample(
        self,
        num: int,
        temperature: float | Sequence[float] = 1.0,
        label: Label = None,
        seed: int = 0,
        use_mean: bool = True,
        top_k: int | None = None,
    ) -> Tensor:
        """Images from the prior, with shape `(num, C, H, W)`, on the CPU.

        Args:
            num: number of images.
            temperature: factor on the prior's standard deviation; or one per layer, the topmost first. A prior over
                codes divides its logits by it.
            label: the condition of a conditional model; None cycles through the classes.
            seed: seed of z and the pixels.
            use_mean: return the means of p(x | z) instead of samples from it.
            top_k: samples only have codes that are among the k most likely ones given those before; None for all codes.

        Raises:
            ValueError: `top_k` without a fitted prior over codes.
        """
        prior = getattr(self.model, "prior", None)
        if isinstance(prior, CodePrior):
            prior.top_k = top_k
        elif top_k is not None:
            raise ValueError("top_k needs a fitted prior over codes, such as load(run, prior='autoregressive')")
        y = None if label is None else self.condition(label, num)
        images = []
        for number, rows in enumerate(torch.arange(num, device=self.device).split(CHUNK)):
            rng = Rng(seed, "samples", number, device=self.device)
            px = self.model.sample(len(rows), rng, temperature, None if y is None else y[rows])
            images.append(self.to_data(px.mean if use_mean else px.sample(rng, 1)[0]).cpu())
        return torch.cat(images)

    @torch.no_grad()
    def log_prob(self, x: Any, label: Label = None, k: int = 100, seed: int = 0) -> Tensor:
        """A lower bound of log p(x) in nats, float64 `(B,)`; it is tighter for more samples (Burda et al., 2016).

        For pixels with levels it is a log-probability if the likelihood is discrete (or dequantises); otherwise it is a
        log-density in the units of the data.

        Args:
            x: images.
            label: the condition of a conditional model.
            k: importance samples of z per image.
            seed: seed of z.
        """
        images, noise = self.given(x, label), _noise(seed)
        log_p = estimate_log_likelihood(self.model, images, k, noise=noise).log_p[-1]
        first = torch.zeros(1, dtype=torch.int64, device=self.device)
        rng = Rng(0, "bins", device=self.device)
        trace = self.model(images.fetch(first, rng), rng)
        bins = trace.px.log_bins if trace.log_bins is None else trace.log_bins
        return log_p - images.num_observed.cpu() * (bins or 0.0)

    def score(self, x: Any, label: Label = None, k: int = 0, seed: int = 0) -> dict[str, Tensor]:
        """How likely every image is: "elbo", "rate", "distortion" in nats and "bits_per_dim", each `(B,)`.

        Args:
            x: images.
            label: the condition of a conditional model.
            k: importance samples of z per image, for "nll" and "nll_bits_per_dim"; 0 for none.
            seed: seed of z.

        Returns:
            The scores that the model has: bits per dimension need a likelihood with probabilities of levels, and a
            point-mass posterior only has a distortion.
        """
        scores = image_scores(self.model, self.given(x, label), noise=_noise(seed), k=k)
        scores.pop("dims", None)
        return scores

    def interpolate(
        self, a: Any, b: Any, frames: int = 8, label: Label = None, how: Interpolation = "linear"
    ) -> Tensor:
        """The images on a path between the latents of two images, both included, with shape `(frames, C, H, W)`.

        All layers of latents follow their paths at the same time.

        Args:
            a: the first image, with shape `(1, C, H, W)`.
            b: the last image, likewise.
            frames: length of the path.
            label: the condition of a conditional model.
            how: "linear" or "spherical".

        Raises:
            ValueError: z consists of codes.
        """
        if has_equal_samples(self.model):
            raise ValueError(NO_PATH)
        first, last = (given_latents(self.encode(end, label).mean, self.model) for end in (a, b))
        paths = [interpolate(torch.cat(ends), frames, how) for ends in zip(first, last, strict=True)]
        return self._decoded(paths, label)

    def traverse(self, x: Any, label: Label = None, dimensions: Sequence[int] | None = None) -> Tensor:
        """Decodes an image with one latent at a time set to values from -2.5 to 2.5.

        Args:
            x: one image, with shape `(1, C, H, W)`.
            label: the condition of a conditional model.
            dimensions: indices of the latents, with z flattened; None for all.

        Returns:
            `(len(dimensions), 9, C, H, W)`.

        Raises:
            ValueError: z consists of codes.
        """
        if has_equal_samples(self.model):
            raise ValueError("z consists of codes, whose numbers cannot be set one by one")
        z = latents(self.single_latent, self.given(x, label), stream=_noise(0).data, batch_size=CHUNK).mean[0]
        chosen = range(z.numel()) if dimensions is None else dimensions
        standard = LatentRange(z.new_zeros(z.numel()), z.new_ones(z.numel()))
        rows = traverse(self.single_latent, z, chosen, standard, y=self.condition(label, 1))
        return torch.stack([self.to_data(row) for row in rows])

    def inpaint(
        self,
        x: Any,
        mask: Any = None,
        label: Label = None,
        completions: int = 1,
        steps: int = STEPS,
        seed: int = 0,
        method: InpaintingChoice = "auto",
    ) -> Tensor:
        """Draws the hidden values of images from p(hidden | seen), see `vae_train.evaluation.inpainting.inpaint`.

        Args:
            x: images. NaN is hidden; what images have at other hidden values does not matter.
            mask: bool, True for seen values, `(B or 1, C or 1, H, W)` or `(H, W)`; for images of an array file also in
                their layout. None if only NaN is hidden.
            label: the condition of a conditional model.
            completions: number of independent completions of every image.
            steps: length of the chain, or number of importance samples; more steps give better draws.
            seed: seed of all noise.
            method: "gibbs" for a Markov chain, "importance" for importance resampling of z, see `inpainting_method`.

        Returns:
            `(completions, B, C, H, W)` on the CPU, with the seen values exactly as they were given.
        """
        images = IncompleteImages(x, mask, label, self.model, self.facts, self.transforms)
        options: dict[str, Any] = {"completions": completions, "steps": steps, "stream": _noise(seed).data}
        parts = inpaint(self.single_latent, images, method=self.inpainting_method(method), seed=seed, **options)
        drawn = torch.cat([part.x.cpu() for part in parts], 1)
        return images.restore(self.to_data(drawn, dequantized=False))

    def inpainting_method(self, method: InpaintingChoice = "auto") -> InpaintingMethod:
        """What "auto" is: "importance" if the encoder has seen hidden or missing values in training, else "gibbs"."""
        if method != "auto":
            return method
        corruption = self.transforms.corruption
        has_seen_masks = self.facts.missing or (corruption is not None and corruption.mask > 0)
        return "importance" if has_seen_masks else "gibbs"

    def to_pixels(self, images: Tensor) -> Tensor:
        """Maps images in the units of the data to `(N, C, H, W)` in [0, 1], for plots."""
        pixels, units = as_images(images, self.facts), self.facts.units
        return pixels if units is None else units.to_unit(torch.from_numpy(units.to_model(pixels.cpu().numpy())))

    def show(self, images: Tensor, columns: int = 8) -> Any:
        """An image grid as a PIL image, which notebooks display; signals and vectors become line plots.

        Args:
            images: `(N, C, H, W)` in the units of the data.
            columns: images per row.
        """
        return to_pil(plot_grid(self.to_pixels(images), columns))

    @property
    def input_transforms(self) -> Transforms:
        """The transforms of images that the model is applied to, which are neither augmented nor corrupted."""
        return self.transforms._replace(augmentation=None, corruption=None, missing=self.facts.missing)

    def to_units(self, x: Tensor, dequantized: bool = True) -> Tensor:
        """Maps images of the model to `(N, C, H, W)` in the units of the data; leading dimensions are merged.

        Args:
            x: images, whose levels are clipped.
            dequantized: False maps dequantised pixels back to their levels.
        """
        levels, units, preprocessing = self.facts.levels, self.facts.units, self.transforms.preprocessing
        x = self.transforms.undo(x.flatten(0, -4))
        x = x if levels is None else x.clamp(0, 1)
        if levels is not None and not dequantized and preprocessing is not None and preprocessing.dequantize:
            x = (x * levels).floor().clamp(max=levels - 1) / (levels - 1)
        return x if units is None else units.to_file(x)

    def to_data(self, x: Tensor, dequantized: bool = True) -> Tensor:
        """Maps images of the model to units and layout of the data, see `to_units`."""
        x, layout = self.to_units(x, dequantized), self.facts.layout
        return x if layout is None else torch.from_numpy(from_images(x.numpy(force=True), layout)).to(x.device)

    def given(self, x: Any, label: Label = None) -> GivenImages:
        """Images in the units of the data, as the model takes them.

        Raises:
            ValueError: shape, type, range or label do not fit the model.
        """
        return GivenImages(x, label, self.model, self.facts, self.transforms)

    def condition(self, label: Label, count: int) -> Tensor | None:
        """The condition of `count` images, see `vae_train.runs.given.condition`."""
        return condition(label, count, self.model.condition, self.facts, self.device)

    @property
    def single_latent(self) -> SingleLatent:
        """The model, if it has a single latent to encode to and decode from.

        Raises:
            TypeError: it has several.
        """
        if not isinstance(self.model, SingleLatent):
            raise TypeError(
                f"this needs a single latent; the model has {len(self.model.latent_shapes)} layers of latents"
            )
        return self.model

    @torch.no_grad()
    def _decoded(self, layers: Sequence[Tensor], label: Label) -> Tensor:
        """The means of p(x | z) for z `(N, *shape)` of every layer, the topmost first."""
        y, images = self.condition(label, len(layers[0])), []
        for rows in torch.arange(len(layers[0]), device=self.device).split(CHUNK):
            part = [layer[rows] for layer in layers]
            images.append(self.to_data(self.model.decode_latents(part, None if y is None else y[rows]).mean))
        return torch.cat(images)


def _noise(seed: int) -> Noise:
    """The noise of images that a caller gives."""
    return Noise(seed, "judge", "given")
