"""The MLflow logger."""

import importlib
import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from typing_extensions import override

from vae_train.training.loggers.base import RunLabel
from vae_train.training.loggers.tracker import Tracker

ID_TAG = "vae_train.id"

MAX_PARAMS = 100
"""Maximal number of settings per request."""

MAX_RETRIES = "4"
"""Retries of a request, which take half a minute. With MLflow's default, training would wait for four minutes."""


class MLflow(Tracker):
    """MLflow, at MLFLOW_TRACKING_URI; `project` names the experiment. See `Tracker`."""

    package: ClassVar[str] = "mlflow"

    @override
    def open(self, run: RunLabel) -> None:
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", MAX_RETRIES)
        self.entities = importlib.import_module("mlflow.entities")
        self.client, self.is_training = importlib.import_module("mlflow").MlflowClient(), run.is_training
        experiment = self.client.get_experiment_by_name(self.project)
        query = f"tags.`{ID_TAG}` = '{run.id}'"
        found = self.client.search_runs([experiment.experiment_id], query, max_results=1) if experiment else []
        if not found and not run.is_training:
            raise LookupError(f"experiment {self.project} has no run with the tag {ID_TAG} = {run.id}")
        self.id = found[0].info.run_id if found else self._create(run, experiment)
        if found and run.is_training:
            self.client.update_run(self.id, status="RUNNING")

    def _create(self, run: RunLabel, experiment: Any) -> str:
        number = experiment.experiment_id if experiment else self.client.create_experiment(self.project)
        tags = {ID_TAG: run.id} | ({"group": run.group} if run.group else {})
        created: str = self.client.create_run(number, tags=tags, run_name=run.name).info.run_id
        params = [self.entities.Param(name, str(value)) for name, value in run.settings.items()]
        for start in range(0, len(params), MAX_PARAMS):
            self.client.log_batch(created, params=params[start : start + MAX_PARAMS])
        return created

    @override
    def send(self, values: Mapping[str, float], step: int, epoch: int | None) -> None:
        milliseconds = int(time.time() * 1000)
        metrics = [self.entities.Metric(name, value, milliseconds, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    @override
    def send_image(self, name: str, image: Any, step: int) -> None:
        self.client.log_image(self.id, image, key=name, step=step)

    @override
    def finish(self) -> None:
        if self.is_training:
            self.client.set_terminated(self.id, "FINISHED" if self.is_done else "KILLED")
