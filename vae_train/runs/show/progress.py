"""The samples of a training, from epoch to epoch."""

from pathlib import Path

from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.plotting.png import from_pil
from vae_train.plotting.sheet import Sheet
from vae_train.runs.epoch_grids import grid_names, open_grid
from vae_train.runs.show.base import Plot, PlotContents, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.errors import RunError

LAST_FRAMES = 5
"""Number of times that the last frame is repeated, so that it stays longer."""


class Progress(Plot):
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
    def __call__(self, opened: OpenedRun) -> PlotContents:
        folder, (_, limit) = opened.run.samples, num_and_frames(self, opened)
        names = grid_names(folder)
        names = [names[number] for number in evenly_spaced(len(names), limit).tolist()]
        sizes = {name: image.size for _, name in names if (image := open_grid(folder / name)) is not None}
        size = next(reversed(sizes.values()), None)
        shown = [(label, name) for label, name in names if sizes.get(name) == size]
        if len(shown) < 2:
            raise RunError(f"the image grids in {folder} are damaged, or differ in size")
        left_out = len(names) - len(shown)
        about = f"samples from {shown[0][0]} to {shown[-1][0]}, {len(shown)} frames"
        about += f"; {left_out} damaged or of another size left out" if left_out else ""
        frames = (_frame(folder / name, label) for label, name in [*shown, *[shown[-1]] * LAST_FRAMES])
        return PlotContents(about, animation=frames, seconds_per_frame=0.25, there_and_back=False)


def _frame(path: Path, label: str) -> Sheet:
    """An image grid, which is read when its frame is written, with a title."""
    image = open_grid(path)
    if image is None:
        raise RunError(f"{path} cannot be read any more")
    return Sheet(from_pil(image.convert("RGB"))[None], 1, title=label)
