"""How this process uses the machine: devices, threads, memory, number formats."""

import ctypes
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Literal

import torch

from vae_train.util.errors import ErrorDetail

Precision = Literal["float32", "tf32", "bfloat16"]

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a Linux container says how much processor time it is allowed: "max 100000" or "200000 100000"."""

MEMORY = Path("/proc/meminfo")
"""Where Linux says how much memory is available."""

CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
"""Where a Linux container says how much memory it is allowed."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30


def prepare(threads: int | None = None, precision: Precision = "float32") -> None:
    """Sets the process up for training or evaluation, once and before the first tensor is made.

    Args:
        threads: CPU threads of one operation; None takes PyTorch's choice, but no more than `cores`.
        precision: "tf32" lets CUDA round the factors of float32 products to 10 bits; the others never do.
    """
    # Adam keeps averages of gradients that have died out (border pixels of MNIST). After some 700 steps they are below
    # 1e-38, where processors are slow: a step takes a fifth longer. Threads inherit the setting, so it comes first.
    torch.set_flush_denormal(True)
    # NumPy before 2.3 warns about it when it measures float types.
    warnings.filterwarnings("ignore", "The value of the smallest subnormal", UserWarning)
    keep_freed_memory()
    leave_the_compiler_alone()
    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    # PyTorch's own default rounds convolutions and not matrix products.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, else Apple's GPU, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_errors(name: str) -> list[ErrorDetail]:
    """Why the device `name` cannot be used here."""
    count, has_mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    try:
        device = resolve_device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        message = "unknown device; use auto, cpu, cuda, cuda:1 or mps"
    elif (device.type == "cuda" and not torch.cuda.is_available()) or (device.type == "mps" and not has_mps):
        kind = device.type.replace("cuda", "CUDA")
        message = f"no {kind} device is available; use device=auto or device=cpu"
    elif device.type == "cuda" and (device.index or 0) >= count:
        message = f"there are {count} CUDA devices, cuda:0 to cuda:{count - 1}"
    else:
        return []
    return [ErrorDetail(f"device={name}", message)]


def leave_the_compiler_alone() -> None:
    """Spares runs that do not compile the import of PyTorch's compiler, which takes as long as that of PyTorch.

    An optimiser imports it for one purpose: to tell it not to compile these methods. What is said here instead is what
    `torch._disable_dynamo` notes; where a version of PyTorch notes it elsewhere this has no effect.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dict__.setdefault("__dynamo_disable", method)


def busy_message(threads: int) -> str | None:
    """A warning that other work has the cores, on which OpenMP's threads wait for each other; None if it has not.

    Threads that spin while they wait are faster on an idle machine: without spinning a step of a small network takes
    1.6 times as long there. Beside other work they take ten times as long. The number of threads is left alone, since
    rounding depends on it.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads == 1 or load < cores():
        return None
    return f"other work uses the {cores()} cores (load {load:.1f}); threads=1 may be several times faster"


def cores() -> int:
    """Processor cores that this process may use: those that it is bound to, within the quota of its container.

    PyTorch counts the machine's; with more threads than cores every operation waits for the slowest.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = QUOTA.read_text().split()
        return bound if allowed == "max" else max(1, min(bound, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError):
        return bound


def available_memory() -> int:
    """Bytes of memory that this process may still take, within the limit of its container.

    Where the system does not say what is free, it is the memory of the machine.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else [sys.maxsize]
    try:
        free = next(line.split()[1] for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        limits.append(int(free) * 1024)
        allowed, used = (CONTAINER_MEMORY.with_name(f"memory.{name}").read_text() for name in ("max", "current"))
        limits.append(int(allowed) - int(used))
    except (OSError, ValueError, StopIteration):  # no Linux, no container, or "max"
        pass
    return max(0, min(limits))


def keep_freed_memory() -> None:
    """Tells the C library (glibc alone understands it) to hold on to memory that tensors have left.

    It would give large blocks back to the system after every use and take them anew, a page fault per 4 KiB: half the
    time of a step of a convolutional network on 64x64 images.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
    mallopt(_M_MMAP_THRESHOLD, _KEPT) or mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def emulated(precision: Precision, device: torch.device) -> str | None:
    """Why a precision is slower than float32 on this processor, in a line; None where it is not.

    Where oneDNN cannot multiply bfloat16, PyTorch converts every factor and falls back to plain loops.
    """
    if precision != "bfloat16" or device.type != "cpu":
        return None
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if supported is None or supported():
        return None
    return "precision=bfloat16: this processor has no instructions for it; float32 is several times faster here"


def memory_format(device: torch.device, precision: Precision) -> torch.memory_format:
    """The layout of convolutions' weights, which their inputs and outputs follow.

    Channels last is what oneDNN likes on a CPU and what the tensor cores of a GPU work on; plain float32 on a GPU does
    not use those.
    """
    if device.type == "cpu" or (device.type == "cuda" and precision != "float32"):
        return torch.channels_last
    return torch.contiguous_format
