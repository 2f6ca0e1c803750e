"""Maps of encodings: scatter plots in two dimensions, and the files of TensorBoard's projector."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vae_train.plotting.lazy import load_matplotlib
from vae_train.plotting.palette import MAX_COLORS, SEQUENTIAL, class_colors
from vae_train.plotting.png import panels, to_pil, write_figure
from vae_train.util.files import replacing

PANEL_INCHES, LEGEND_INCHES = 4.6, 1.4

LINE_INCHES = 7.0

LINE_BINS, LINE_POINTS = 40, 400
"""Of a histogram, and of a curve over it."""

ROUNDING_INCHES = 1e-6
"""Matplotlib before 3.11 truncates pixels, and 100 times 4.6 is slightly less than 460."""

MAX_NAME_LENGTH = 18

MAX_SPRITE_SIDE = 64
"""Longer side of the projector's thumbnails in pixels."""


PRIOR_STDS = (1, 2, 3)
"""Standard deviations of the prior at which contours are plotted."""


class Plane(NamedTuple):
    """Points of a map in two dimensions."""

    title: str
    points: ArrayLike
    """`(N, 2)` coordinates."""
    axes: tuple[str, str] | None = None
    """Axis labels; None for coordinates without a meaning, which get no tick labels."""
    prior: tuple[ArrayLike, ArrayLike] | None = None
    """`(2,)` mean and standard deviation of a normal prior whose contours are plotted."""


def plot_maps(maps: Sequence[Plane], labels: ArrayLike | None, names: Sequence[str] | None, path: Path) -> None:
    """Plots several two-dimensional maps of the same points side by side.

    Args:
        maps: the maps.
        labels: `(N,)` int for the colours; up to `MAX_COLORS` distinct labels get a legend, more a colour bar.
        names: names of the labels 0, 1, …
        path: the file to write, `PANEL_INCHES` high at 100 pixels per inch.
    """
    y = None if labels is None else np.asarray(labels)
    width = PANEL_INCHES * len(maps) + (0 if y is None else LEGEND_INCHES)
    figure, axes = panels(width + ROUNDING_INCHES, PANEL_INCHES + ROUNDING_INCHES, len(maps))
    colors, scale = _colors(y)
    for axis, plane in zip(axes, maps, strict=True):
        xy = np.asarray(plane.points, np.float64)
        order = np.random.default_rng(0).permutation(len(xy))  # otherwise the last class would cover the others
        shades = {"color": "0.35"} if colors is None else {"c": colors[order], **scale}
        area = float(np.clip(12_000 / max(1, len(xy)), 4, 36))
        axis.scatter(*xy[order].T, s=area, alpha=0.85, linewidths=0, **shades)
        axis.set_title(plane.title, fontsize=10)
        axis.set_aspect("equal", "datalim")  # both axes have the same unit
        if plane.axes is None:
            axis.tick_params(length=0, labelbottom=False, labelleft=False)
        else:
            axis.set_xlabel(plane.axes[0], fontsize=9)
            axis.set_ylabel(plane.axes[1], fontsize=9)
        if plane.prior is not None:
            _contours(axis, *plane.prior)
    if scale:
        load_matplotlib()
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        opaque = ScalarMappable(Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])  # without the dots' alpha
        bar = figure.colorbar(opaque, ax=axes, fraction=LEGEND_INCHES / width, pad=0.02, aspect=30)
        bar.ax.tick_params(labelsize=8)
    elif y is not None:
        _legend(figure, y, names)
    write_figure(figure, path)


def plot_line(
    points: ArrayLike,
    labels: ArrayLike | None,
    names: Sequence[str] | None,
    prior: tuple[float, float] | None,
    path: Path,
) -> None:
    """Plots the histogram of points on a line, stacked by label, and the density of a normal prior.

    Args:
        points: `(N,)` coordinates.
        labels: `(N,)` int; more than `MAX_COLORS` different ones are not told apart.
        names: names of the labels 0, 1, …
        prior: mean and standard deviation; None for another prior.
        path: the file to write, as high as that of `plot_maps`.
    """
    z, y = np.asarray(points, np.float64), np.zeros(np.shape(points), int) if labels is None else np.asarray(labels)
    classes = np.unique(y)
    is_coloured = labels is not None and len(classes) <= MAX_COLORS
    groups = [z[y == label] for label in classes] if is_coloured else [z]
    figure, (axis,) = panels(LINE_INCHES + ROUNDING_INCHES, PANEL_INCHES + ROUNDING_INCHES, 1)
    reach = [] if prior is None else [prior[0] + sign * PRIOR_STDS[-1] * prior[1] for sign in (-1, 1)]
    span = float(min([*z, *reach])), float(max([*z, *reach]))
    weights = [np.full(len(group), LINE_BINS / (len(z) * (span[1] - span[0] or 1.0))) for group in groups]  # area 1
    colours = class_colors(len(classes)) if is_coloured else ["0.6"]
    axis.hist(groups, LINE_BINS, span, weights=weights, stacked=True, color=list(colours))
    if prior is not None:
        x = np.linspace(*span, LINE_POINTS)
        density = np.exp(-0.5 * ((x - prior[0]) / prior[1]) ** 2) / (prior[1] * math.sqrt(2 * math.pi))
        axis.plot(x, density, color="0.1", linewidth=1.2, linestyle="--", label="prior")
        axis.legend(fontsize=8, frameon=False, loc="upper left")
    axis.set_title("means of q(z | x)" + ("" if prior is None else ", and density of the prior"), fontsize=10)
    axis.set_xlabel("z1", fontsize=9)
    axis.set_ylabel("density", fontsize=9)
    if is_coloured:
        _legend(figure, y, names)
    write_figure(figure, path)


