"""Codes seen from above: their principal components, t-SNE, and the files of TensorBoard's projector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vae_train.batch import evenly_spaced
from vae_train.rng import generator

Array = Tensor | NDArray[Any]

MOST = 2_000
"""Points of a t-SNE or of a projector: with more of them, the one takes minutes and the other's page is slow."""

PERPLEXITY = 30.0
"""Of t-SNE, where there are points enough for it."""

START = 1e-4
"""Standard deviation of the points that t-SNE starts from, as in scikit-learn."""

NAMED = 20
"""Classes that colours can tell apart; more of them are shown by a continuous colour bar."""

PANEL, MARGIN = 4.6, 1.4
"""Inches: the sides of a map, and the room beside the maps for their legend."""

HAIR = 1e-6

SPRITE = 64
"""Pixels on the longer side of a projector's small pictures, at most."""


def floats(values: Array) -> NDArray[np.float64]:
    """The values as a float64 array, wherever they lie."""
    return torch.as_tensor(values).detach().cpu().double().numpy()


def pca(codes: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two principal components of codes with the largest variances.

    Args:
        codes: `(N, D)`; if D is 1, the second component is 0.

    Returns:
        `(N, 2)` the codes in these directions, in the codes' own units and centred; and `(2,)` the share of the total
        variance that each of them explains, 0 where nothing varies.
    """
    centred = floats(codes)
    centred = centred - centred.mean(0)
    _, scales, directions = np.linalg.svd(centred, full_matrices=False)  # (R,), (R, D) with R = min(N, D)
    points, share = np.zeros((len(centred), 2)), np.zeros(2)
    kept = min(2, len(scales))
    points[:, :kept] = centred @ _signed(directions[:kept]).T
    total = (scales**2).sum()
    if total > 0:
        share[:kept] = scales[:kept] ** 2 / total
    return points, share


def _signed(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Directions `(K, D)` with the sign that makes the largest entry of each positive: an SVD leaves it open.

    Among entries that are equally large but for rounding, the first one decides.
    """
    size = np.abs(directions)
    first = (size >= (1 - 1e-6) * size.max(1, keepdims=True)).argmax(1)
    return directions * np.sign(directions[np.arange(len(directions)), first])[:, None]


def tsne(codes: Array, seed: int) -> NDArray[np.float64]:
    """A t-SNE (van der Maaten & Hinton 2008) of at most `MOST` codes: close points were close, distances mean little.

    It starts from the two principal components (Kobak & Berens 2019) and a hundredth of noise, and is a function of
    codes and seed. Structure that another seed does not show is none.

    Args:
        codes: `(N, D)`, of which those with the numbers `evenly_spaced(N, MOST)` are used.
        seed: decides the noise.

    Returns:
        `(M, 2)`, without a unit.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    used = floats(codes)
    used = used[evenly_spaced(len(used), MOST).numpy()]
    start = _start(used, seed)
    if start is None:
        return np.zeros((len(used), 2))
    # A point has N - 1 neighbours; the perplexity, which is how many of them count, is at most a third of these.
    perplexity = min(PERPLEXITY, max(1.0, (len(used) - 1) / 3))
    with threadpool_limits(1):  # or sums, and so the map, would depend on the number of threads
        return floats(TSNE(init=start, perplexity=perplexity).fit_transform(used.astype(np.float32)))


def _start(codes: NDArray[np.float64], seed: int) -> NDArray[np.float32] | None:
    """`(N, 2)` the points that t-SNE starts from; None where all codes are the same.

    The noise parts points that coincide, and leads codes with one dimension off the line that they start on.
    """
    points, _ = pca(codes)
    scale = points[:, 0].std()
    if scale <= 1e-12 * np.abs(codes).max():
        return None
    noise = torch.randn(points.shape, generator=generator(seed, "tsne")).numpy()
    return np.asarray(START * (points / scale + 0.01 * noise), np.float32)


def draw(
    points: Sequence[tuple[str, Array]],
    labels: Array | None,
    names: Sequence[str] | None,
    path: Path,
) -> None:
    """Draws maps of the same codes side by side.

    Args:
        points: a title and `(N, 2)` for every map.
        labels: `(N,)` int, which decide the colours: up to `NAMED` different ones are named, more are a scale.
        names: what the labels 0, 1, … stand for, where that is known.
        path: the PNG to write, `PANEL` inches high, with 100 pixels per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    y = None if labels is None else np.asarray(torch.as_tensor(labels).cpu())
    width = PANEL * len(points) + (0 if y is None else MARGIN)
    # Before 3.11 matplotlib cuts pixels off, and 100 times 4.6 is a hair less than 460.
    figure = Figure(figsize=(width + HAIR, PANEL + HAIR), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(points), squeeze=False)[0]
    colours, scale = _colours(y)
    for axis, (title, xy) in zip(axes, points, strict=True):
        xy = floats(xy)
        order = np.random.default_rng(0).permutation(len(xy))  # or the last class would cover the others
        shades = {"color": "0.35"} if colours is None else {"c": colours[order], **scale}
        size = float(np.clip(12_000 / max(1, len(xy)), 4, 36))
        axis.scatter(*xy[order].T, s=size, alpha=0.85, linewidths=0, **shades)
        axis.set_title(title, fontsize=10)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.set_aspect("equal", "datalim")  # both directions of a map have one unit
    if scale:
        plain = ScalarMappable(Normalize(scale["vmin"], scale["vmax"]), scale["cmap"])  # without the dots' alpha
        bar = figure.colorbar(plain, ax=axes, fraction=MARGIN / width, pad=0.02, aspect=30)
        bar.ax.tick_params(labelsize=8)
    elif y is not None:
        _legend(figure, y, names)
    FigureCanvasAgg(figure).print_png(str(path))


def _colours(labels: NDArray[Any] | None) -> tuple[NDArray[Any] | None, dict[str, Any]]:
    """A colour for every point, or a number and the scale that turns it into a colour."""
    if labels is None:
        return None, {}
    kinds, place = np.unique(labels, return_inverse=True)
    if len(kinds) > NAMED:
        return labels, {"cmap": "turbo", "vmin": kinds[0], "vmax": kinds[-1]}
    return _palette(len(kinds))[place], {}


def _palette(count: int) -> NDArray[np.float64]:
    """`(count, 4)` colours for up to `NAMED` classes: the ten strong ones first, then the pale ones."""
    from matplotlib import colormaps

    pairs = colormaps["tab20"](np.arange(20))
    return np.concatenate([pairs[::2], pairs[1::2]])[:count]


def _legend(figure: Any, labels: NDArray[Any], names: Sequence[str] | None) -> None:
    from matplotlib.lines import Line2D

    kinds = np.unique(labels).tolist()
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6, color=colour, label=_name(kind, names))
        for kind, colour in zip(kinds, _palette(len(kinds)), strict=True)
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)


