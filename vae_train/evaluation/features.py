"""What sets of images are compared by: the activations of a network, which must be named beside every figure.

A Fréchet distance is called FID where the features are those of Inception (`InceptionFeatures`), and nowhere else.
Without its weights there are the features of a classifier of the data's own labels (`LabelFeatures`), or those of a
network that nobody trained (`RandomFeatures`), which still tell models of the same data apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.stream import Stream
from vae_train.rng import generator
from vae_train.util.errors import UsageError

SIZE = 128
"""d of the networks that are made here: few enough for the covariance of some thousand images."""

CHANNELS = (16, 32, 64)
"""Of their convolutions, each of which halves the image."""

SIDE = 4
"""Pixels that are left of each side at most."""

CHUNK, INCEPTION_CHUNK = 512, 32
"""Images that go through a network at a time."""

STEPS, BATCH = 1000, 128
"""Of a classifier's training: two passes over MNIST."""

INCEPTION_SIDE = 299
TENSORFLOW_CLASSES = 1008
"""Of the network that FID was defined with; the weights that torchvision publishes have 1000."""


class Features(Protocol):
    """Images -> features."""

    name: str
    """What the features are, in words that stand beside a figure."""

    def __call__(self, x: Tensor) -> Tensor:
        """Maps images `(N, C, H, W)` in [0, 1] to features `(N, d)`, in float64 on the CPU."""
        ...


class RandomFeatures(Features):
    """A convolutional network with fixed random weights (He et al., 2015, arXiv:1502.01852, eq. 10).

    Args:
        shape: (C, H, W) of an image.
        seed: decides the weights.
        device: where the network computes.
    """

    def __init__(self, shape: tuple[int, ...], seed: int = 0, device: torch.device | str = "cpu") -> None:
        self.name = f"random conv features (seed {seed})"
        self.device = torch.device(device)
        self.net = _network(shape, SIZE, seed).requires_grad_(False).to(self.device)

    @override
    def __call__(self, x: Tensor) -> Tensor:
        return _in_chunks(self.net, x, CHUNK, self.device)


class LabelFeatures(Features):
    """What a small classifier of the data's own labels computes before its last layer.

    It is trained here, by Adam on the cross-entropy of the labels of the training images: a function of the seed on a
    CPU, up to rounding elsewhere.

    Args:
        data: a data set with labels, loaded; the first of them is learnt.
        seed: decides the initial weights and the order of the images.
        device: where the network computes; the data was loaded for it.
        steps: batches of `BATCH` images that it is trained on.

    Raises:
        UsageError: the data has no labels.
    """

    def __init__(self, data: Dataset, seed: int = 0, device: torch.device | str = "cpu", *, steps: int = STEPS) -> None:
        self.name = f"features of a classifier of this data's labels (seed {seed})"
        self.device = torch.device(device)
        if data.classes is None:
            raise UsageError(f"{type(data).__name__} has no labels to train a feature network on")
        self.net = _network(tuple(data.shape), SIZE, seed).to(self.device)
        last = _initialized(nn.Sequential(_empty(nn.Linear, SIZE, data.classes)), seed, "last").to(self.device)
        with torch.enable_grad():
            _train(nn.Sequential(self.net, last), data, seed, steps, self.device)
        self.net.requires_grad_(False)

    @override
    def __call__(self, x: Tensor) -> Tensor:
        return _in_chunks(self.net, x, CHUNK, self.device)


class InceptionFeatures(Features):
    """The 2,048 averages before the last layer of Inception v3 (Szegedy et al., 2015, arXiv:1512.00567), for FID.

    Images are resized to 299 x 299 bilinearly, with antialiasing where they are larger; grey is repeated. The file may
    hold the weights that FID was defined with, as they were ported to PyTorch (pt_inception-2015-12-05, 1,008 classes):
    figures then compare with published ones but for the resizing, in which programs differ (Parmar et al., 2022,
    arXiv:2104.11222). With torchvision's own weights (1,000 classes) they do not; `name` says which.

    Args:
        path: a state dict of torchvision's `inception_v3`, with or without the auxiliary classifier.
        device: where the network computes.

    Raises:
        UsageError: the file is missing or holds something else.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        state = _weights(Path(path))
        self.comparable = len(state["fc.bias"]) == TENSORFLOW_CLASSES
        """Whether FID can be compared with published figures."""
        origin = "TensorFlow's weights of 2015" if self.comparable else "torchvision's weights, not those of papers"
        self.name = f"Inception v3 features ({origin})"
        self.net = _inception(state, Path(path)).to(self.device)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Features.__call__`.

        Raises:
            UsageError: the images have neither one channel nor three.
        """
        if x.shape[1] not in (1, 3):
            raise UsageError(f"Inception features are for images with 1 or 3 channels, not {x.shape[1]}")
        return _in_chunks(lambda part: self.net(_resized(part)), x, INCEPTION_CHUNK, self.device)