def _contours(axis: Any, mean: ArrayLike, std: ArrayLike) -> None:
    """Plots the contours of a normal prior."""
    load_matplotlib()
    from matplotlib.patches import Ellipse

    (x, y), (width, height) = (np.asarray(values, np.float64).tolist() for values in (mean, std))
    for stds in PRIOR_STDS:
        size = 2 * stds * width, 2 * stds * height
        axis.add_patch(Ellipse((x, y), *size, fill=False, color="0.25", linewidth=0.9, linestyle="--"))
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axis.annotate(
            f"{stds} sd", (x, y + stds * height), ha="center", va="center", fontsize=7, color="0.25", bbox=box
        )
    reach = 1.1 * PRIOR_STDS[-1]
    axis.update_datalim([(x + sign * reach * width, y + sign * reach * height) for sign in (-1, 1)])
    axis.autoscale_view()


def _colors(labels: NDArray[Any] | None) -> tuple[NDArray[Any] | None, dict[str, Any]]:
    """Returns a colour for every point, or numbers with their colour scale."""
    if labels is None:
        return None, {}
    classes, place = np.unique(labels, return_inverse=True)
    if len(classes) > MAX_COLORS:
        return labels, {"cmap": SEQUENTIAL, "vmin": classes[0], "vmax": classes[-1]}
    return class_colors(len(classes))[place], {}


def _legend(figure: Any, labels: NDArray[Any], names: Sequence[str] | None) -> None:
    load_matplotlib()
    from matplotlib.lines import Line2D

    classes = np.unique(labels).tolist()
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6, color=color, label=_label_name(label, names))
        for label, color in zip(classes, class_colors(len(classes)), strict=True)
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)


def _label_name(label: int, names: Sequence[str] | None) -> str:
    """Returns the name of a label on one line, truncated for a legend."""
    name = names[label] if names is not None and 0 <= label < len(names) else str(label)
    name = " ".join(name.split())
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"


def plot_projector(
    folder: Path,
    points: ArrayLike,
    labels: ArrayLike | None = None,
    images: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> None:
    """Writes the files for TensorBoard's projector.

    `SummaryWriter.add_embedding` would create another event file at each call and print a warning.

    Args:
        folder: a folder with event files, or the folder of `--logdir`. Receives projector_config.pbtxt,
            tensors.tsv, metadata.tsv if there are labels, and sprite.png if there are images.
        points: `(N, D)` encodings; padded with zeros to at least 3 dimensions.
        labels: `(N,)` int.
        images: `(N, C, H, W)` in [0, 1], shown in place of the points.
        names: names of the labels 0, 1, …
    """
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder.mkdir(parents=True, exist_ok=True)
    vectors = np.asarray(points, np.float64)
    vectors = np.pad(vectors, ((0, 0), (0, max(0, 3 - vectors.shape[1]))))  # the projector needs three
    with replacing(folder / "tensors.tsv", sync=False) as file:
        np.savetxt(file, vectors, fmt="%.6g", delimiter="\t")
    config = ProjectorConfig()
    entry = config.embeddings.add(tensor_name="encodings", tensor_path="tensors.tsv")
    if labels is not None:
        values = np.asarray(labels).tolist()
        with replacing(folder / "metadata.tsv", sync=False) as file:
            file.writelines(f"{_label_name(label, names)}\n".encode() for label in values)
        entry.metadata_path = "metadata.tsv"
    if images is not None:
        height, width = _write_sprite(folder / "sprite.png", torch.as_tensor(images).cpu())
        entry.sprite.image_path = "sprite.png"
        entry.sprite.single_image_dim.extend([width, height])
    with replacing(folder / "projector_config.pbtxt", sync=False) as file:
        file.write(str(config).encode())


def _write_sprite(path: Path, images: Tensor) -> tuple[int, int]:
    """Writes images `(N, C, H, W)` as a square of thumbnails, row by row; returns a thumbnail's height and width."""
    images = images.float().clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    factor = min(1.0, MAX_SPRITE_SIDE / max(images.shape[2:]))
    height, width = (max(1, round(factor * side)) for side in images.shape[2:])
    images = F.interpolate(images, (height, width), mode="area")
    side = math.isqrt(len(images) - 1) + 1  # rounded up; the projector derives it from the number of points
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, side**2 - len(images)))
    square = padded.view(side, side, -1, height, width).permute(2, 0, 3, 1, 4)  # (C, rows, H, columns, W)
    to_pil(square.reshape(-1, side * height, side * width)).save(path)
    return height, width
