"""The loggers for Weights & Biases and for Trackio, which has the same interface."""

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import override

from vae_train.training.loggers.base import RunLabel
from vae_train.training.loggers.tracker import Tracker


class Trackio(Tracker):
    """Trackio; `project` names the dashboard. See `Tracker`.

    Runs are resumed by name, so the name contains the run's id.
    """

    package: ClassVar[str] = "trackio"

    @override
    def open(self, run: RunLabel) -> None:
        self.module = importlib.import_module(self.package)
        resume = "allow" if run.is_training else "must"
        common = {"project": self.project, "group": run.group, "config": run.settings, "resume": resume}
        self.run = self.module.init(**common, **self.options(run))

    def options(self, run: RunLabel) -> dict[str, Any]:
        """Arguments of the package's `init` that identify the run."""
        return {"name": f"{run.name}-{run.id}"}

    @override
    def send(self, values: Mapping[str, float], step: int, epoch: int | None) -> None:
        self.write({**values, **({} if epoch is None else {"epoch": epoch})}, step)

    @override
    def send_image(self, name: str, image: Any, step: int) -> None:
        self.write({name: self.module.Image(image)}, step)

    def write(self, values: Mapping[str, Any], step: int) -> None:
        """Writes values at a step, which may precede the last one when the best epoch is evaluated."""
        self.run.log(values, step=step)

    @override
    def finish(self) -> None:
        self.run.finish()


class Wandb(Trackio):
    """Weights & Biases.

    Args:
        folder: see `Tracker`.
        step: see `Tracker`.
        project: see `Tracker`.
        name: see `Tracker`.
        group: see `Tracker`.
        entity: team or user; None for WANDB_ENTITY or the user who is logged in.
        tags: tags of the run.
        mode: send the run while it trains, keep it for `wandb sync`, or do not record it; None for WANDB_MODE.
    """

    package: ClassVar[str] = "wandb"

    def __init__(
        self,
        folder: Path,
        step: int,
        project: str,
        name: str | None,
        group: str | None,
        entity: str | None,
        tags: Sequence[str],
        mode: Literal["online", "offline", "disabled"] | None,
    ) -> None:
        super().__init__(folder, step, project, name, group)
        self.entity, self.tags, self.mode = entity, tags, mode

    @override
    def error(self) -> str | None:
        error = super().error()
        if error or (self.mode or os.environ.get("WANDB_MODE", "online")) != "online":
            return error
        module = importlib.import_module(self.package)
        try:
            is_logged_in = module.login()
        except module.errors.UsageError:  # no key, and no terminal to ask for it
            is_logged_in = False
        except module.Error:  # no network, which is reported at the start
            return None
        return None if is_logged_in else "is not logged in; wandb login, or logger.wandb.mode=offline"

    @override
    def options(self, run: RunLabel) -> dict[str, Any]:
        return {
            "id": run.id,
            "name": run.name,
            "tags": list(self.tags),
            "entity": self.entity,
            "mode": self.mode,
            "dir": str(self.folder.parent),
            "allow_val_change": True,  # a resumed run may have more epochs
            "settings": self.module.Settings(console="off", quiet=True),  # do not record the progress bar
        }

    @override
    def open(self, run: RunLabel) -> None:
        super().open(run)
        self.run.define_metric("*", step_metric="step")  # wandb's own steps can only increase

    @override
    def write(self, values: Mapping[str, Any], step: int) -> None:
        self.run.log({**values, "step": step})

    @override
    def finish(self) -> None:
        self.run.finish(exit_code=0 if self.is_done else 1)
