"""Perceptual distances between images: LPIPS with weights from files, or a normalised Laplacian pyramid."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.util.ranges import NonNegativeFloat
from vae_train.util.state_dicts import read_state_dict

CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    **dict.fromkeys((12, 14), (256, 256)),
    17: (256, 512),
    **dict.fromkeys((19, 21, 24, 26, 28), (512, 512)),
}
"""Convolutions of VGG16 by their numbers in torchvision's `vgg16().features`, with their input and output channels."""

TAPS = (2, 7, 14, 21, 28)
"""The convolutions after whose ReLU features are compared; all but the last are followed by max pooling."""

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Mean and standard deviation of the colours of pixels in [-1, 1] that LPIPS was fitted with."""

MIN_LPIPS_SIDE = 16
"""Side of the smallest images for LPIPS: four poolings leave one pixel."""

_NAMES = {
    re.compile(r"(?:.*\.)?(?:features|slice\d)\.(\d+)\.(weight|bias)"): "conv{}.{}",
    re.compile(r"(?:.*\.)?lin(?:s\.)?(\d)\.(?:model\.\d\.)?(weight)"): "lin{}.{}",
}
"""Names of weights in torchvision's VGG16 and in files of LPIPS -> their names here."""

BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)
"""Weights of the pyramid's low-pass filter along one axis (Burt & Adelson, 1983)."""

MAX_BANDS, MIN_BAND_SIDE = 6, 4
"""Largest number of bands of a pyramid, and the smallest side of a band in pixels."""

MIN_CONTRAST = 0.05
"""Added to the local contrast that a band is divided by, so that flat regions do not count."""


class Perceptual(nn.Module):
    """A perceptual distance of images, and its weight in a loss.

    It has no parameters, and its weights are not part of checkpoints.

    Args:
        weight: weight of the distance.
        weights: a file with the weights of VGG16 and of the five linear heads of LPIPS, or a list of files that contain
            them together; None for the pyramid.
        sha256: expected digest of these weights; None for any. A run records it.
        data_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.

    Raises:
        ValueError: the files are missing, do not contain these weights or have another digest, or LPIPS is not defined
            for these images.
    """

    note: str | None = None
    """What the distance is not; None for LPIPS."""

    def __init__(
        self,
        weight: NonNegativeFloat,
        weights: str | list[str] | None,
        sha256: str | None,
        data_shape: tuple[int, ...],
        levels: int | None = None,
    ) -> None:
        super().__init__()
        self.weight, self.resolved = weight, dict[str, Any]()
        self.distance: nn.Module
        if weights is None:
            self.distance, self.note = Pyramid(data_shape), f"perceptual distance: {Pyramid.name}, not LPIPS"
            self.note += "; LPIPS needs its weights, objective.perceptual.weights=<file>"
            return
        if levels is None:
            raise ValueError("LPIPS needs pixels in [0, 1] with levels; use preprocessing=none, or weights=null")
        paths = [Path(path).expanduser().absolute() for path in ([weights] if isinstance(weights, str) else weights)]
        state = read_weights(paths)
        digest = _digest(state)
        if sha256 not in (None, digest):
            raise ValueError(f"sha256 of the weights is {digest}, not {sha256}; restore the files of this run")
        self.distance = LPIPS(state, data_shape)
        self.resolved = {"weights": [str(path) for path in paths], "sha256": digest}

    @override
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Distances with shape `(N,)` of images in [0, 1] with shape `(N, C, H, W)`."""
        distance: Tensor = self.distance(x, y)
        return distance


class LPIPS(nn.Module):
    """The learned perceptual image patch similarity: a weighted distance of normalised activations of VGG16.

        d(x, y) = sum_l mean_hw sum_c w_lc (x̂_lchw - ŷ_lchw)²,    x̂_l = x_l / |x_l| over channels

    Zhang et al., 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, arXiv:1801.03924, eq. 1,
    where w² stands for these w.

    Args:
        state: the result of `read_weights`.
        data_shape: (C, H, W) of an image, with 1 or 3 channels.

    Raises:
        ValueError: the images are too small, or neither grey nor colour images.
    """

    def __init__(self, state: Mapping[str, Tensor], data_shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = data_shape
        if channels not in (1, 3) or min(height, width) < MIN_LPIPS_SIDE:
            least = f"{MIN_LPIPS_SIDE}x{MIN_LPIPS_SIDE}"
            raise ValueError(
                f"LPIPS needs images with 1 or 3 channels and at least {least} pixels, "
                f"not {channels} and {height}x{width}; use weights=null"
            )
        # Buffers, since parameters would be trained.
        for name, value in state.items():
            self.register_buffer(name.replace(".", "_"), value.float(), persistent=False)
        self.shift, self.scale = (
            nn.Buffer(torch.tensor(values).view(1, 3, 1, 1), persistent=False) for values in (SHIFT, SCALE)
        )

    @override
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Perceptual.forward`."""
        total = x.new_zeros(len(x))
        for layer, (a, b) in enumerate(zip(self._features(x), self._features(y), strict=True)):
            head = self.get_buffer(f"lin{layer}_weight").to(a.dtype)
            total = total + F.conv2d((a - b).square(), head).mean((1, 2, 3))
        return total

    def _features(self, x: Tensor) -> list[Tensor]:
        """The normalised activations of every tap, for images in [0, 1]."""
        h = ((2 * x - 1).expand(-1, 3, -1, -1) - self.shift.to(x.dtype)) / self.scale.to(x.dtype)
        features: list[Tensor] = []
        for number in CONVOLUTIONS:
            weight, bias = (self.get_buffer(f"conv{number}_{name}").to(x.dtype) for name in ("weight", "bias"))
            h = F.relu(F.conv2d(h, weight, bias, padding=1))
            if number in TAPS:
                # The square root of 0 has no gradient.
                features.append(h / (h.square().sum(1, keepdim=True) + 1e-20).sqrt())
                h = F.max_pool2d(h, 2) if number != TAPS[-1] else h
        return features


