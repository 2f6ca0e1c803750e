"""How much memory a process had. Imports nothing that would count."""

from __future__ import annotations

import sys
from pathlib import Path

STATUS = Path("/proc/self/status")


def most_resident() -> float:
    """The largest resident set of this process so far, in MiB."""
    if STATUS.exists():
        # getrusage would count what the parent had when it started this process.
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)
