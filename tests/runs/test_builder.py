"""Which classes a configuration may name, and how they are built."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from vae_train.model.architecture.mlp import MLP
from vae_train.objective.schedule import LinearBeta
from vae_train.runs.build import Builder
from vae_train.runs.config import Config
from vae_train.training.optimizer import capturable
from vae_train.util.errors import UsageError

MLP_NAME = "vae_train.model.architecture.mlp.MLP"
LINEAR_NAME = "vae_train.objective.schedule.LinearBeta"
locate, build = Builder().locate, Builder().build


def test_components_are_located():
    assert locate(MLP_NAME) is MLP
    assert locate("torch.optim.Adam") is torch.optim.Adam


@pytest.mark.parametrize(
    "target",
    [
        *("os.system", "torch.load", "torch.hub.load", "builtins.eval", "vae_train_evil.X", "subprocess.Popen", ""),
        *("torch.nn.Linear", "vae_train.runs.run.Run", "vae_train.training.checkpoint.Checkpoints"),
        "vae_train.data.storage.published.Arrays",
    ],
)
def test_a_class_outside_the_catalogue_is_refused(target):
    with pytest.raises(UsageError, match="is not a component of vae_train"):
        locate(target)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "vae_train.model.vae.fit_output_bias",
            "vae_train.objective.elbo.torch",
            "torch.optim.swa_utils.AveragedModel",
        ),
        *("vae_train.model.vae.Callable", "torch.optim.adam.torch", "torch.optim.lr_scheduler.StepLR"),
    ],
)
def test_the_object_counts_and_not_its_name(target):
    with pytest.raises(UsageError, match="is not a component of vae_train or an optimiser"):
        locate(target)


@pytest.mark.parametrize("target", ["vae_train.model.nothing.X", "vae_train.model.vae.Nothing", "vae_train.model..X"])
def test_a_class_that_does_not_exist_is_refused(target):
    with pytest.raises(UsageError, match="there is no class"):
        locate(target)


def test_a_foreign_module_is_not_even_imported():
    code = "from vae_train.runs.build import Builder\ntry:\n    Builder().locate('antigravity.X')\n"
    code += "except Exception: pass\nimport sys; sys.exit('antigravity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_allow_adds_a_package_and_no_more():
    builder = Builder(["fractions"])
    assert builder.locate("fractions.Fraction").__name__ == "Fraction"
    with pytest.raises(UsageError, match="add allow=yaml"):
        builder.locate("yaml.Loader")


def test_build_calls_the_constructor_with_known_arguments_that_it_names():
    built = build({"_target_": LINEAR_NAME, "warmup": 2, "start": 0.5}, steps_per_epoch=4.0, nothing="ignored")
    assert isinstance(built, LinearBeta)
    assert [built(step) for step in (0, 8)] == [0.5, 1.0]


def test_inner_nodes_are_built_first_and_partials_wait():
    elbo = {
        "_target_": "vae_train.objective.elbo.ELBO",
        "beta": 2.0,
        "num_samples": 1,
        "beta_schedule": {"_target_": LINEAR_NAME, "warmup": 1, "start": 1.0},
        "capacity": None,
        "capacity_epochs": 1,
        "free_bits": 0,
        "free_bits_per": "group",
    }
    assert build(elbo, steps_per_epoch=1.0).beta_schedule(0) == 1.0
    mlp = {"_target_": MLP_NAME, "_partial_": True, "hidden": [4], "activation": "tanh", "gated": False, "init": "he"}
    network = build(mlp)(in_shape=(1, 2, 2), out_shape=(3,))
    assert network(torch.zeros(5, 1, 2, 2)).shape == (5, 3)


@pytest.mark.parametrize("partial", [False, True])
def test_a_value_error_of_a_constructor_names_the_node(partial):
    cosine = {"_target_": "vae_train.training.lr.CosineRate", "_partial_": partial, "warmup": 9, "final": 0.0}
    arguments = {"steps_per_epoch": 1.0, "epochs": 5}

    def construct():
        built = build(Config({"a": {"b": cosine}})["a"]["b"], **arguments)
        return built(**arguments)

    with pytest.raises(UsageError) as caught:
        construct()
    assert [e.where for e in caught.value.errors] == ["a.b"]


def test_build_refuses_a_foreign_class():
    with pytest.raises(UsageError, match=r"os\.system is not a component"):
        build({"_target_": "os.system", "command": "true"})


def test_an_optimizer_of_a_configuration_can_be_captured():
    constructor = capturable(build(Config({"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3})))
    assert constructor([torch.zeros(2, requires_grad=True)]).defaults["capturable"]
