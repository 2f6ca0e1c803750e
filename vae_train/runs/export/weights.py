"""Weights as safetensors files, which are read without executing code."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn


def write_weights(module: nn.Module, path: Path, about: Mapping[str, str]) -> None:
    """Writes the state of a module.

    Args:
        module: the module.
        path: the file.
        about: metadata in the file's header.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.torch import save

    # `save_file` of that package makes a file that only its owner may read.
    path.write_bytes(save(_contiguous(module), {"format": "pt", **about}))


def _contiguous(module: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors; those of a module may share memory or be channels last, which the format lacks."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
