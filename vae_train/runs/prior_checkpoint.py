"""The file of an interrupted training of a prior, from which the same command continues."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from vae_train.runs.config import Config
from vae_train.runs.run import Run
from vae_train.runs.schema import yaml_text
from vae_train.training.checkpoint import load, previous, save
from vae_train.util.errors import ErrorDetail, RunError, Stopped

log = logging.getLogger("vae_train")

SUFFIX = ".unfinished.pt"


@dataclass(frozen=True)
class UnfinishedPrior:
    """Where the training of a prior is saved until it is finished.

    Args:
        run: the run whose encodings the prior is trained on.
        name: name of the prior.
        stamp: what the prior depends on, see `vae_train.runs.fitted_priors.prior_stamp`.
        command: the command that continues the training.
    """

    run: Run
    name: str
    stamp: dict[str, Any]
    command: str

    @property
    def path(self) -> Path:
        """The file."""
        return unfinished_file(self.run, self.name)

    def load(self) -> dict[str, Any] | None:
        """The state to continue from; None if there is none, or one for other weights of the model."""
        state = _read(self.run, self.name)
        if state is None:
            return None
        if state["fingerprint"] != self.stamp["fingerprint"]:
            log.info(
                "the interrupted training of prior=%s was for other weights of the model; starting anew", self.name
            )
            return None
        log.info("continuing after step %s", _step(state))
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Saves a state."""
        save(self.path, state | self.stamp)

    def stop(self, signal: int, step: int) -> NoReturn:
        """Ends the command."""
        message = f"interrupted at step {step:,}; checkpoint saved. Continue with: {self.command}"
        raise Stopped(signal, message)

    def remove(self) -> None:
        """Removes the file once the prior is finished, or is to be trained anew."""
        for path in (self.path, previous(self.path)):
            path.unlink(missing_ok=True)


def unfinished_file(run: Run, name: str) -> Path:
    """The file of an interrupted training."""
    return run.priors / f"{name}{SUFFIX}"


def unfinished_errors(run: Run, name: str, settings: Config, seed: int) -> list[ErrorDetail]:
    """Reports an interrupted training with other settings, which a new one would overwrite."""
    state = _read(run, name)
    if state is None:
        return []
    before = Config(state["settings"])
    changed = [key for key in before if key not in settings or settings[key] != before[key]]
    changes = [f"prior.{key}={yaml_text(before[key])}" for key in changed]
    if state["seed"] != seed:
        changes.append(f"seed={state['seed']}")
    if not changes:
        return []
    message = (
        f"a training with {' '.join(changes)} was interrupted after step {_step(state)}; type that to "
        "continue it, or refit=true to start anew"
    )
    return [ErrorDetail(f"prior={name}", message)]


def _step(state: dict[str, Any]) -> str:
    """The number of updates, for messages."""
    return f"{int(state['progress'].get('step', 0)):,}"


def _read(run: Run, name: str) -> dict[str, Any] | None:
    """Reads an interrupted training; None if there is none, or if it is damaged, which is reported."""
    path = unfinished_file(run, name)
    if not path.exists() and not previous(path).exists():
        return None
    try:
        state = load(path, report=run.report)
        kinds = {"settings": dict, "progress": dict, "seed": int, "fingerprint": str}
        if not all(isinstance(state.get(name), kind) for name, kind in kinds.items()):
            raise RunError(f"{path} is not a training of a prior")
    except RunError as error:
        run.report(str(error), "training the prior anew")
        return None
    return state
