"""The peak memory of this process. Imports nothing that would count."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_resident() -> float:
    """The largest resident set of this process so far, in MiB."""
    if STATUS.exists():
        # getrusage would count what the parent had when it started this process.
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
