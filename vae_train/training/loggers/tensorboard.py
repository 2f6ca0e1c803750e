"""The TensorBoard logger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor
from typing_extensions import override

from vae_train.plotting.png import encode_png
from vae_train.training.loggers.base import Logger, Row, grid_name, series_name
from vae_train.util.errors import RunError
from vae_train.util.ranges import PositiveInt

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

LAYERS = "layers"
"""The group of the rates of single layers, which only models with several have."""

GROUPS = {
    "bound": ("elbo", "rate", "distortion", "bits_per_dim"),
    "codes": ("codes_used", "code_perplexity"),
    "evaluation": (),
    LAYERS: (),
    "speed": ("images_per_second", "data_wait"),
}
"""Groups of charts and their metrics. TensorBoard sorts groups by name. The rates of single layers are in `layers`.
Other metrics are in `optimization`, or in `evaluation` if `vae eval` computed them."""

LAYOUT = {
    "bound": {"ELBO": "elbo", "rate": "rate", "distortion": "distortion", "bits per dimension": "bits_per_dim"},
    LAYERS: {"rate per layer, from the topmost": r"rate_\d+"},
    "optimization": {"loss": "loss", "beta": "beta", "learning rate": "lr", "gradient norm": "grad_norm"},
}
"""Charts of the page Custom Scalars in their order, by title; other pages sort charts by name."""

BEST = "best"
"""The run of the best epoch. TensorBoard's HParams table shows its metrics, and those of runs below it."""


class TensorBoard(Logger):
    """Writes curves, image grids and hyper-parameters for TensorBoard.

    Every split is a TensorBoard run, so that one chart shows a metric of all splits: `train` has means over epochs,
    `train_steps` means over the last steps, `valid` validations, `best` the best validation, and `best/test`
    the metrics of `vae eval`. Image grids and latents are in `train`.

    Args:
        folder: the folder of all event files.
        step: the step at which the run resumes; later points are hidden.
        flush_secs: seconds between two writes to disk.
    """

    def __init__(self, folder: Path, step: int, flush_secs: PositiveInt) -> None:
        super().__init__(folder, step)
        self.flush_secs = flush_secs
        self._writers: dict[str, SummaryWriter] = {}

    @override
    def metrics(self, row: Row) -> None:
        self._add_row(series_name(row), row)

    @override
    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        run = kind if kind.startswith(BEST) else "train"
        channels, height, width = grid.shape
        # `add_image` compresses three times as slowly.
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=encode_png(grid))
        self._add(run, Summary(value=[Summary.Value(tag=f"images/{grid_name(kind, name)}", image=image)]), step)

    @override
    def latents(self, step: int, kl: Sequence[float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

        edges = [number + 0.5 for number in range(len(kl) + 1)]
        bars = HistogramProto(min=edges[0], max=edges[-1], num=len(kl), bucket_limit=edges[1:], bucket=kl)
        self._add("train", Summary(value=[Summary.Value(tag="latents/kl_per_dimension", histo=bars)]), step)

    @override
    def hyperparameters(self, values: Row, best: Row) -> None:
        # Without an experiment summary TensorBoard shows the columns of all runs, otherwise those of a single run.
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}
        _, start, end = hparams(plain, {})
        self._add(BEST, start)
        self._add_row(BEST, {name: value for name, value in best.items() if name in (*GROUPS["bound"], "step", "loss")})
        self._add(BEST, end)

    @override
    def close(self) -> None:
        with self._writing():
            for writer in self._writers.values():
                writer.close()

    def _add_row(self, run: str, row: Row) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = {_tag(name, row.get("split")): value for name, value in row.items() if isinstance(value, float)}
        # One event per row: `add_scalar`, with one event per metric, would take 1 % of the time of a small training.
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
        self._add(run, Summary(value=values), row["step"])

    def _add(self, run: str, summary: Summary, step: int | None = None) -> None:
        """Writes one event of a run; the first event opens the file."""
        with self._writing():
            if run not in self._writers:
                self._writers[run] = self._opened(run, has_layers=any(_is_layer(v.tag) for v in summary.value))
            writer = self._writers[run].file_writer
            assert writer is not None
            writer.add_summary(summary, step)

    def _opened(self, run: str, has_layers: bool) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        purged = self.step + 1 if self.step else 0
        writer = SummaryWriter(str(self.folder / run), purge_step=purged, flush_secs=self.flush_secs)
        if run == "train":
            writer.add_custom_scalars(_layout(has_layers))
        return writer

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Names the folder in errors of the system, which TensorBoard passes on from the thread that writes."""
        try:
            yield
        except OSError as error:
            raise RunError(f"could not write the events in {self.folder}: {error.strerror or error}") from error


def _layout(has_layers: bool) -> dict[str, dict[str, list[object]]]:
    """`LAYOUT` as TensorBoard takes it: group, then title, then the kind of chart and its tags."""
    return {
        group: {title: ["Multiline", [f"^{group}/{name}$"]] for title, name in charts.items()}
        for group, charts in LAYOUT.items()
        if group != LAYERS or has_layers
    }


def _is_layer(tag: str) -> bool:
    """Whether a tag is that of the rate of a single layer."""
    return tag.startswith(f"{LAYERS}/")


@cache
def _tag(name: str, split: str | None) -> str:
    """The tag of a metric: its group and its name."""
    other = "optimization" if split in ("train", "valid", None) else "evaluation"
    if name.startswith("rate_"):
        other = LAYERS
    group = next((group for group, names in GROUPS.items() if name in names), other)
    return f"{group}/{name}"
