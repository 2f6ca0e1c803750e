"""The samples of a training, from epoch to epoch."""

from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.plotting.png import from_pil
from vae_train.plotting.sheet import Sheet
from vae_train.runs.epoch_grids import grid_names, open_grid
from vae_train.runs.show.base import Picture, Show, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.errors import RunError

LAST_FRAMES = 5
"""Number of times that the last frame is repeated, so that it stays longer."""


class Progress(Show):
    """The same samples at different epochs of the training, as a GIF."""

    reads = ("frames",)
    frames = 60
    needs_model = has_sheet = False

    @override
    def problem(self, opened: OpenedRun) -> str | None:
        count = len(grid_names(opened.run.samples))
        if count > 1:
            return None
        return f"needs image grids of at least two epochs; {opened.run.samples} has {count} (see trainer.sample_every)"

    @override
    def __call__(self, opened: OpenedRun) -> Picture:
        folder, (_, limit) = opened.run.samples, num_and_frames(self, opened)
        names = grid_names(folder)
        names = [names[number] for number in evenly_spaced(len(names), limit).tolist()]
        read = [(label, image) for label, name in names if (image := open_grid(folder / name)) is not None]
        size = read[-1][1].size if read else ()
        grids = [(label, from_pil(image.convert("RGB"))) for label, image in read if image.size == size]
        if len(grids) < 2:
            raise RunError(f"the image grids in {folder} are damaged, or differ in size")
        frames = [Sheet(grid[None], 1, title=label) for label, grid in grids]
        left_out = len(names) - len(grids)
        about = f"samples from {grids[0][0]} to {grids[-1][0]}, {len(grids)} frames"
        about += f"; {left_out} damaged or of another size left out" if left_out else ""
        return Picture(about, animation=[*frames, *[frames[-1]] * LAST_FRAMES], seconds_per_frame=0.25)
