"""Reconstructions of images."""

from typing import Literal

from torch import Tensor
from typing_extensions import override

from vae_train.batch import Batch
from vae_train.evaluation.latents import Latents, posterior
from vae_train.evaluation.tiles import in_tiles
from vae_train.runs.apply.inputs import Tiles
from vae_train.runs.apply.results import SHEET, ImageResults, Sheet, write_image
from vae_train.runs.apply.task import Application, Task
from vae_train.util.ranges import NonNegativeInt, PositiveInt


class Reconstruct(Task):
    """Encodes every image and decodes the mean of its posterior.

    Args:
        tile: side of overlapping tiles, in which images of any size are reconstructed by a fully convolutional model;
            "auto" for the size of the training images. None scales images to the model's size.
        overlap: pixels that neighbouring tiles share; None for a quarter of a tile.

    Raises:
        ValueError: there is an overlap, but no tiles.
    """

    def __init__(self, tile: Literal["auto"] | PositiveInt | None, overlap: NonNegativeInt | None) -> None:
        if overlap is not None and tile is None:
            raise ValueError(f"overlap={overlap} has no effect without tile=auto or a number")
        self.tile, self.overlap = tile, overlap

    @override
    def __call__(self, application: Application) -> list[str]:
        if application.inputs.tiles is not None:
            return self._in_tiles(application, application.inputs.tiles)
        results, sheet = ImageResults(application, "reconstructions"), Sheet(len(application.inputs))
        for start, batch in application.batches("Reconstructing"):
            images = application.decoded(application.means(batch, start), batch.y)
            results.add(start, images)
            sheet.add(start, {"input": application.pixels(batch.x, batch.mask), "output": application.unit(images)})
        results.close()
        sheet.write(application.folder / SHEET)
        return []

    def _in_tiles(self, application: Application, tiles: Tiles) -> list[str]:
        results, batch_size = ImageResults(application, "reconstructions"), application.tiles_per_pass(tiles)
        for number in range(len(application.inputs)):
            image = application.image(number)

            def reconstructed(x: Tensor, y: Tensor | None = image.y) -> Tensor:
                y = None if y is None else y.expand(len(x), -1)
                z = Latents([(0, posterior(tiles.model, Batch(x, y)))]).mean
                return application.model.to_units(tiles.model.decode(z, y).mean)

            reconstruction = in_tiles(reconstructed, image.x[0], tiles.size, tiles.overlap, batch_size)
            write_image(results.folder / results.names[number], reconstruction.clamp(0, 1))
        return []
