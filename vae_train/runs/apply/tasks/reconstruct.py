"""Reconstructions of images."""

from typing_extensions import override

from vae_train.runs.apply.results import SHEET, ImageResults, Sheet
from vae_train.runs.apply.task import Application, Task


class Reconstruct(Task):
    """Encodes every image and decodes the mean of its posterior."""

    @override
    def __call__(self, application: Application) -> list[str]:
        results, sheet = ImageResults(application, "reconstructions"), Sheet(len(application.inputs))
        for start, batch in application.batches("Reconstructing"):
            images = application.decoded(application.encoded(batch, start).mean, batch.y)
            results.add(start, images)
            sheet.add(start, {"input": application.pixels(batch.x, batch.mask), "output": application.unit(images)})
        results.close()
        sheet.write(application.folder / SHEET)
        return []
