"""Inception features, which FID is defined with."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.evaluation.features import Features, in_chunks
from vae_train.util.errors import UsageError

INCEPTION_SIDE = 299
CHUNK_IMAGES = 32
"""Images that go through the network at a time."""

TENSORFLOW_CLASSES = 1008
"""Of the network that FID was defined with; the weights that torchvision publishes have 1000."""


class InceptionFeatures(Features):
    """The 2,048 averages before the last layer of Inception v3 (Szegedy et al., 2015, arXiv:1512.00567), for FID.

    Images are resized to 299 x 299 bilinearly, with antialiasing when shrunk; grey is repeated. The file may hold the
    weights that FID was defined with, as they were ported to PyTorch (pt_inception-2015-12-05, 1,008 classes):
    distances then compare with published ones, except for the resizing, in which programs differ (Parmar et al., "On
    Aliased Resizing and Surprising Subtleties in GAN Evaluation", arXiv:2104.11222). With torchvision's own weights
    (1,000 classes) they do not; `name` says which.

    Args:
        path: a state dict of torchvision's `inception_v3`, with or without the auxiliary classifier.
        device: where the network computes.

    Raises:
        UsageError: the file is missing or holds something else.
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        state = _weights(Path(path))
        self.is_fid = len(state["fc.bias"]) == TENSORFLOW_CLASSES
        origin = "TensorFlow's weights of 2015" if self.is_fid else "torchvision's weights, not those of papers"
        super().__init__(f"Inception v3 features ({origin})", _inception(state, Path(path)), device)

    @override
    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[1] not in (1, 3):
            raise UsageError(f"Inception features are for images with 1 or 3 channels, not {x.shape[1]}")
        return in_chunks(self._resized_features, x, CHUNK_IMAGES, self.device)

    def _resized_features(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, (INCEPTION_SIDE, INCEPTION_SIDE), mode="bilinear", antialias=True)
        features: Tensor = self.net(x.expand(-1, 3, -1, -1))
        return features


def _weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UsageError(f"{path}: no such file; it should hold the weights of Inception v3")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are addressed to the file's author
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler raised
        raise UsageError(f"{path} holds no weights ({str(error).splitlines()[0]})") from error
    if not isinstance(state, dict) or not isinstance(state.get("fc.bias"), Tensor) or state["fc.bias"].ndim != 1:
        raise UsageError(f"{path} holds no state dict of torchvision's inception_v3")
    return state


def _inception(state: dict[str, Tensor], path: Path) -> nn.Module:
    """Builds Inception v3 without its last layer: `(N, 3, 299, 299)` -> `(N, 2048)`."""
    from torchvision.models import inception_v3

    num_classes, auxiliary = len(state["fc.bias"]), any(key.startswith("AuxLogits.") for key in state)
    with torch.device("meta"):  # its initial weights would be drawn from PyTorch's global generator
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
    """Gives the blocks the pooling of the network that FID was defined with.

    Its averages exclude the padding, and its last block takes the maximum, which is in no paper but the weights expect.
    """
    for name, block in net.named_children():
        if name.startswith("Mixed_") and hasattr(block, "branch_pool"):
            block.register_forward_hook(partial(_repool, name == "Mixed_7c"))


def _repool(maximum: bool, block: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Recomputes a block's last branch with other pooling, as a forward hook."""
    pool = F.max_pool2d if maximum else partial(F.avg_pool2d, count_include_pad=False)
    branch = block.branch_pool(pool(inputs[0], 3, stride=1, padding=1))
    return torch.cat([output[:, : -branch.shape[1]], branch], 1)
