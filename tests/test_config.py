from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
import torch
from omegaconf import OmegaConf

from vae_train.model.architecture.mlp import MLP
from vae_train.objective.schedule.linear import LinearBeta
from vae_train.runs.schema import build, locate, schema_errors, value_error
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import Decay, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Range

MLP_NAME = "vae_train.model.architecture.mlp.MLP"
WIDTHS = list[PositiveInt] | PositiveInt


def node(**entries):
    return OmegaConf.create(entries)


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
        (None, str, "is null, expected a text"),
        (True, str, "is true, expected a text"),
        ([1], str, "is [1], expected a text"),
        (None, int, "is null, expected a whole number"),
        (0, PositiveInt, "is 0, must be at least 1"),
        (-1, NonNegativeInt, "is -1, must be at least 0"),
        (0, PositiveFloat, "is 0, must be above 0"),
        (float("nan"), PositiveFloat, "is nan, must be above 0"),
        (float("inf"), PositiveFloat, "is inf, must be above 0"),
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


def test_every_mistake_is_found_at_once_with_its_path():
    cfg = node(
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
        many=[{"_target_": "vae_train.objective.schedule.linear.LinearBeta", "warmup": -1}],
        data={"_target_": "vae_train.data.sources.digits.Digit", "binarize": "none"},
    )
    found = {m.where: m.message for m in schema_errors(cfg)}
    assert found["model.encoder.hiden"] == f"{MLP_NAME} has no such parameter; did you mean hidden?"
    assert "must be one of relu" in found["model.encoder.activation"]
    assert found["many[0].warmup"] == "is -1, must be above 0"
    assert found["many[0].start"] == "LinearBeta needs it"
    assert found["model.encoder.hidden"] == "MLP needs it"
    assert "there is no class" in found["data._target_"]
    assert len(found) == 6


def test_injected_arguments_need_not_be_given():
    network = {
        "_target_": MLP_NAME,
        "_partial_": True,
        "hidden": [],
        "activation": "relu",
        "gated": False,
        "init": "torch",
    }
    assert schema_errors(node(a=network)) == []
    assert (
        schema_errors(node(a={"_target_": "vae_train.objective.schedule.linear.LinearBeta", "warmup": 1, "start": 0}))
        == []
    )


def test_interpolated_values_are_checked_as_what_they_stand_for():
    cfg = node(x=-1, a={"_target_": "vae_train.objective.schedule.linear.LinearBeta", "warmup": "${x}", "start": 0})
    assert schema_errors(cfg) == [ErrorDetail("a.warmup", "is -1, must be above 0")]


def test_trusted_classes_are_located():
    assert locate(MLP_NAME) is MLP
    assert locate("torch.optim.Adam") is torch.optim.Adam
    assert locate("torch.nn.Linear") is torch.nn.Linear


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load",
        "builtins.eval",
        "vae_train_evil.X",
        "subprocess.Popen",
        "",
    ],
)
def test_a_foreign_name_is_refused(target):
    with pytest.raises(UsageError, match="foreign class"):
        locate(target)


@pytest.mark.parametrize(
    "target",
    [
        "vae_train.runs.schema.Path",
        "vae_train.runs.schema.build",
        "vae_train.runs.run.subprocess",
        "vae_train.util.errors",
        "torch.nn.init.normal_",
        "torch.nn.functional.relu",
        "torch.nn",
    ],
)
def test_what_is_no_class_of_a_trusted_package_is_refused(target):
    with pytest.raises(UsageError, match="is not a class of"):
        locate(target)


@pytest.mark.parametrize(
    "target", ["vae_train.nothing.X", "vae_train.util.errors.Nothing", "vae_train..X", "vae_train"]
)
def test_a_class_that_does_not_exist_is_refused(target):
    with pytest.raises(UsageError, match="there is no class"):
        locate(target)


def test_a_foreign_module_is_not_even_imported():
    code = "from vae_train.runs.schema import locate\ntry:\n    locate('antigravity.X')\nexcept Exception: pass\n"
    code += "import sys; sys.exit('antigravity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_allow_adds_a_package_and_no_more():
    assert locate("pathlib.Path", ["pathlib"]).__name__ == "Path"
    with pytest.raises(UsageError, match="add allow=decimal"):
        locate("decimal.Decimal", ["pathlib"])


def test_build_calls_the_constructor_with_injected_arguments_that_it_names():
    found = build(
        node(_target_="vae_train.objective.schedule.linear.LinearBeta", warmup=2, start=0.5),
        steps_per_epoch=4.0,
        nothing="ignored",
    )
    assert isinstance(found, LinearBeta)
    assert [found(step) for step in (0, 8)] == [0.5, 1.0]


def test_build_makes_inner_nodes_first_and_partials_wait():
    cfg = node(
        model={
            "_target_": "vae_train.objective.elbo.ELBO",
            "beta": 2.0,
            "num_samples": 1,
            "beta_schedule": {"_target_": "vae_train.objective.schedule.linear.LinearBeta", "warmup": 1, "start": 1.0},
            "capacity": None,
            "capacity_epochs": 1,
            "free_bits": 0,
            "free_bits_per": "group",
        },
        network={
            "_target_": MLP_NAME,
            "_partial_": True,
            "hidden": [4],
            "activation": "tanh",
            "gated": False,
            "init": "he",
        },
    )
    assert build(cfg.model, steps_per_epoch=1.0).beta_schedule(0) == 1.0
    network = build(cfg.network)(in_shape=(1, 2, 2), out_shape=(3,))
    assert network(torch.zeros(5, 1, 2, 2)).shape == (5, 3)


@pytest.mark.parametrize("partial", [False, True])
def test_a_value_error_of_a_constructor_names_the_node(partial):
    cosine = {"_target_": "vae_train.training.lr.CosineRate", "_partial_": partial, "warmup": 9, "final": 0.0}
    arguments = {"steps_per_epoch": 1.0, "epochs": 5}

    def make():
        found = build(node(a={"b": cosine}).a.b, **arguments)
        return found(**arguments)

    with pytest.raises(UsageError) as caught:
        make()
    assert [m.where for m in caught.value.errors] == ["a.b"]


def test_build_refuses_a_foreign_class():
    with pytest.raises(UsageError, match=r"foreign class os\.system"):
        build(node(_target_="os.system", command="true"))
