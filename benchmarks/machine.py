"""The kind of machine and its software, without anything that identifies a single machine."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any


def software() -> dict[str, Any]:
    """What PyTorch sees; runs in a child process, so that the parent need not start CUDA."""
    import torch

    from vae_train.util.runtime import cores

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    return {"gpu": gpu, "cores": cores(), "threads": min(torch.get_num_threads(), cores()), **versions}


def describe(software: dict[str, Any], device: str, threads: int, cpu: str | None = None) -> dict[str, Any]:
    """The machine's description in a results file.

    Args:
        software: what `software` returned.
        device: the measured device, "cpu" or "cuda".
        threads: PyTorch's threads.
        cpu: name of the processor; None asks the system.
    """
    cpu = cpu or cpu_name()
    cores = software["cores"]
    kind = f"cpu {cores} cores {cpu}" if device == "cpu" else software["gpu"]
    return {
        "kind": slug(kind),
        "device": device,
        "cpu": cpu,
        "gpu": software["gpu"] if device == "cuda" else None,
        "cores": cores,
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        **{name: software[name] for name in ("python", "torch", "cuda")},
    }


def slug(name: str) -> str:
    """A name as part of a file name."""
    return re.sub("[^a-z0-9]+", "-", re.sub(r"\((R|TM)\)", "", name).lower()).strip("-")


def cpu_name() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
