"""Shapes rendered from known factors of variation, at any resolution; nothing is downloaded.

Modelled on dSprites (Matthey et al., 2017), whose factors and numbers of values are the defaults. The grey value of a
pixel is the fraction that the shape covers. For an edge at signed distance d (negative inside) it is
clamp(1/2 - d, 0, 1) with d in pixels; for two edges the fractions are multiplied. Both are exact for edges along
the pixel grid; for others the areas of shapes are exact to about 1 %.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import SPLITS, DataFacts, Factor, Shape, Split
from vae_train.data.sources.base import SPLIT_SEED, Binarize, Contents, Source, binarized_levels, random_bits
from vae_train.data.storage.stored import Location, Store, StoredImages, TensorStore, shuffled
from vae_train.util.ranges import NonNegativeInt, PositiveInt, Range

BITS_SEED = 777

SCALES = (0.16, 0.32)
"""Smallest and largest square root of a shape's area, as a fraction of the image's side."""

POSITIONS = (0.3, 0.7)
"""First and last position of the centre. The corners of the largest triangle, 0.281 away, stay within the image."""

SATURATION = 0.7
"""Saturation of the colours; their largest channel is always 1."""

MIN_RENDERED_SIDE = 64
"""Smaller images are rendered at this side or more and averaged, since their pixels are coarse."""

MAX_PERMUTED = 2**23
"""Up to this many combinations of factors are sampled by permuting all of them."""

CHUNK_PIXELS = 2**19
"""Pixels per pass, with a few float32 tensors of this size."""

COVERAGE_STEPS = 2**12
"""Coverage is a multiple of 1 / COVERAGE_STEPS, so that sums are exact in any order."""


@dataclass(frozen=True)
class Shapes(Source):
    """White or coloured shapes on black, one per image, with their factors of variation.

    The factors, in the order of the label columns:

    - shape: square, ellipse, heart, triangle. All shapes have the same area at the same scale.
    - hue: on a colour wheel that starts with red; only with `channels=3`.
    - scale: the square root of the area, as a fraction of the image's side.
    - orientation: value k of K rotates a shape counter-clockwise by k/K of its angle of symmetry,
      which is 90° for the square, 180° for the ellipse, 360° for the heart and 120° for the triangle, so that no two
      combinations of factors give the same image.
    - x, y: position of the shape's centre of mass from the left and from the top, as a fraction of the side.

    The splits are disjoint sets of combinations, sampled without replacement with a stored seed. Test and validation
    images do not depend on `num_train`.

    Args:
        size: height and width.
        channels: 1 for white shapes, 3 for coloured ones.
        shapes: number of different shapes, in the order above.
        hues: number of colours; no effect with `channels=1`.
        scales: number of scales.
        orientations: number of orientations.
        positions: number of values of x, and of y.
        num_train: number of training images.
        num_valid: number of validation images; 0 for no such split.
        num_test: number of test images; 0 for no such split.
        binarize: "none" keeps 256 levels; "dynamic" samples each pixel as 0 or 1 with probability x, anew for every
            training batch and once for validation and test; "threshold" rounds at 1/2.
    """

    size: Annotated[int, Range(8, 256)]
    channels: Literal[1, 3]
    shapes: Annotated[int, Range(1, 4)]
    hues: Annotated[int, Range(1, 64)]
    scales: Annotated[int, Range(1, 64)]
    orientations: Annotated[int, Range(1, 360)]
    positions: Annotated[int, Range(1, 256)]
    num_train: PositiveInt
    num_valid: NonNegativeInt
    num_test: NonNegativeInt
    binarize: Binarize

    def __post_init__(self) -> None:
        combinations = math.prod(self.inspect().factor_sizes)
        if self._num_images > combinations:
            raise ValueError(
                f"num_train + num_valid + num_test = {self._num_images:,} images exceed the {combinations:,} "
                "combinations of the factors"
            )

    @override
    def inspect(self) -> DataFacts:
        positions = _evenly_spaced(*POSITIONS, self.positions)
        values: dict[str, tuple[Any, ...]] = {
            "shape": tuple(FORMS)[: self.shapes],
            "hue": tuple(360 * k / self.hues for k in range(self.hues)),  # degrees
            "scale": _evenly_spaced(*SCALES, self.scales),
            "orientation": tuple(k / self.orientations for k in range(self.orientations)),
            "x": positions,
            "y": positions,
        }
        if self.channels == 1:
            del values["hue"]
        factors = tuple(Factor(name, len(each), each) for name, each in values.items())
        levels = binarized_levels(256, self.binarize)
        return DataFacts((self.channels, self.size, self.size), levels, self.num_train, factors)

    @override
    def read(self) -> Contents:
        labels = _combinations(self.inspect().factor_sizes, self._num_images)
        test, valid, train = np.split(labels, np.cumsum([self.num_test, self.num_valid]))
        parts: dict[Split, np.ndarray] = {"train": train, "valid": valid, "test": test}
        splits = {name: self._images(part) for name, part in parts.items() if len(part)}
        if self.binarize == "dynamic":  # bits of validation and test images are sampled once
            rng = np.random.RandomState(BITS_SEED)
            splits |= {name: _with_bits(splits[name], rng) for name in SPLITS[1:] if name in splits}
        return Contents(splits)

    @property
    def _num_images(self) -> int:
        return self.num_train + self.num_valid + self.num_test

    def _images(self, labels: np.ndarray) -> StoredImages:
        """Images that are rendered on access; with "dynamic" every fetch samples new bits."""
        levels, factors = 2 if self.binarize == "threshold" else 256, self.inspect().factors
        value = {f.name: np.asarray(f.values)[labels[:, column]] for column, f in enumerate(factors)}
        turn = np.array([form.turn for form in FORMS.values()])[labels[:, 0]]
        angle = 2 * np.pi * turn * value["orientation"]
        pose = np.stack([value["x"], value["y"], value["scale"], np.cos(angle), np.sin(angle)], 1)
        color = _colors(value["hue"]) if self.channels == 3 else np.ones((len(labels), 1))
        tensors = map(torch.from_numpy, (labels[:, 0], pose, color))
        store = _RenderedStore(*tensors, forms=self.shapes, size=self.size, levels=levels)
        return StoredImages(store, levels, torch.from_numpy(labels), stochastic=self.binarize == "dynamic")


def _with_bits(images: StoredImages, rng: np.random.RandomState) -> StoredImages:
    """The images with a sampled bit for every pixel."""
    bits = [random_bits(part.numpy(), 256, rng) for part in images.pixels.split(64)]
    return StoredImages(TensorStore(torch.from_numpy(np.concatenate(bits))), 2, images.labels)


def _evenly_spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` evenly spaced values from `low` to `high`; the middle for count = 1."""
    return tuple(np.linspace(low, high, count).tolist()) if count > 1 else ((low + high) / 2,)


