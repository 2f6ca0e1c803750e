"""Train, evaluate and sample variational autoencoders.

from vae_train import load
model = load("outputs/2026-11-20/16-02-11-digits-mlp")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vae_train.model.base import LatentVariableModel

__all__ = ["load"]


def load(run: str, checkpoint: str = "best", device: str = "cpu", allow: str | None = None) -> LatentVariableModel:
    """The trained model of a run, in evaluation mode.

    Args:
        run: a run's folder, a unique part of its name, or "last".
        checkpoint: "best" by validation, or "last".
        device: where it goes.
        allow: a further package whose classes the run's configuration may name.

    Raises:
        vae_train.util.errors.UsageError: there is no such run.
        vae_train.util.errors.RunError: its checkpoint cannot be read.
    """
    from vae_train.runs.build import open_model, resolve_device
    from vae_train.runs.run import Run

    return open_model(Run.open(str(run)), checkpoint, resolve_device(device), allow)
