"""Reads weights of published networks from files, which are not trusted."""

import warnings
from pathlib import Path
from typing import Any

import torch


def read_state_dict(path: Path, network: str) -> Any:
    """Reads a file of weights on the CPU, without running code that it contains.

    Args:
        path: the file.
        network: the network that it should contain the weights of, for messages.

    Returns:
        The content, usually a dict of tensors by name.

    Raises:
        ValueError: the file is missing, or contains anything but tensors and plain containers.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; it should contain the weights of {network}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # meant for the file's author
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises errors of any kind
        raise ValueError(f"{path} contains no weights that can be loaded safely") from error
