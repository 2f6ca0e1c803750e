"""A split of a run's own data as the input of its model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from vae_train.batch import DataFacts, Split
from vae_train.runs.apply.arrays import form_of_data
from vae_train.runs.apply.inputs import Inputs, Request, numbered
from vae_train.runs.apply.recordings import single_clips
from vae_train.runs.build import Builder, load_data
from vae_train.runs.config import Config
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError


def open_split(request: Request, model: TrainedModel, config: Config, builder: Builder) -> Inputs:
    """Opens a split of the run's data, as `vae eval` does.

    Raises:
        UsageError: there is no such split, or a label is given, which the data has.
    """
    name = cast(Split, request.input)
    if request.label is not None:
        raise UsageError([ErrorDetail(f"label={request.label}", f"has no effect with input={name}, which has labels")])
    data = load_data(config, request.session, model.device, builder)
    images = data.split(name)
    if images is None:
        what = f"this run's data has no such split; for a folder use ./{name}"
        raise UsageError([ErrorDetail(f"input={name}", what)])
    names = numbered(len(images))
    return Inputs(
        images,
        names,
        _classes(data.labels(name), model.facts),
        title=name,
        noise=request.noise(),
        form=form_of_data(model.facts, config),
        recordings=single_clips(names, model.facts),
    )


def _classes(labels: torch.Tensor | None, facts: DataFacts) -> Sequence[str] | None:
    """Names of the classes; None without labels, or with several factors."""
    if labels is None or len(facts.factors) != 1:
        return None
    names = list(map(str, facts.factors[0].values or range(facts.factors[0].size)))
    return [names[number] for number in labels[:, 0].tolist()]
