"""Features of images: activations of a network by which sets of images are compared.

Without the weights of Inception (`vae_train.evaluation.inception`), the features of a classifier of the data's own
labels (`LabelFeatures`) or of a random network (`RandomFeatures`) still tell models of the same data apart.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vae_train.data.dataset import Dataset
from vae_train.data.stream import Stream
from vae_train.rng import generator
from vae_train.util.errors import UsageError

FEATURE_DIM = 128
"""d of the networks here: few enough for the covariance of some thousand images."""

CHANNELS = (16, 32, 64)
"""Of the convolutions, each of which halves the image."""

MAX_POOLED_SIDE = 4
"""Pixels on each side of the last feature map."""

CHUNK_IMAGES = 512
"""Images that go through a network at a time."""

CLASSIFIER_STEPS, CLASSIFIER_BATCH_SIZE = 1000, 128
"""Two passes over MNIST."""


class Features:
    """A network that maps images to features.

    Args:
        name: what the features are, for the report.
        net: maps images in [-1, 1] to features.
        device: where the network computes.
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
        seed: decides the weights.
        device: where the network computes.
    """

    def __init__(self, shape: tuple[int, ...], seed: int = 0, device: torch.device | str = "cpu") -> None:
        super().__init__(f"random conv features (seed {seed})", _network(shape, seed), device)


class LabelFeatures(Features):
    """Penultimate activations of a small classifier of the data's own labels.

    It is trained here, by Adam on the cross-entropy of the labels of the training images: a function of the seed on a
    CPU, up to rounding elsewhere.

    Args:
        data: a data set with labels, loaded; the first of them is learnt.
        seed: decides the initial weights and the order of the images.
        device: where the network computes; the data was loaded for it.
        steps: batches of `CLASSIFIER_BATCH_SIZE` images that it is trained on.

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
    """Maps images in [0, 1], rescaled to [-1, 1], `size` at a time."""
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
    """Initialises a network on the meta device: PyTorch's own initialisation uses its global generator."""
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
        batch = images.fetch(stream.index(step))  # without noise: grey values, like those of samples
        assert batch.y is not None
        loss = F.cross_entropy(classifier(data.to_pixels(batch.x) * 2 - 1), batch.y[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
