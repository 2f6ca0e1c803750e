"""Set-up of this process: devices, threads, memory and number formats."""

import ctypes
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Literal

import torch

from vae_train.util.errors import ErrorDetail
from vae_train.util.text import size

Precision = Literal["float32", "tf32", "bfloat16"]

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""CPU quota of a Linux container: "max 100000" or "200000 100000"."""

MEMORY = Path("/proc/meminfo")
"""Available memory on Linux."""

CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
"""Memory limit of a Linux container."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_RETAINED_BYTES = 1 << 30


def prepare(threads: int | None = None, precision: Precision = "float32") -> None:
    """Sets up the process for training or evaluation, once and before the first tensor is created.

    Args:
        threads: CPU threads of one operation; None for PyTorch's choice, but at most `cores`.
        precision: "tf32" lets CUDA round the factors of float32 products to 10 bits.
    """
    # Adam's averages of vanished gradients (border pixels of MNIST) decay. After some 700 steps they are below
    # 1e-38, where processors are slow: a step takes a fifth longer. Threads inherit this setting, so it comes first.
    torch.set_flush_denormal(True)
    # NumPy before 2.3 warns about it when it inspects float types.
    warnings.filterwarnings("ignore", "The value of the smallest subnormal", UserWarning)
    keep_freed_memory()
    avoid_compiler_import()
    torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    # PyTorch's default rounds in convolutions, but not in matrix products.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"


def resolve_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA, else Apple's GPU, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def device_errors(name: str) -> list[ErrorDetail]:
    """Reports why the device `name` cannot be used."""
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


def avoid_compiler_import() -> None:
    """Avoids the import of PyTorch's compiler, which takes as long as that of PyTorch, in runs that do not compile.

    Optimisers import it only to mark these methods as not compilable. This function sets the same mark as
    `torch._disable_dynamo`; it has no effect in PyTorch versions with another mark.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:
            method.__dict__.setdefault("__dynamo_disable", method)


def busy_message(threads: int) -> str | None:
    """A warning if other processes occupy the cores, which makes OpenMP's threads wait for each other; else None.

    Spinning threads are faster on an idle machine, where a step of a small network takes 1.6 times as long without
    spinning, but ten times as slow on a busy one. The number of threads is not changed, since rounding
    depends on it.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads == 1 or load < cores():
        return None
    return f"other processes use the {cores()} cores (load {load:.1f}); threads=1 may be several times faster"


def cores() -> int:
    """Number of CPU cores that this process may use, by its affinity and the quota of its container.

    PyTorch counts all cores of the machine. With more threads than cores, every operation waits for the slowest.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        allowed, period = QUOTA.read_text().split()
        return bound if allowed == "max" else max(1, min(bound, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError):
        return bound


def available_memory() -> int:
    """Bytes of memory that this process may still allocate, within the limit of its container.

    Falls back to the memory of the machine.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else [sys.maxsize]
    try:
        free = next(line.split()[1] for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable:"))
        limits.append(int(free) * 1024)
        allowed, used = (CONTAINER_MEMORY.with_name(f"memory.{name}").read_text() for name in ("max", "current"))
        limits.append(int(allowed) - int(used))
    except (OSError, ValueError, StopIteration):  # not Linux, no container, or "max"
        pass
    return max(0, min(limits))


def memory_shortage(needed: int, how: str = "", processes: int = 1) -> str | None:
    """Why memory does not suffice, for a message; None if it does.

    Args:
        needed: bytes.
        how: what needs them, for instance "to be decoded".
        processes: number of processes that need as much at the same time.
    """
    available = available_memory() // processes
    if needed <= available:
        return None
    return f"needs {size(needed)} of memory{how and f' {how}'}, but only {size(available)} are available"


def keep_freed_memory() -> None:
    """Tells the C library (glibc only) to keep freed memory for reuse.

    By default it returns large blocks to the system after every use; page faults at reallocation took half the
    time of a step of a convolutional network on 64x64 images.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(_M_TRIM_THRESHOLD, _RETAINED_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _RETAINED_BYTES) or mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def emulated(precision: Precision, device: torch.device) -> str | None:
    """Warns if a precision is emulated, and slower than float32, on this processor; else None.

    If oneDNN does not support bfloat16, PyTorch converts every factor and falls back to plain loops.
    """
    if precision != "bfloat16" or device.type != "cpu":
        return None
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    if supported is None or supported():
        return None
    return "precision=bfloat16: this processor has no instructions for it; float32 is several times faster here"


def memory_format(device: torch.device, precision: Precision) -> torch.memory_format:
    """The memory layout of convolution weights, which inputs and outputs follow.

    oneDNN on CPUs and the tensor cores of GPUs prefer channels last; plain float32 on a GPU does
    not use tensor cores.
    """
    if device.type == "cpu" or (device.type == "cuda" and precision != "float32"):
        return torch.channels_last
    return torch.contiguous_format
