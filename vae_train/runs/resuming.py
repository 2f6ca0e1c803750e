"""Finds what prevents a run from being resumed."""

from collections.abc import Mapping
from typing import Any

import torch

from vae_train.data.session import DataSession
from vae_train.runs.build import Builder, load_data
from vae_train.runs.check import execution_errors, run_data_errors, validation_errors
from vae_train.runs.config import RESUMABLE, changed
from vae_train.runs.defaults import run_epochs
from vae_train.runs.ranks import sharing_errors
from vae_train.runs.run import Run
from vae_train.runs.tracking import sending, tracker_errors
from vae_train.training.epochs import Epochs
from vae_train.training.ranks import ALONE, Ranks
from vae_train.util.errors import ErrorDetail, collecting


def resume_errors(
    run: Run, changes: Mapping[str, Any], session: DataSession, builder: Builder, ranks: Ranks = ALONE
) -> list[ErrorDetail]:
    """Settings that cannot change on resume, data that has changed, and a run that has finished."""
    errors = [
        ErrorDetail(f"{name}={value}", f"cannot change on resume (only {', '.join(RESUMABLE)} can); start a new run")
        for name, value in changes.items()
        if name not in RESUMABLE
    ]
    if errors:
        return errors
    config, where = changed(run.config, changes), f"resume={run.as_typed}"
    if run.lock_file.exists():
        with collecting(errors, where), run.locked():
            pass
    errors = errors or builder.errors(config) + execution_errors(config)
    errors = errors or tracker_errors(config, builder, sending(run, builder))
    errors = errors or run_data_errors(run, config, session, builder)
    errors = errors or validation_errors(config, session, builder)
    if errors:
        return errors
    facts = load_data(config, session, torch.device("cpu"), builder).facts
    errors += sharing_errors(config, facts, builder, ranks)
    state = dict[str, Any]()
    before, after = (run_epochs(each, facts) for each in (run.config, config))
    with collecting(errors, where):
        state = run.last_state()
    if errors:
        return errors
    if after.last_step < before.last_step:
        errors.append(ErrorDetail(after.setting, f"the run has {before.setting}, which can only be raised"))
    elif after.last_step == before.last_step and (ended := _ended(run, state, before)):
        errors.append(ErrorDetail(where, f"finished after {ended} epochs; add {before.twice}"))
    if state.get("config") not in (None, run.fingerprint):
        errors.append(ErrorDetail(str(run.config_file), "is not what the run was trained with; restore it"))
    return errors


def _ended(run: Run, state: Mapping[str, Any], epochs: Epochs) -> int:
    """The number of epochs after which a run ended, possibly by early stopping; 0 if it has not ended."""
    if not run.has_ended or not state:
        return 0
    ended, epoch = state["progress"]["ended"], epochs.of(state["progress"]["step"]) - 1
    return epoch if epochs.total in (epoch, ended) else 0
