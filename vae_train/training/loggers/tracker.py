"""Base class of experiment trackers, whose failures do not stop a training."""

import importlib.util
import logging
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from vae_train.plotting.png import to_pil
from vae_train.training.loggers.base import Logger, Row, RunLabel, grid_name, series_name
from vae_train.util.text import first_line

log = logging.getLogger("vae_train")


class Tracker(Logger):
    """A logger for a program or service that collects runs.

    Metrics are called `train/elbo`, `valid/elbo` and so on: the split and the key in metrics.jsonl. A failure is logged
    once, and the run continues without the tracker.

    Trackers have no settings for a host or a password. These come from the tracker's own environment variables and
    login, so that an untrusted configuration cannot redirect a run.

    Args:
        folder: a folder in the run's folder; trackers that write files use its parent.
        step: the step at which the run resumes.
        project: name of the tracker's project.
        name: the run's name; None for the name of its folder.
        group: a group within the project; None for the name of the sweep.
    """

    package: ClassVar[str]
    """Name of the Python package, and of vae_train's extra that installs it."""

    def __init__(self, folder: Path, step: int, project: str, name: str | None, group: str | None) -> None:
        super().__init__(folder, step)
        self.project, self.name, self.group = project, name, group
        self.is_started, self.is_done = False, False

    def error(self) -> str | None:
        """Why the tracker cannot be used, and what to do; None if it can."""
        found = importlib.util.find_spec(self.package)
        if found is None or found.origin is None:  # a folder with this name is not the package
            return f"needs the package {self.package}; pip install {self.package}"
        return None

    def open(self, run: RunLabel) -> None:
        """Starts a run, or resumes the one with the same id."""

    def send(self, values: Mapping[str, float], step: int, epoch: int | None) -> None:
        """Sends metrics of a step."""

    def send_image(self, name: str, image: Any, step: int) -> None:
        """Sends a PIL image."""

    def finish(self) -> None:
        """Ends the run; `is_done` tells whether its training has finished."""

    @override
    def start(self, run: RunLabel) -> None:
        run = run._replace(name=self.name or run.name, group=self.group or run.group)
        self.is_started, self.is_done = True, not run.is_training
        self._try(self.open, run)

    @override
    def metrics(self, row: Row) -> None:
        prefix = series_name(row)
        values = {f"{prefix}/{k}": v for k, v in row.items() if isinstance(v, float) and math.isfinite(v)}
        self._try(self.send, values, row["step"], row.get("epoch"))

    @override
    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        tag = f"images/{kind}/{name}" if kind.startswith("best") else f"images/{grid_name(kind, name)}"
        self._try(lambda: self.send_image(tag, to_pil(grid), step))

    @override
    def hyperparameters(self, values: Row, best: Row) -> None:
        self.is_done = True
        self.metrics(best | {"split": "best", "scope": "epoch"})

    @override
    def close(self) -> None:
        self._try(self.finish)

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        """Runs an action of the tracker, unless an earlier one failed."""
        if not self.is_started:
            return
        try:
            action(*arguments)
        except Exception as error:
            self.is_started = False
            reason = re.sub(r"//[^/@\s]*@", "//", first_line(error))  # a URL may contain a password
            log.warning("logger.%s failed; continuing without it: %s", self.package, reason)