@torch.no_grad()
def _in_chunks(net: Callable[[Tensor], Tensor], x: Tensor, size: int, device: torch.device) -> Tensor:
    return torch.cat([net(part.float().to(device) * 2 - 1).cpu().double() for part in x.split(size)])


def _network(shape: tuple[int, ...], size: int, seed: int) -> nn.Sequential:
    """Convolutions with stride 2 and a linear layer, for images `(N, *shape)` in [-1, 1]."""
    channels, *sides = shape
    layers: list[nn.Module] = []
    for width in CHANNELS:
        layers += [_empty(nn.Conv2d, channels, width, 3, stride=2, padding=1), nn.ReLU()]
        channels, sides = width, [-(-side // 2) for side in sides]
    left = [min(side, SIDE) for side in sides]
    layers += [nn.AdaptiveAvgPool2d((left[0], left[1])), nn.Flatten()]
    layers += [_empty(nn.Linear, channels * left[0] * left[1], size), nn.ReLU()]
    return _initialized(nn.Sequential(*layers), seed, "convolutions")


def _empty(layer: Callable[..., nn.Module], *args: int, **options: int) -> nn.Module:
    """A layer whose weights have no values yet: drawing them would use PyTorch's global generator."""
    return layer(*args, **options, device="meta").to_empty(device="cpu")


@torch.no_grad()
def _initialized(net: nn.Sequential, seed: int, part: str) -> nn.Sequential:
    source = generator(seed, "features", part)
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=source)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return net


def _train(classifier: nn.Module, data: Dataset, seed: int, steps: int, device: torch.device) -> None:
    images = data.split("train")
    assert images is not None
    stream = Stream(images, min(BATCH, len(images)), seed=seed, device=device)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for step in range(steps):
        batch = images.fetch(stream.index(step))  # without a draw: grey values, as those of samples
        assert batch.y is not None
        loss = F.cross_entropy(classifier(data.to_pixels(batch.x) * 2 - 1), batch.y[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _resized(x: Tensor) -> Tensor:
    """Images as Inception takes them, `(N, 3, 299, 299)`."""
    side = (INCEPTION_SIDE, INCEPTION_SIDE)
    return F.interpolate(x, side, mode="bilinear", antialias=True).expand(-1, 3, -1, -1)


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file; Inception's weights were to be read from it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they advise what nobody here can do
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met
        raise UsageError(f"{path}: holds no weights ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or not isinstance(state.get("fc.bias"), Tensor) or state["fc.bias"].ndim != 1:
        raise UsageError(f"{path}: holds no state dict of torchvision's inception_v3")
    return state


def _inception(state: dict[str, Tensor], path: Path) -> nn.Module:
    """Inception v3 with the weights `state`, up to its last layer: `(N, 3, 299, 299)` -> `(N, 2048)`."""
    from torchvision.models import inception_v3

    num_classes, auxiliary = len(state["fc.bias"]), any(key.startswith("AuxLogits.") for key in state)
    with torch.device("meta"):  # its initial weights would be drawn from PyTorch's global generator
        net = inception_v3(weights=None, init_weights=False, num_classes=num_classes, aux_logits=auxiliary)
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(f"{path}: does not fit torchvision's inception_v3 ({reason[:200]})") from error
    net.AuxLogits, net.fc = None, nn.Identity()
    if num_classes == TENSORFLOW_CLASSES:
        _pool_as_tensorflow(net)
    return net.float().eval().requires_grad_(False)


def _pool_as_tensorflow(net: nn.Module) -> None:
    """Gives the blocks the pooling of the network that FID was defined with.

    Its averages leave the padding out, and its last block takes the maximum, which no paper has but the weights expect.
    """
    for name, block in net.named_children():
        if name.startswith("Mixed_") and hasattr(block, "branch_pool"):
            block.register_forward_hook(_repool(_maximum if name == "Mixed_7c" else _average))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _repool(pool: Callable[[Tensor], Tensor]) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    """A hook that computes a block's last branch again with other pooling; its small convolution is done twice."""

    def hook(block: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        branch = block.branch_pool(pool(inputs[0]))
        return torch.cat([output[:, : -branch.shape[1]], branch], 1)

    return hook
