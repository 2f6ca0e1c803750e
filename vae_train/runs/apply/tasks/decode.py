"""Images of stored latents."""

from typing import ClassVar, Literal

from typing_extensions import override

from vae_train.runs.apply.latents import split_layers
from vae_train.runs.apply.results import SHEET, ImageResults, Sheet
from vae_train.runs.apply.task import Application, Task


class Decode(Task):
    """Decodes latents that `encode` wrote with the same model, to the means of p(x | z)."""

    reads: ClassVar[Literal["images", "latents"]] = "latents"

    @override
    def __call__(self, application: Application) -> list[str]:
        results, sheet = ImageResults(application, "images"), Sheet(len(application.inputs))
        for start, batch in application.batches("Decoding"):
            images = application.decoded(split_layers(batch.x, application.model.model.latent_shapes), batch.y)
            results.add(start, images)
            sheet.add(start, {"output": application.unit(images)})
        results.close()
        sheet.write(application.folder / SHEET)
        return []
