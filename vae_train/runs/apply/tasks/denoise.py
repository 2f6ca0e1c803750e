"""Denoised images."""

import torch
from typing_extensions import override

from vae_train.runs.apply.results import SHEET, ImageResults, Sheet
from vae_train.runs.apply.task import Application, Task
from vae_train.util.ranges import NonNegativeFloat


class Denoise(Task):
    """Reconstructs noisy images; best by models that were trained with `corruption=denoise`.

    Args:
        noise: standard deviation of the normal noise that is added to the images first, in the units of
            `corruption.noise`; 0 for images that are noisy already.
    """

    def __init__(self, noise: NonNegativeFloat) -> None:
        self.noise = noise

    @override
    def __call__(self, application: Application) -> list[str]:
        results, sheet = ImageResults(application, "denoised"), Sheet(len(application.inputs))
        for start, batch in application.batches("Denoising"):
            x, shown = batch.x, {"input": application.pixels(batch.x, batch.mask)}
            if self.noise:
                x = x + self.noise * application.noise("noise", start).normal((1, *x.shape))[0]
                shown = {"original": shown["input"], "input": application.pixels(x, batch.mask)}
                x = x if batch.mask is None else torch.where(batch.mask, x, 0.0)
            images = application.decoded(application.means(batch._replace(encoder_input=x), start), batch.y)
            results.add(start, images)
            sheet.add(start, {**shown, "output": application.unit(images)})
        results.close()
        sheet.write(application.folder / SHEET)
        return []