def _colors(hues: np.ndarray) -> np.ndarray:
    """Red, green and blue in [0, 1], with shape `(N, 3)`, of hues in degrees with shape `(N,)`."""
    distinct, number = np.unique(hues, return_inverse=True)
    return np.array([colorsys.hsv_to_rgb(hue / 360, SATURATION, 1) for hue in distinct])[number]


def _combinations(sizes: tuple[int, ...], count: int) -> np.ndarray:
    """Samples `count` distinct combinations of factors with these sizes, int64 with shape `(count, F)`.

    They are the same on every machine, and a larger sample starts with the smaller one.
    """
    total = math.prod(sizes)
    if total <= MAX_PERMUTED:
        numbers = shuffled(total, SPLIT_SEED)[:count]
    else:
        rng, numbers = np.random.RandomState(SPLIT_SEED), np.empty(0, np.int64)
        while len(numbers) < count:
            numbers = np.concatenate([numbers, rng.randint(0, total, count, dtype=np.int64)])
            numbers = numbers[np.sort(np.unique(numbers, return_index=True)[1])]  # by first occurrence
    return np.stack(np.unravel_index(numbers[:count], sizes), 1).astype(np.int64)


class _RenderedStore(Store):
    """Renders images on access.

    Images are bit-identical in every batch and on every device. Therefore pixels are computed with operations that
    IEEE 754 rounds uniquely, one at a time: no division by a constant, which some devices replace by a product,
    and no fused multiply-add.

    Args:
        form: int64 indices into `FORMS`, with shape `(N,)`.
        pose: x, y and scale as fractions of the image's side, cosine and sine of the orientation, with shape `(N, 5)`.
        colour: in [0, 1], with shape `(N, C)`.
        forms: number of `FORMS` in use.
        size: height and width.
        levels: 256, or 2 to round at ½.
    """

    location: Location = "computed"
    itemsize = 1

    def __init__(self, form: Tensor, pose: Tensor, color: Tensor, *, forms: int, size: int, levels: int) -> None:
        self.form, self.pose, self.color = form, pose.float(), color.float()
        self.levels, self.device = levels, form.device
        self.shape: Shape = (color.shape[1], size, size)
        self.fine = -(-MIN_RENDERED_SIDE // size)  # the grid has this many points on each side of a pixel
        self.forms = list(FORMS.values())[:forms]
        points = torch.arange(size * self.fine, dtype=torch.float64) + 0.5
        self.points = (points / len(points)).float().to(self.device)

    @override
    def __len__(self) -> int:
        return len(self.form)

    @override
    def take(self, index: Tensor) -> Tensor:
        parts = index.to(self.device).split(max(1, CHUNK_PIXELS // len(self.points) ** 2))
        return torch.cat([self._render(part) for part in parts])

    @override
    def on(self, device: torch.device) -> Store:
        factors = (part.to(device) for part in (self.form, self.pose, self.color))
        return _RenderedStore(*factors, forms=len(self.forms), size=self.shape[-1], levels=self.levels)

    def _render(self, index: Tensor) -> Tensor:
        color = self.color.index_select(0, index)[:, :, None, None]  # (B, C, 1, 1)
        share = self._covered(index)[:, None]  # (B, 1, H, W)
        pixels = share.mul(255).mul(color).round_().to(torch.uint8)
        return pixels if self.levels == 256 else pixels.ge(128).to(torch.uint8)

    def _covered(self, index: Tensor) -> Tensor:
        """The fraction of every pixel that the shape covers, with shape `(B, H, W)`."""
        x, y, scale, cos, sin = self.pose.index_select(0, index)[:, :, None, None].unbind(1)  # (B, 1, 1)
        right, up = self.points - x, y - self.points[:, None]  # (B, 1, G), (B, G, 1): G points on a side
        right, up = right / scale, up / scale
        p, q = cos * right + sin * up, cos * up - sin * right  # (B, G, G), turned back
        form = self.form.index_select(0, index)[:, None, None]
        width = scale * len(self.points)
        share = self.forms[0].share(p, q, width)
        for number, other in enumerate(self.forms[1:], 1):
            share = torch.where(form == number, other.share(p, q, width), share)
        return self._averaged(share)

    def _averaged(self, share: Tensor) -> Tensor:
        """The mean over the points of every pixel, `(B, G, G)` to `(B, H, W)`."""
        if self.fine == 1:
            return share
        side, fine = self.shape[-1], self.fine
        steps = share.mul_(COVERAGE_STEPS).round_().view(-1, side, fine, side, fine).sum((2, 4))
        return steps.mul_(1 / (COVERAGE_STEPS * fine**2))


def _square(p: Tensor, q: Tensor, width: Tensor) -> Tensor:
    return _share(p.abs() - 0.5, width).mul_(_share(q.abs() - 0.5, width))


def _ellipse(p: Tensor, q: Tensor, width: Tensor) -> Tensor:
    """The distance is exact to first order at the edge: (k - 1) / |gradient of k| for k = |(p/a, q/b)|."""
    a, b = math.sqrt(ASPECT / math.pi), math.sqrt(1 / (ASPECT * math.pi))
    p, q = p * (1 / a), q * (1 / b)
    k = _norm(p, q).clamp_min_(1e-4)  # (The gradient at the centre is 0 / 0.)
    slope = _norm(p * (1 / a), q * (1 / b)).clamp_min_(1e-4)
    return _share((k - 1).mul_(k).div_(slope), width)


def _heart(p: Tensor, q: Tensor, width: Tensor) -> Tensor:
    """A square on its corner, with a disc centred on each of its upper sides."""
    radius = 1 / math.sqrt(4 + math.pi)  # half of the square's side, too
    q = q + radius**3 * (math.pi + 4 / 3) * math.sqrt(0.5)  # from the square's centre
    along, across = (p + q) * math.sqrt(0.5), (q - p) * math.sqrt(0.5)
    square = _share(along.abs() - radius, width).mul_(_share(across.abs() - radius, width))
    right = _share(_norm(along - radius, across) - radius, width)
    left = _share(_norm(along, across - radius) - radius, width)
    return torch.maximum(square, 1 - (1 - right) * (1 - left))


def _triangle(p: Tensor, q: Tensor, width: Tensor) -> Tensor:
    inner = 27**-0.25  # the sides' distance from the centre
    slope, rise = p * math.sqrt(0.75), q * 0.5 - inner
    return _share(rise + slope, width).mul_(_share(rise - slope, width)).mul_(_share(-inner - q, width))


def _share(distance: Tensor, width: Tensor) -> Tensor:
    """The fraction of a pixel inside an edge at this signed distance, with `width` pixels per unit of length."""
    return (0.5 - distance * width).clamp_(0, 1)


def _norm(p: Tensor, q: Tensor) -> Tensor:
    return square_root(p * p + q * q)


def square_root(x: Tensor) -> Tensor:
    """The square root, rounded correctly (IEEE 754); PyTorch's own differs in the last bit on processors with AVX-512.

    A float64 root rounded to float32 is correct, even if the float64 root is not (Figueroa, 1995).
    """
    return x.sqrt() if x.device.type == "mps" else x.double().sqrt_().float()  # (Apple's GPUs have no float64.)


class _Form(NamedTuple):
    share: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Computes the covered fraction around points (p, q) relative to the centre of mass, `(B, G, G)` each, in units of
    the square root of the shape's area, given the number of points per unit, `(B, 1, 1)`."""
    turn: float
    """The angle of symmetry, as a fraction of 360°."""


ASPECT = 1.6
"""Aspect ratio of the ellipse; its extent then equals that of the square and the heart."""

FORMS = {
    "square": _Form(_square, 1 / 4),
    "ellipse": _Form(_ellipse, 1 / 2),
    "heart": _Form(_heart, 1),
    "triangle": _Form(_triangle, 1 / 3),
}
