"""What constructors receive from the program and not from a configuration, by the name of the parameter."""

from pathlib import Path
from typing import NamedTuple


class RunFacts(NamedTuple):
    """Facts about a run that only the program knows."""

    seed: int
    epochs: int
    steps_per_epoch: float
    """Optimiser steps in an epoch; may be fractional."""
    folder: Path | None = None
    """Where loggers write."""
    step: int = 0
    """Steps that were taken before this process, where a run is resumed."""
