"""Train, evaluate and sample variational autoencoders.

The command line is `vae`; this is its Python interface.

    >>> import vae_train
    >>> run = vae_train.train("data=digits", "model=mlp", latent_dim=2, epochs=1)
    >>> run.summary()["status"]
    'done'
    >>> model = vae_train.load(run.folder)
    >>> model.sample(16).shape
    torch.Size([16, 1, 8, 8])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_train.util.errors import UsageError

if TYPE_CHECKING:
    from vae_train.runs.build import Builder
    from vae_train.runs.labeled_arrays import LabeledArrays
    from vae_train.runs.run import Run
    from vae_train.runs.trained import TrainedModel

__all__ = ["__version__", "load", "open_data", "train"]


def __getattr__(name: str) -> str:
    """Looks up `__version__` on first use, to keep the import fast."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vae_train.util.version import package_version

    return package_version()


def load(
    run: str | Path,
    checkpoint: str = "best",
    device: str = "cpu",
    prior: str | None = None,
    allow: str | Sequence[str] | None = None,
) -> TrainedModel:
    """The trained model of a run, in the units of its data.

    Args:
        run: a run's folder, a unique part of its name, or "last".
        checkpoint: "best" as chosen by `trainer.monitor`, or "last".
        device: device of the model.
        prior: name of a prior fitted by `vae fit-prior`, which replaces the model's own; None for its own.
        allow: additional packages whose classes the run's configuration may name; one name or several.

    Raises:
        vae_train.util.errors.UsageError: the run or the prior does not exist.
        vae_train.util.errors.RunError: its checkpoint cannot be read.
    """
    from vae_train.runs.fitted_priors import prior_errors
    from vae_train.runs.trained import TrainedModel
    from vae_train.util.runtime import resolve_device

    opened, builder = _opened(run, allow)
    if errors := prior_errors(opened, prior):
        raise UsageError(errors)
    return TrainedModel.open(opened, checkpoint, resolve_device(device), builder, prior)


def open_data(run: str | Path, split: str = "test", allow: str | Sequence[str] | None = None) -> LabeledArrays:
    """The images of a split of a run's data, and their labels, as arrays that the run's model takes.

    Args:
        run: a run's folder, a unique part of its name, or "last".
        split: "train", "valid" or "test".
        allow: additional packages whose classes the run's configuration may name; one name or several.

    Raises:
        vae_train.util.errors.UsageError: the run, its data or the split does not exist.
    """
    from vae_train.runs.labeled_arrays import read_split

    return read_split(*_opened(run, allow), split)


def _opened(run: str | Path, allow: str | Sequence[str] | None) -> tuple[Run, Builder]:
    """Opens a run whose components are all trusted."""
    from vae_train.runs.build import Builder
    from vae_train.runs.packages import make_importable, packages_of
    from vae_train.runs.run import Run

    allowed, opened = [allow] if isinstance(allow, str) else list(allow or ()), Run.open(run)
    if missing := sorted(set(packages_of(opened.config)) - {name.split(".")[0] for name in allowed}):
        names = ", ".join(missing)
        call = f"vae_train.load({str(run)!r}, allow={sorted({*allowed, *missing})})"
        raise UsageError(f"{opened.folder} has components of the package {names}; if you trust it: {call}")
    make_importable(allowed)
    return opened, Builder(allowed)


def train(*overrides: str, **settings: Any) -> Run:
    """Trains a model, like `vae train` with the same settings.

    Args:
        overrides: settings and choices as on the command line, for instance "data=mnist" or
            "model.encoder.hidden=[256]".
        settings: the same as keywords, for instance `beta=4` or `out="runs/first"`.

    Raises:
        vae_train.util.errors.UsageError: settings are invalid; lists all errors. Nothing is written.
        vae_train.util.errors.RunError: training failed.
    """
    from vae_train.cli.commands.train import train_job
    from vae_train.cli.main import compose
    from vae_train.cli.parsing import to_override

    (job,) = compose("train", [*overrides, *(to_override(key, value) for key, value in settings.items())])
    if job.settings.resume or job.settings.plan:
        raise UsageError("resume and plan are only available on the command line")
    return train_job(job, Path(job.settings.out) if job.settings.out else None)
