"""What `vae train` checks of a search before it starts, and how one goes on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from vae_train.cli.jobs import Job, StoredJobs
from vae_train.cli.space import is_search
from vae_train.evaluation.metrics.base import Metric
from vae_train.runs.build import Builder, load_data
from vae_train.runs.search.metrics import VALIDATED, default_metric, is_validated
from vae_train.runs.search.plan import NewSearch, StoredSearch, read_search
from vae_train.runs.search.storage import chosen_url, storage_errors
from vae_train.runs.sweep_file import SWEEPS, read_jobs
from vae_train.util.errors import ErrorDetail, collecting
from vae_train.util.text import did_you_mean

NO_RETRY = "has no effect on a search, in which a failed trial counts"

NOT_EVALUATED = ("auroc",)
"""Outputs of `vae eval` that need settings which a search does not have."""

COMMAND_SETTINGS = (
    "sweep",
    "retry",
    "stop_on_failure",
    "max_hours",
    "workers",
    "per_gpu",
    "launch",
    "distributed",
    "allow",
)
"""Settings of one command, which a search does not store."""

ADJUSTABLE = ("search=", "search.", "trials=", "prune=")
"""Beginnings of the settings that may change when a search goes on, except for metric and storage."""


def mode_errors(typed: Mapping[str, str], multirun: bool, shared: tuple[str, ...]) -> list[ErrorDetail]:
    """Reports settings of searches that only work with -m or with `search=`, and sweeps of the other kind.

    Args:
        typed: the settings as typed, by key.
        multirun: whether the command has -m.
        shared: beginnings of settings that may be given to every sweep that goes on.
    """
    keys = [key for key in typed if is_search(key)]
    if not multirun:
        return [ErrorDetail(typed[key], "only applies to multirun; add -m") for key in keys]
    name = typed.get("sweep", "").partition("=")[2]
    is_searched = "search" in typed and typed["search"] != "search=null"
    stored = read_search(SWEEPS / name) if name else None
    if stored is None and is_searched and name and read_jobs(SWEEPS / name):
        return [ErrorDetail(f"sweep={name}", "is a sweep without a search; choose another name")]
    without = [key for key in ("retry", "stop_on_failure") if typed.get(key, "").lower() == f"{key}=true"]
    if without and (stored is not None or is_searched):
        return [ErrorDetail(typed[key], NO_RETRY) for key in without]
    if stored is not None and not is_searched:
        others = [key for key in typed if not f"{key}=".startswith(ADJUSTABLE) and not key.startswith(shared)]
        message = f"{name} is a search; repeat its whole command, or choose another name for the sweep"
        return [ErrorDetail(typed[key], message) for key in others]
    if is_searched:
        return []
    message = "has no effect without a search; add search=tpe"
    return [ErrorDetail(typed[key], message) for key in keys if key not in ("search", "seeds")]


def continued(name: str, typed: Sequence[str], shared: tuple[str, ...]) -> StoredJobs | None:
    """The settings of a search that goes on, if only some of `ADJUSTABLE` and `shared` were typed; else None."""
    stored, keys = read_search(SWEEPS / name), {text.partition("=")[0] for text in typed}
    if stored is None or any(
        not f"{key}=".startswith((*ADJUSTABLE, "allow=")) and not key.startswith(shared) for key in keys
    ):
        return None
    overrides, _, config_dir = stored.settings
    before = [text for text in overrides if text.partition("=")[0] not in keys]
    return StoredJobs(shared=shared, typed=before, config_dir=config_dir)


def search_errors(job: Job) -> list[ErrorDetail]:
    """Reports metrics, a storage and a sweep with which a search cannot work.

    Args:
        job: the first of its combinations.
    """
    assert job.space is not None
    errors = list[ErrorDetail]()
    if job.config.get("search") is None:  # its error has been found
        return errors
    with collecting(errors):
        job.builder.build(job.config["search"])
    metrics = metrics_of(job)
    outputs = {} if all(map(is_validated, metrics)) else eval_outputs(job.space.config_dir, job.builder.allow)
    for metric in metrics:
        if not is_validated(metric) and metric not in outputs:
            names = [*VALIDATED, *(name for name in outputs if name not in VALIDATED)]
            message = f"no such metric{did_you_mean(metric, names)} ({', '.join(names)})"
            errors.append(ErrorDetail(f"search.metric={metric}", message))
    if len(set(metrics)) < len(metrics):
        errors.append(ErrorDetail("search.metric", "names a metric twice"))
    if outputs and job.settings.keep == "none":
        errors.append(ErrorDetail("keep=none", "removes the checkpoints that are evaluated; use keep=best"))
    if (prune := job.settings.prune) != "none":
        late = [metric for metric in metrics if not is_validated(metric)]
        reason = "needs a single metric" if len(metrics) > 1 else "needs a metric of validation" if late else ""
        instead = f"; use prune=none, or search.metric={'elbo' if late else metrics[0]}"
        errors += [ErrorDetail(f"prune={prune}", reason + instead)] if reason else []
    if load_data(job.config, job.session, torch.device("cpu"), job.builder).split("valid") is None:
        errors.append(
            ErrorDetail(f"search={job.choices['search']}", "needs validations, but the data has no such split")
        )
    stored = read_search(SWEEPS / job.settings.sweep) if job.settings.sweep else None
    if stored is None:
        return errors + storage_errors(job.config["search"]["storage"])
    return errors + (
        _change_errors(job, stored) or storage_errors(job.config["search"]["storage"], stored.settings.storage)
    )


def metrics_of(job: Job) -> tuple[str, ...]:
    """The metrics that decide a search."""
    assert job.space is not None
    typed = job.config["search"]["metric"]
    if typed is None:
        return (default_metric([axis.key for axis in job.space.axes]),)
    return tuple(typed) if isinstance(typed, tuple) else (typed,)


@cache
def eval_outputs(config_dir: str | None, allow: tuple[str, ...]) -> Mapping[str, str]:
    """The outputs of `vae eval` with the names of their metrics in its configuration.

    Args:
        config_dir: another folder of YAML files.
        allow: packages whose metrics may be built.
    """
    from vae_train.cli.commands import eval as command
    from vae_train.cli.overrides import compose_jobs

    typed = ["run=last", *([f"allow=[{','.join(allow)}]"] if allow else [])]
    (job,), _ = compose_jobs("eval", typed, command.Settings, all_of=command.ALL_OF, config_dir=config_dir)
    metrics: dict[str, Metric] = {name: Builder(allow).build(node) for name, node in job.config["metrics"].items()}
    names = {info.name: name for name, metric in metrics.items() for info in metric.outputs}
    return {output: name for output, name in names.items() if output not in NOT_EVALUATED}


def _change_errors(job: Job, stored: StoredSearch) -> list[ErrorDetail]:
    """Settings by which a command differs from the search of the same name."""
    before, now = (_identity(texts) for texts in (stored.settings.overrides, stored_settings(job).overrides))
    message = f"differs from the search {job.settings.sweep}; leave it as it was, or choose another name for the sweep"
    changed = sorted(
        f"{key}={now.get(key, before.get(key))}" for key in before | now if before.get(key) != now.get(key)
    )
    return [ErrorDetail(text, message) for text in changed]


def stored_settings(job: Job) -> NewSearch:
    """The settings of a search, without those of one command."""
    assert job.space is not None
    texts = tuple(text for text in job.space.typed if re.split("[.=]", text)[0] not in COMMAND_SETTINGS)
    folder = job.space.config_dir
    return NewSearch(texts, chosen_url(job.config["search"]["storage"]), folder and str(Path(folder).absolute()))


def _identity(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings that cannot change when a search goes on."""
    from vae_train.runs.sweep_file import NEUTRAL

    fixed = ("search.metric=", "search.storage=")
    return {
        key: value
        for key, _, value in (text.partition("=") for text in overrides)
        if (not f"{key}=".startswith(ADJUSTABLE) or f"{key}=" in fixed) and not key.startswith(NEUTRAL)
    }
