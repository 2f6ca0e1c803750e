"""The settings of runs as tables, and the settings in which runs differ."""

from collections.abc import Mapping, Sequence
from typing import Any

from vae_train.runs.config import Config
from vae_train.runs.schema import yaml_text

MAX_DIFFERENCES = 4
"""Number of differing settings of another run in a message."""

SELF_EVIDENT = ("name", "out", "sweep", "run", "keep", "version")
"""Settings that name a run or say what it keeps, and do not affect it."""


def settings_text(config: Config) -> dict[str, str]:
    """Every setting of a run by its dotted path, as YAML writes it."""
    leaves = config.leaves().items()
    return {k: yaml_text(v) for k, v in leaves if not k.endswith("_partial_") and not k.startswith("data.units.")}


def differences(runs: Sequence[Mapping[str, str]]) -> list[tuple[str, list[str]]]:
    """The settings that differ, with the value in each run, or a dash if a run lacks the setting.

    A setting is listed once, even if others take their values from it.

    Args:
        runs: the settings of each run.
    """
    paths = dict.fromkeys(path for run in runs for path in run)
    values = {path: [run.get(path, "–") for run in runs] for path in paths if path not in SELF_EVIDENT}
    varied = {path: row for path, row in values.items() if len(set(row)) > 1}
    known = [row for path, row in varied.items() if "." not in path]
    if "latent_dim" in varied and varied.get("latent_shape") == [f"[{size}]" for size in varied["latent_dim"]]:
        del varied["latent_shape"]
    return [(path, row) for path, row in varied.items() if "." not in path or row not in known]


def headline_settings(varied: Sequence[tuple[str, list[str]]]) -> Sequence[tuple[str, list[str]]]:
    """The differing settings to show in a table: the top-level ones, or else the first three."""
    return [(path, values) for path, values in varied if "." not in path] or varied[:3]


def hyperparameters(config: Config) -> dict[str, Any]:
    """Scalars of the whole configuration by dotted path, and names of classes, for TensorBoard's table and trackers.

    Loggers are left out, and settings that repeat a top-level one, like `optimizer.lr` or `latent_shape` of a vector.
    """
    values = dict[str, Any]()
    for path, value in config.without(("name", "threads", "out", "sweep", "resume", "keep", "logger")).leaves().items():
        if path.endswith("._target_"):
            values[path.removesuffix("._target_")] = value.rpartition(".")[2]
        elif not path.endswith("_partial_"):
            values[path] = value if isinstance(value, bool | int | float | str) else str(value)
    values = {k: v for k, v in values.items() if "." not in k or values.get(k.rpartition(".")[2]) != v}
    if config["latent_shape"] == (config["latent_dim"],):
        del values["latent_shape"]
    return values


def model_differences(there: Config, here: Config) -> str:
    """Settings of the model that differ between two configurations, for a message; empty if none do."""
    different = [
        f"{path.removesuffix('._target_')} is {_shown(there, path)} there and {_shown(here, path)} here"
        for path, value in there.leaves().items()
        if path.startswith("model.") and value != here.at(path)
    ]
    return "; ".join(different[:MAX_DIFFERENCES])


def _shown(config: Config, path: str) -> str:
    """A value, or the name of a class without its module."""
    text = yaml_text(config.at(path))
    return text.rpartition(".")[2] if path.endswith("._target_") else text
