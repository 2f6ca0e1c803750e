"""Features of images: network activations for comparing sets of images.

FID is defined with Inception (`InceptionFeatures`). Without its weights, features of a classifier of the data's own
labels (`LabelFeatures`) or of a random network (`RandomFeatures`) can still rank models of the same data.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.data.dataset import Dataset
from vae_train.data.stream import Stream
from vae_train.rng import generator
from vae_train.util.errors import UsageError
from vae_train.util.state_dicts import read_state_dict

FEATURE_DIM = 128
"""Dimension d of the features; small enough to estimate a covariance from some thousand images."""

CHANNELS = (16, 32, 64)
"""Channels of the convolutions, each of which halves the image."""

MAX_POOLED_SIDE = 4
"""Side of the last feature map in pixels."""

CHUNK_IMAGES = 512
"""Images per pass through a network."""

CLASSIFIER_STEPS, CLASSIFIER_BATCH_SIZE = 1000, 128
"""About two passes over MNIST."""

INCEPTION_SIDE = 299
"""Side of Inception's input images in pixels."""

INCEPTION_CHUNK_IMAGES = 32
"""Images per pass through Inception."""

TENSORFLOW_CLASSES = 1008
"""Number of classes of the network that defines FID; torchvision's weights have 1000."""


class Features:
    """A network that maps images to features.

    Args:
        name: description of the features for the report.
        net: maps images in [-1, 1] to features.
        device: device of the network.
    """

    is_fid = False
    """Whether a Fréchet distance of these features is FID, comparable with published values."""

    def __init__(self, name: str, net: nn.Module, device: torch.device | str) -> None:
        self.name, self.device = name, torch.device(device)
        self.net = net.requires_grad_(False).to(self.device)

    def __call__(self, x: Tensor) -> Tensor:
        """Maps images `(N, C, H, W)` in [0, 1] to features `(N, d)`, in float64 on the CPU."""
        return in_chunks(self.net, x, CHUNK_IMAGES, self.device)


