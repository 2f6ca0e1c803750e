"""What experiment trackers have in common: names of metrics, and that their failures end no training."""

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
from vae_train.training.loggers.base import Logger, Row, RunLabel
from vae_train.util.text import first_line

log = logging.getLogger("vae_train")


class Tracker(Logger):
    """A program or service that collects runs.

    Metrics are called `train/elbo`, `valid/elbo` and so on: the split and the name in metrics.jsonl. What fails is said
    once, and the run goes on without the tracker.

    No tracker has a setting for a host or a password: its own environment variables and its login have them, so that no
    configuration, which may come from somebody else, decides where a run is sent to.

    Args:
        folder: a folder within the run's; a tracker that writes into the run writes beside it.
        step: the step that the run resumes at.
        project: what the tracker groups runs by.
        name: the run's name; None for that of its folder.
        group: a group within the project; None for the sweep.
    """

    package: ClassVar[str]
    """The Python package that it needs, and the extra of vae_train that installs it."""

    def __init__(self, folder: Path, step: int, project: str, name: str | None, group: str | None) -> None:
        super().__init__(folder, step)
        self.project, self.name, self.group = project, name, group
        self.is_started, self.is_done = False, False

    def error(self) -> str | None:
        """Why nothing can be sent from here, and what to do; None if nothing is wrong."""
        found = importlib.util.find_spec(self.package)
        if found is None or found.origin is None:  # a folder of the package's name is not the package
            return f"needs the package {self.package}; pip install 'vae_train[{self.package}]'"
        return None

    def open(self, run: RunLabel) -> None:
        """Starts a run, or goes on with the one that has its id."""

    def send(self, values: Mapping[str, float], step: int, epoch: int | None) -> None:
        """Sends metrics of a step."""

    def send_image(self, name: str, image: Any, step: int) -> None:
        """Sends a PIL image."""

    def finish(self) -> None:
        """Ends the run; `is_done` says whether its training has ended, too."""

    @override
    def start(self, run: RunLabel) -> None:
        run = run._replace(name=self.name or run.name, group=self.group or run.group)
        self.is_started, self.is_done = True, not run.is_training
        self._try(self.open, run)

    @override
    def metrics(self, row: Row) -> None:
        prefix = "train_steps" if row["scope"] == "step" else row["split"]
        values = {f"{prefix}/{k}": v for k, v in row.items() if isinstance(v, float) and math.isfinite(v)}
        self._try(self.send, values, row["step"], row.get("epoch"))

    @override
    def image_grid(self, kind: str, name: str, step: int, grid: Tensor) -> None:
        shown = kind if name == "final" or name.startswith("epoch-") else name
        tag = f"images/{kind}/{name}" if kind.startswith("best") else f"images/{shown}"
        self._try(lambda: self.send_image(tag, to_pil(grid), step))

    @override
    def hyperparameters(self, values: Row, best: Row) -> None:
        self.is_done = True
        self.metrics(best | {"split": "best", "scope": "epoch"})

    @override
    def close(self) -> None:
        self._try(self.finish)

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        """Runs an action of the tracker, unless one has failed."""
        if not self.is_started:
            return
        try:
            action(*arguments)
        except Exception as error:
            self.is_started = False
            reason = re.sub(r"//[^/@\s]*@", "//", first_line(error))  # an address may have a password
            log.warning("logger.%s failed, going on without it: %s", self.package, reason)
