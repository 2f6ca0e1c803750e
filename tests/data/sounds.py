"""Audio files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE = 1000


def tone(seconds: float, frequency: float = 10.0, rate: int = RATE) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, **options)
    return path


def fill(root: Path, count: int = 10, seconds: float = 0.2) -> Path:
    for number in range(count):
        write(root / f"{number:02d}.wav", tone(seconds, 5 + number))
    return root
