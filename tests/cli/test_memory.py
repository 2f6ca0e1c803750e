"""Missing memory is said, and not that files are damaged or settings wrong."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commandline import Vae

ALLOCATOR = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 144000000 bytes. Error code 12"
"""What PyTorch says."""


def failing(error: Exception) -> Callable[..., object]:
    def fail(*arguments: object, **options: object) -> object:
        raise error

    return fail


@pytest.mark.parametrize("words", [("train", "resume={}", "epochs=3"), ("eval", "run={}"), ("reproduce", "run={}")])
def test_a_checkpoint_that_does_not_fit(
    vae: Vae, trained: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch, "load", failing(RuntimeError(ALLOCATOR)))
    answer = vae(*(word.format(trained) for word in words))
    assert (answer.code, answer.err) == (1, f"vae {words[0]}: out of memory: 137 MiB could not be allocated\n")


def test_data_that_does_not_fit(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez("x.npz", x=np.zeros((9, 9)))
    monkeypatch.setattr(np, "load", failing(MemoryError("Unable to allocate 72.8 TiB for an array")))
    answer = vae("train", "data=arrays", "data.path=x.npz")
    assert (answer.code, answer.err) == (1, "vae train: out of memory: 72.8 TiB could not be allocated\n")


def test_libraries_that_do_not_fit(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    error, found = ImportError("mlp.so: failed to map segment from shared object"), importlib.import_module
    load = failing(error)
    monkeypatch.setattr(importlib, "import_module", lambda n, *a: load() if "architecture" in n else found(n, *a))
    answer = vae("train", "data=digits")
    assert (answer.code, answer.err) == (1, f"vae train: out of memory ({error})\n")