class Pyramid(nn.Module):
    """The distance of contrast-normalised bands of Laplacian pyramids.

        d(x, y) = sum_k mean (x̂_k - ŷ_k)²,    x̂_k = x_k / (c + local mean of |x_k|)

    x_k are the differences between an image and its low-pass at octave k; the last one is the coarsest low-pass itself,
    whose normalisation makes errors of colour count in dark regions, too. In the manner of Laparra et al., 2016,
    Perceptual Image Quality Assessment Using a Normalized Laplacian Pyramid, with constants of its own
    (doi:10.2352/ISSN.2470-1173.2016.16.HVEI-103).

    Args:
        data_shape: (C, H, W) of an image.
    """

    name = "normalised Laplacian pyramid"

    def __init__(self, data_shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = data_shape
        octaves = int(math.log2(max(min(height, width) / MIN_BAND_SIDE, 1)))
        self.bands = min(MAX_BANDS, octaves)
        row = torch.tensor(BINOMIAL) / sum(BINOMIAL)
        self.kernel = nn.Buffer(row.view(1, 1, 1, -1).expand(channels, -1, -1, -1).clone(), persistent=False)

    @override
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Perceptual.forward`."""
        total = x.new_zeros(len(x))
        for a, b in zip(self._normalized(x), self._normalized(y), strict=True):
            total = total + (a - b).square().mean((1, 2, 3))
        return total

    def _normalized(self, x: Tensor) -> list[Tensor]:
        bands: list[Tensor] = []
        for _ in range(self.bands):
            low = self._blurred(x)
            bands.append(x - low)
            x = low[..., ::2, ::2]
        return [band / (MIN_CONTRAST + self._blurred(band.abs())) for band in [*bands, x]]

    def _blurred(self, x: Tensor) -> Tensor:
        kernel, channels = self.kernel.to(x.dtype), x.shape[1]
        x = F.conv2d(F.pad(x, (2, 2, 0, 0), mode="replicate"), kernel, groups=channels)
        return F.conv2d(F.pad(x, (0, 0, 2, 2), mode="replicate"), kernel.transpose(-1, -2), groups=channels)


def read_weights(paths: Sequence[Path]) -> dict[str, Tensor]:
    """Reads the weights of LPIPS from state dicts, which together contain VGG16 and the five linear heads.

    The names may be those of torchvision (`features.0.weight`, …; a classifier is ignored) and of published files of
    LPIPS (`lin0.model.1.weight`, …), with any prefix.

    Returns:
        "conv0.weight", "conv0.bias", … and "lin0.weight", …, on the CPU.

    Raises:
        ValueError: a file cannot be read, or weights are missing or have another shape.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        for key, value in _read(path).items():
            for pattern, name in _NAMES.items():
                if (match := pattern.fullmatch(str(key))) and isinstance(value, Tensor):
                    found[name.format(*match.groups())] = value
    shapes = _shapes()
    files = " and ".join(map(str, paths))
    for name, shape in shapes.items():
        if name not in found:
            part = "VGG16 (features.*)" if name.startswith("conv") else "the linear heads (lin0 to lin4)"
            raise ValueError(f"{files}: LPIPS also needs the weights of {part}; weights=[<file>,<file>] reads several")
        if tuple(found[name].shape) != shape:
            raise ValueError(f"{files}: {name} has the shape {list(found[name].shape)}, LPIPS needs {list(shape)}")
    return {name: found[name] for name in shapes}


def _shapes() -> dict[str, tuple[int, ...]]:
    """The names and shapes of all weights of LPIPS."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (inputs, outputs) in CONVOLUTIONS.items():
        shapes |= {f"conv{number}.weight": (outputs, inputs, 3, 3), f"conv{number}.bias": (outputs,)}
    return shapes | {f"lin{layer}.weight": (1, CONVOLUTIONS[tap][1], 1, 1) for layer, tap in enumerate(TAPS)}


def _read(path: Path) -> Mapping[str, Any]:
    state = read_state_dict(path, "LPIPS")
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict):
        raise ValueError(f"{path} is not a state dict")
    return state


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights as float32, whatever file they come from."""
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + value.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()
