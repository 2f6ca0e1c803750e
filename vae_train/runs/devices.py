"""Names of devices -> devices, or why there is no such device on this machine."""

import torch

from vae_train.util.errors import ErrorDetail

UNKNOWN = "unknown device; use auto, cpu, cuda, cuda:1 or mps"


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, else Apple's GPU, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_errors(name: str) -> list[ErrorDetail]:
    """Why the device `name` cannot be used here."""
    message = None if name == "auto" else _device_error(name)
    return [ErrorDetail(f"device={name}", message)] if message else []


def _device_error(name: str) -> str | None:
    try:
        device = torch.device(name)
    except RuntimeError:
        return UNKNOWN
    if device.type == "cuda":
        if not torch.cuda.is_available():
            return "no CUDA device is available; use device=auto or device=cpu"
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            return f"there are {count} CUDA devices, cuda:0 to cuda:{count - 1}"
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            return "no mps device is available; use device=auto or device=cpu"
    elif device.type != "cpu":
        return UNKNOWN
    return None
