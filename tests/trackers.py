"""Stand-ins for the packages of trackers, which record what is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

RUNS = '''
"""Stands in for wandb and trackio: `init`, which returns a run with `log` and `finish`."""

from types import SimpleNamespace

runs, down, login_error = [], None, None


class Error(Exception):
    pass


class UsageError(Error):
    pass


errors = SimpleNamespace(UsageError=UsageError)


class Settings:
    def __init__(self, **settings):
        self.settings = settings


class Image:
    def __init__(self, image):
        self.size = image.size


def login():
    if login_error is not None:
        raise login_error
    return True


class Run:
    def __init__(self, **arguments):
        self.arguments, self.rows, self.finished = arguments, [], []

    def define_metric(self, name, step_metric):
        self.axis = name, step_metric

    def log(self, values, step=None):
        if down:
            raise ConnectionError(down)
        self.rows.append((step if "step" not in values else values["step"], values))

    def finish(self, **arguments):
        self.finished.append(arguments)


def init(**arguments):
    runs.append(Run(**arguments))
    return runs[-1]
'''

MLFLOW = '''
"""Stands in for mlflow: its client."""

from types import SimpleNamespace as Space

runs = []


class MlflowClient:
    def get_experiment_by_name(self, name):
        return Space(experiment_id=name) if runs else None

    def create_experiment(self, name):
        return name

    def create_run(self, experiment, tags, run_name):
        info = Space(run_id=str(len(runs)), experiment=experiment, name=run_name, status="RUNNING")
        runs.append(Space(info=info, tags=tags, params={}, rows=[], images=[]))
        return runs[-1]

    def search_runs(self, experiments, query, max_results):
        return [run for run in runs if query == f"tags.`vae_train.id` = '{run.tags['vae_train.id']}'"]

    def update_run(self, number, status):
        runs[int(number)].info.status = status

    set_terminated = update_run

    def log_batch(self, number, metrics=(), params=()):
        assert len(params) <= 100
        runs[int(number)].params.update({each.key: each.value for each in params})
        runs[int(number)].rows += [(each.step, each.key, each.value) for each in metrics]

    def log_image(self, number, image, key, step):
        runs[int(number)].images.append((step, key, image.size))
'''

ENTITIES = """
from typing import NamedTuple


class Param(NamedTuple):
    key: str
    value: str


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int
"""

FILES = {"wandb/__init__": RUNS, "trackio/__init__": RUNS, "mlflow/__init__": MLFLOW, "mlflow/entities": ENTITIES}


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """Within the block the three packages are imported from `folder`, and are returned by name."""
    import importlib

    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(text)
    names = ("wandb", "trackio", "mlflow", "mlflow.entities")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(folder))
    yield {name: importlib.import_module(name) for name in names[:3]}
    for name in names:
        sys.modules.pop(name, None)
