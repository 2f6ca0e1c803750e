"""Completions of partly hidden images."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.inpainting import Completions, InpaintingChoice, InpaintingMethod, check_inpainting, inpaint
from vae_train.runs.apply.masks import masked_images
from vae_train.runs.apply.results import SHEET, ImageResults, Sheet
from vae_train.runs.apply.task import Application, Task
from vae_train.util.errors import UsageError
from vae_train.util.progress import progress_bar
from vae_train.util.ranges import PositiveInt, Range

MAX_SHOWN = 8
"""Number of completions on the sheet."""

MIN_EFFECTIVE_SAMPLES = 10
"""Effective number of importance samples below which more are recommended."""

STD_CONTRAST = 2.0
"""Factor on standard deviations in images; those of numbers from 0 to 1 are about 0.5 at most."""


class Inpaint(Task):
    """Draws the hidden pixels of images from p(hidden | seen); seen pixels are kept.

    Several completions also give the standard deviation of every pixel. See `vae_train.evaluation.inpainting.inpaint`.

    Args:
        mask: what is hidden, see `masked_images`.
        completions: number of independent completions of every image.
        steps: length of a chain, or number of importance samples.
        method: "gibbs" for a Markov chain, "importance" for importance resampling; "auto" for the latter if the model
            was trained with hidden or missing values.
    """

    needs_single_latent = True

    def __init__(
        self,
        mask: str | None,
        completions: Annotated[int, Range(1, 256)],
        steps: PositiveInt,
        method: InpaintingChoice,
    ) -> None:
        self.mask, self.completions, self.steps, self.method = mask, completions, steps, method

    @override
    def __call__(self, application: Application) -> list[str]:
        model, count, noise = application.model, len(application.inputs), application.inputs.noise
        try:
            check_inpainting(model.single_latent)
        except ValueError as error:
            raise UsageError(str(error)) from error
        images, method = masked_images(self.mask, application), model.inpainting_method(self.method)
        results, sheet, efficiency = _Results(application, self.completions), Sheet(count), list[Tensor]()
        total = count * self.completions * self.steps
        with progress_bar(total, "Inpainting", short=True) as bar:
            for part in inpaint(
                model.single_latent,
                images,
                method=method,
                completions=self.completions,
                steps=self.steps,
                seed=noise.seed,
                stream=noise.data,
                batch_size=application.batch_size,
                progress=bar.update,
            ):
                sheet.add(part.start, results.add(part))
                efficiency.append(part.efficiency.cpu())
        results.close()
        sheet.write(application.folder / SHEET)
        return [*results.notes, self._quality(method, torch.cat(efficiency, 1))]

    def _quality(self, method: InpaintingMethod, efficiency: Tensor) -> str:
        """A sentence about the draws."""
        if method == "importance":
            samples = float(efficiency.mean()) * self.steps
            advice = "; more steps or method=gibbs would help" if samples < MIN_EFFECTIVE_SAMPLES else ""
            return f"z by importance resampling: {samples:.1f} effective samples of {self.steps:,} on average{advice}"
        stuck = int((efficiency == 0).sum())
        advice = f"; {stuck:,} of {efficiency.numel():,} chains accepted none, more steps would help" if stuck else ""
        return f"z by Metropolis within Gibbs: {efficiency.mean():.1%} of the proposals were accepted{advice}"


class _Results:
    """Completions as images or arrays, with their standard deviation if there are several."""

    def __init__(self, application: Application, completions: int) -> None:
        self.application = application
        names = [f"completed-{1 + number:0{len(str(completions))}d}" for number in range(completions)]
        self.files = [ImageResults(application, name) for name in (names if completions > 1 else ["completed"])]
        self.std, self.notes = None, list[str]()
        if completions > 1:
            form = application.inputs.form
            if form is not None:
                kind = form.dtype if form.dtype.kind == "f" else np.dtype(np.float32)
                form = form._replace(dtype=kind, low=0.0, high=form.high - form.low)
            self.std = ImageResults(application, "std", form)
            self.notes += ["std: white is a standard deviation of 0.5 or more"] if form is None else []

    def add(self, part: Completions) -> dict[str, Tensor]:
        """Writes the completions of some images.

        Returns:
            Caption -> images `(B, C, H, W)` in [0, 1] for the sheet.
        """
        application = self.application
        batch = application.fetch(part.start, part.x.shape[1])
        images = application.model.to_units(part.x, dequantized=False).unflatten(0, part.x.shape[:2])
        shown = {"original": application.pixels(batch.x, batch.mask), "input": application.pixels(batch.x, part.mask)}
        for file, completed in zip(self.files, images, strict=True):
            file.add(part.start, completed)
        pixels = application.unit(images.flatten(0, 1)).unflatten(0, part.x.shape[:2])
        captions = ["output"] if len(pixels) == 1 else [f"output {1 + number}" for number in range(len(pixels))]
        shown |= dict(zip(captions[:MAX_SHOWN], pixels, strict=False))
        if self.std is not None:
            spread = (STD_CONTRAST * pixels.std(0)).clamp(0, 1)
            self.std.add(part.start, spread if self.std.form is None else images.std(0))
            shown["std"] = spread
        return shown

    def close(self) -> None:
        """Completes the arrays."""
        for file in self.files if self.std is None else [*self.files, self.std]:
            file.close()