class RandomFeatures(Features):
    """A convolutional network with fixed random weights (He et al., 2015, arXiv:1502.01852, eq. 10).

    Args:
        shape: (C, H, W) of an image.
        seed: seed of the weights.
        device: device of the network.
    """

    def __init__(self, shape: tuple[int, ...], seed: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__(f"random conv features (seed {seed})", _network(shape, seed), device)


class LabelFeatures(Features):
    """Penultimate activations of a small classifier of the data's own labels.

    The classifier is trained by Adam on the training images. On a CPU it is a function of the
    seed, elsewhere up to rounding.

    Args:
        data: a loaded data set with labels, of which the first column is used.
        seed: seed of the initial weights and the order of the images.
        device: device of the network and the data.
        steps: training steps, with `CLASSIFIER_BATCH_SIZE` images each.

    Raises:
        UsageError: the data has no labels.
    """

    def __init__(
        self, data: Dataset, seed: int = 0, device: torch.device | str = "cpu", *, steps: int = CLASSIFIER_STEPS
    ) -> None:
        if data.facts.classes is None:
            raise UsageError("the data has no labels to train a feature network on")
        net = _network(tuple(data.facts.data_shape), seed).to(device)
        with torch.device("meta"):
            last = nn.Sequential(nn.Linear(FEATURE_DIM, data.facts.classes))
        with torch.enable_grad():
            _train(nn.Sequential(net, _initialized(last, seed, "last").to(device)), data, seed, steps, device)
        super().__init__(f"features of a classifier of this data's labels (seed {seed})", net, device)


@torch.no_grad()
def in_chunks(net: Callable[[Tensor], Tensor], x: Tensor, size: int, device: torch.device) -> Tensor:
    """Applies a network to images in [0, 1], rescaled to [-1, 1], in chunks of `size`."""
    return torch.cat([net(chunk.float().to(device) * 2 - 1).cpu().double() for chunk in x.split(size)])


def _network(shape: tuple[int, ...], seed: int) -> nn.Sequential:
    """Builds convolutions with stride 2 and a linear layer, for images `(N, *shape)` in [-1, 1]."""
    channels, *sides = shape
    net = nn.Sequential()
    with torch.device("meta"):
        for width in CHANNELS:
            net.extend([nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU()])
            channels, sides = width, [-(-side // 2) for side in sides]
        height, width = (min(side, MAX_POOLED_SIDE) for side in sides)
        net.extend([nn.AdaptiveAvgPool2d((height, width)), nn.Flatten()])
        net.extend([nn.Linear(channels * height * width, FEATURE_DIM), nn.ReLU()])
    return _initialized(net, seed, "convolutions")


@torch.no_grad()
def _initialized(net: nn.Sequential, seed: int, part: str) -> nn.Sequential:
    """Initialises a network from the meta device, since PyTorch's own initialisation uses its global generator."""
    source = generator(seed, "features", part)
    for layer in net.to_empty(device="cpu"):
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=source)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return net


def _train(classifier: nn.Module, data: Dataset, seed: int, steps: int, device: torch.device | str) -> None:
    images = data.split("train")
    assert images is not None
    stream = Stream(images, min(CLASSIFIER_BATCH_SIZE, len(images)), seed=seed, device=device)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for step in range(steps):
        batch = images.fetch(stream.index(step))  # without binarisation, like samples
        assert batch.y is not None
        loss = F.cross_entropy(classifier(data.to_pixels(batch.x) * 2 - 1), batch.y[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class InceptionFeatures(Features):
    """The 2,048 averages before the last layer of Inception v3 (Szegedy et al., 2015, arXiv:1512.00567), for FID.

    Images are resized to 299 x 299 bilinearly, with antialiasing when shrunk; grey channels are repeated. The file may
    contain the weights that define FID, ported to PyTorch (pt_inception-2015-12-05, 1,008 classes): distances are then
    comparable with published ones, except for the resizing, which varies (Parmar et al., "On Aliased Resizing and
    Surprising Subtleties in GAN Evaluation", arXiv:2104.11222). With torchvision's own weights (1,000 classes) they are
    not; `name` says which.

    Args:
        path: file with a state dict of torchvision's `inception_v3`, with or without the auxiliary classifier.
        device: device of the network.

    Raises:
        UsageError: the file is missing or does not contain these weights.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        state = _weights(Path(path))
        self.is_fid = len(state["fc.bias"]) == TENSORFLOW_CLASSES
        origin = "TensorFlow's weights of 2015" if self.is_fid else "torchvision's weights, not those of published FIDs"
        super().__init__(f"Inception v3 features ({origin})", _inception(state, Path(path)), device)

    @override
    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise UsageError(f"Inception features need images with 1 or 3 channels, not {x.shape[1]}")
        return in_chunks(self._resized_features, x, INCEPTION_CHUNK_IMAGES, self.device)

    def _resized_features(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, (INCEPTION_SIDE, INCEPTION_SIDE), mode="bilinear", antialias=True)
        features: Tensor = self.net(x.expand(-1, 3, -1, -1))
        return features


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        state = read_state_dict(path, "Inception v3")
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not isinstance(state, dict) or not isinstance(state.get("fc.bias"), Tensor) or state["fc.bias"].ndim != 1:
        raise UsageError(f"{path} is not a state dict of torchvision's inception_v3")
    return state


def _inception(state: dict[str, Tensor], path: Path) -> nn.Module:
    """Builds Inception v3 without its last layer: `(N, 3, 299, 299)` -> `(N, 2048)`."""
    from torchvision.models import inception_v3

    num_classes, auxiliary = len(state["fc.bias"]), any(key.startswith("AuxLogits.") for key in state)
    with torch.device("meta"):  # initial weights would use PyTorch's global generator
        net = inception_v3(weights=None, init_weights=False, num_classes=num_classes, aux_logits=auxiliary)
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UsageError(f"{path} does not fit torchvision's inception_v3 ({reason[:200]})") from error
    net.AuxLogits, net.fc = None, nn.Identity()
    if num_classes == TENSORFLOW_CLASSES:
        _pool_as_tensorflow(net)
    return net.float().eval()


def _pool_as_tensorflow(net: nn.Module) -> None:
    """Replaces the pooling of the blocks by that of the network that defines FID.

    Its averages exclude the padding, and its last block uses max pooling, which no paper mentions but the weights
    expect.
    """
    for name, block in net.named_children():
        if name.startswith("Mixed_") and hasattr(block, "branch_pool"):
            block.register_forward_hook(partial(_repool, name == "Mixed_7c"))


def _repool(maximum: bool, block: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A forward hook that recomputes a block's last branch with other pooling."""
    pool = F.max_pool2d if maximum else partial(F.avg_pool2d, count_include_pad=False)
    branch = block.branch_pool(pool(inputs[0], 3, stride=1, padding=1))
    return torch.cat([output[:, : -branch.shape[1]], branch], 1)
