"""What a training computed, and how it is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

STORED = Path(__file__).with_name("losses.json")


class Result(NamedTuple):
    """What a configuration's training computed: every metric at every step, and digests at the end."""

    metrics: dict[str, list[float]]
    weights: str
    state: str


def digest(tensors: Iterable[Tensor]) -> str:
    """SHA-256 over the sorted hashes of the tensors: independent of their names and of their order."""
    hashes = []
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        header = f"{values.dtype} {tuple(values.shape)} ".encode()
        hashes.append(hashlib.sha256(header + values.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest())
    return hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()


def write(results: dict[str, Result], path: Path) -> None:
    """Writes results as JSON, floats in hexadecimal so that every bit is kept."""
    plain = {}
    for name, result in results.items():
        metrics = {metric: " ".join(map(float.hex, values)) for metric, values in result.metrics.items()}
        plain[name] = {**result._asdict(), "metrics": metrics}
    path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Result]:
    """The inverse of `write`."""
    results = {}
    for name, plain in json.loads(path.read_text(encoding="utf-8")).items():
        metrics = {metric: list(map(float.fromhex, text.split())) for metric, text in plain["metrics"].items()}
        results[name] = Result(**{**plain, "metrics": metrics})
    return results