def _name(label: int, names: Sequence[str] | None) -> str:
    """What a label stands for, cut to what a legend and a table of one line per point have room for."""
    name = names[label] if names is not None and 0 <= label < len(names) else str(label)
    name = " ".join(name.split())
    return name if len(name) <= 18 else name[:17] + "…"


def projector(
    folder: Path,
    codes: Array,
    labels: Array | None = None,
    images: Array | None = None,
    names: Sequence[str] | None = None,
) -> int:
    """Writes what TensorBoard's projector shows; says how many points that are, `MOST` at most.

    `SummaryWriter.add_embedding` would do, but leaves one more event file at each call and prints that there are files.

    Args:
        folder: where TensorBoard looks: a folder with event files, or one that is given to `--logdir`. It gets
            projector_config.pbtxt, tensors.tsv, and metadata.tsv and sprite.png where there are labels and images.
        codes: `(N, D)`, of which those with the numbers `evenly_spaced(N, MOST)` are shown.
        labels: `(N,)` int.
        images: `(N, C, H, W)` in [0, 1], shown in place of the points.
        names: what the labels 0, 1, … stand for, where that is known.
    """
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder.mkdir(parents=True, exist_ok=True)
    index = evenly_spaced(len(codes), MOST)
    np.savetxt(folder / "tensors.tsv", floats(codes)[index.numpy()], fmt="%.6g", delimiter="\t")
    config = ProjectorConfig()
    entry = config.embeddings.add(tensor_name="codes", tensor_path="tensors.tsv")
    if labels is not None:
        kinds = torch.as_tensor(labels).cpu()[index].tolist()
        (folder / "metadata.tsv").write_text("".join(_name(kind, names) + "\n" for kind in kinds), "utf-8")
        entry.metadata_path = "metadata.tsv"
    if images is not None:
        height, width = _write_sprite(folder / "sprite.png", torch.as_tensor(images).detach().cpu()[index])
        entry.sprite.image_path = "sprite.png"
        entry.sprite.single_image_dim.extend([width, height])
    (folder / "projector_config.pbtxt").write_text(str(config), "utf-8")
    return len(index)


def _write_sprite(path: Path, images: Tensor) -> tuple[int, int]:
    """Writes images `(N, C, H, W)` row by row as a square of images; returns height and width of each."""
    from PIL import Image

    images = images.float().clamp(0, 1)
    if images.shape[1] not in (1, 3):
        images = images.mean(1, keepdim=True)
    factor = min(1.0, SPRITE / max(images.shape[2:]))
    height, width = (max(1, round(factor * side)) for side in images.shape[2:])
    images = F.interpolate(images, (height, width), mode="area")
    side = math.isqrt(len(images) - 1) + 1  # the root, rounded up: the projector derives it from the number of points
    padded = F.pad(images, (0, 0, 0, 0, 0, 0, 0, side**2 - len(images)))
    square = padded.view(side, side, -1, height, width).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, C)
    levels = (square.reshape(side * height, side * width, -1) * 255).round().to(torch.uint8)
    Image.fromarray(levels.squeeze(-1).numpy()).save(path)
    return height, width
