from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
import torch

from vae_train.model.architecture.mlp import MLP
from vae_train.model.prior.standard_normal import StandardNormal
from vae_train.objective.schedule import LinearBeta
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.runs.schema import injected, value_error
from vae_train.util.errors import ErrorDetail
from vae_train.util.ranges import Decay, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Range

MLP_NAME = "vae_train.model.architecture.mlp.MLP"
WIDTHS = list[PositiveInt] | PositiveInt


def schema_errors(**tree: Any) -> list[ErrorDetail]:
    return Builder().errors(Config(tree))


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (1, int),
        (1, float),
        (1e-3, float),
        (True, bool),
        ("a", str),
        (2026, str),
        (None, int | None),
        (None, PositiveInt | None),
        (3, PositiveInt),
        (0, NonNegativeInt),
        (1.0, Fraction),
        (0.5, Decay),
        ("relu", Literal["relu", "tanh"]),
        (3, Literal[1, 3]),
        ([1, 2], list[PositiveInt]),
        ([], list[PositiveInt]),
        ([1, 2], WIDTHS),
        (5, WIDTHS),
        ([0.9, 0.999], tuple[float, float]),
        ([1, 2, 3], tuple[int, ...]),
        (object(), Any),
        ({"a": 1}, torch.Tensor),
    ],
)
def test_a_fitting_value_is_no_error(value, hint):
    assert value_error(value, hint) is None


@pytest.mark.parametrize(
    ("value", "hint", "why"),
    [
        (1.5, int, "is 1.5, expected a whole number"),
        (True, int, "is true, expected a whole number"),
        (True, float, "is true, expected a number"),
        ("1", float, "is '1', expected a number"),
        (1, bool, "is 1, expected true or false"),
        (None, str, "is null, expected a string"),
        (True, str, "is true, expected a string"),
        ([1], str, "is [1], expected a string"),
        (None, int, "is null, expected a whole number"),
        (0, PositiveInt, "is 0, must be at least 1"),
        (-1, NonNegativeInt, "is -1, must be at least 0"),
        (0, PositiveFloat, "is 0, must be above 0"),
        (float("nan"), PositiveFloat, "is nan, must be finite"),
        (float("inf"), PositiveFloat, "is inf, must be finite"),
        (1.5, Fraction, "is 1.5, must be in [0, 1]"),
        (1.0, Decay, "is 1.0, must be in (0, 1)"),
        (True, PositiveInt, "is true, expected a whole number"),
        (0, PositiveInt | None, "is 0, must be at least 1"),
        ("x", PositiveInt | None, "is 'x', expected a whole number or null"),
        ("gelo", Literal["relu", "tanh"], "is 'gelo', must be one of relu, tanh"),
        (2, Literal[1, 3], "is 2, must be one of 1, 3"),
        (True, Literal[1, 3], "is true, must be one of 1, 3"),
        (3.0, Literal[1, 3], "is 3.0, must be one of 1, 3"),
        (5, list[PositiveInt], "is 5, expected a list"),
        ([1, 0], list[PositiveInt], "is [1, 0]: is 0, must be at least 1"),
        (0, WIDTHS, "is 0, must be at least 1"),
        ([0.9], tuple[float, float], "is [0.9], expected 2 values"),
        ("ab", list[str], "is 'ab', expected a list"),
        (11, Annotated[int, Range(3, 10)], "is 11, must be in [3, 10]"),
    ],
)
def test_a_value_that_does_not_fit_is_explained(value, hint, why):
    assert value_error(value, hint) == why


def test_every_error_is_found_at_once_with_its_path():
    errors = schema_errors(
        model={
            "encoder": {
                "_target_": MLP_NAME,
                "_partial_": True,
                "hiden": [5],
                "activation": "relo",
                "gated": False,
                "init": "he",
            }
        },
        many=[{"_target_": "vae_train.objective.schedule.LinearBeta", "warmup": -1}],
        data={"_target_": "vae_train.data.sources.digits.Digit", "binarize": "none"},
    )
    found = {m.where: m.message for m in errors}
    assert found["model.encoder.hiden"] == f"{MLP_NAME} has no such parameter; did you mean hidden?"
    assert "must be one of relu" in found["model.encoder.activation"]
    assert found["many[0].warmup"] == "is -1, must be above 0"
    assert found["many[0].start"] == "is missing; LinearBeta needs it"
    assert found["model.encoder.hidden"] == "is missing; MLP needs it"
    assert "there is no class" in found["data._target_"]
    assert len(found) == 6


def test_injected_arguments_need_not_be_given():
    network = {"_target_": MLP_NAME, "_partial_": True, "hidden": [], "activation": "relu", "gated": False}
    assert schema_errors(a=network | {"init": "torch"}) == []
    linear = {"_target_": "vae_train.objective.schedule.LinearBeta", "warmup": 1, "start": 0}
    assert schema_errors(a=linear) == []


def test_what_the_program_fills_in_follows_from_facts_and_base_classes():
    assert {"in_shape", "out_shape"} <= injected(MLP, partial=True)
    assert {"event_shape", "data_shape"} <= injected(StandardNormal, partial=True)
    assert "params" in injected(torch.optim.Adam, partial=True)
    assert "in_shape" not in injected(MLP, partial=False)
    assert {"data_shape", "levels", "factor_sizes", "steps_per_epoch", "seed"} <= injected(LinearBeta, partial=False)


def test_a_component_may_need_other_components():
    learner = {"_target_": "vae_train.training.learner.Learner"}
    alone = {e.where for e in schema_errors(learner=learner)}
    beside = {e.where for e in schema_errors(learner=learner, model={"_target_": MLP_NAME})}
    assert "learner.model" in alone - beside
