"""Every YAML composes, is built, and says what its class's signature says."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from tests.support import (
    CATALOGUES,
    CONF,
    OPEN,
    PACKAGE,
    annealed,
    build,
    build_learner,
    build_model,
    build_objective,
    catalogue_modules,
    choices,
    chosen,
    classes_in,
    compose,
    facts_without_files,
    locate,
    schema_errors,
)
from vae_train.batch import DataFacts
from vae_train.cli.schema import unread_knobs
from vae_train.model.base import LatentVariableModel
from vae_train.objective.base import Objective
from vae_train.runs.schema import injected, parameters
from vae_train.util.errors import ErrorDetail, UsageError

COMPONENTS_OF_A_RUN = {"model", "objective", "optimizer", "lr_schedule", "gradients", "ranks"}
PLACES = {
    "distributed": "vae_train.training.distributed",
    "optimizer": "torch.optim",
    "lr_schedule": "vae_train.training.lr",
    "objective/beta_schedule": "vae_train.objective.schedule",
    "logger": "vae_train.training.loggers",
    "metric": "vae_train.evaluation.metrics",
    "fitted_prior": "vae_train.model.prior.fitted",
    "launch": "vae_train.runs.cluster",
    "task": "vae_train.runs.apply.tasks",
    "search": "vae_train.runs.search.samplers",
    **dict.fromkeys(("augmentation", "corruption", "preprocessing"), "vae_train.data.transforms"),
}
COMMANDS = sorted(path.stem for path in (PACKAGE / "cli" / "commands").glob("[a-z]*.py"))
YAMLS = sorted(path.relative_to(CONF) for path in CONF.rglob("*.yaml") if path.parent != CONF)
COMPONENTS = [path for path in YAMLS if path.parts[0] != "experiment"]
DATA = choices("data")


def composed(path: Path) -> DictConfig:
    """The command that reads a YAML, with this choice."""
    if str(path.parent) == "metric":
        return compose(f"+metric@metrics.{path.stem}={path.stem}", command="eval")
    if str(path.parent) == "fitted_prior":
        return compose(f"fitted_prior@prior={path.stem}", command="fit_prior")
    return compose(f"{path.parent}={path.stem}", command="apply" if str(path.parent) == "task" else "train")


def named(paths: list[Path]) -> Any:
    return pytest.mark.parametrize("path", paths, ids=map(str, paths))


def nodes(tree: Any) -> list[dict[str, Any]]:
    """All nodes with a `_target_`."""
    if isinstance(tree, list):
        return [node for item in tree for node in nodes(item)]
    if not isinstance(tree, dict):
        return []
    return [tree] * ("_target_" in tree) + [node for value in tree.values() for node in nodes(value)]


def raw(path: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(CONF / path), resolve=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_composes(command):
    assert len(compose(command=command)) > 3


@pytest.mark.parametrize(
    "overrides",
    [
        ("latent_dim=5", "beta=0.5"),
        ("model=conv", "model.encoder.channels=4", "objective=iwae", "objective.num_samples=3"),
        ("trainer.patience=3", "experiment=pytorch_example", "epochs=2"),
        ("optimizer=adam", "optimizer.betas=[0.5,0.9]", "+optimizer.amsgrad=true", "out=null", "name='a b'"),
    ],
)
def test_values_on_top_of_choices_are_what_hydra_composes(overrides):
    whole = chosen("train", *overrides).copy()
    whole.latent_shape = [whole.latent_dim]
    assert compose(*overrides) == whole


@named(YAMLS)
def test_every_yaml_composes_without_an_error(path):
    assert schema_errors(composed(path)) == []


@named(COMPONENTS)
def test_a_target_lies_where_its_yaml_lies(path):
    place = PLACES.get(str(path.parent), "vae_train." + str(path.parent).replace("/", "."))
    for node in nodes(raw(path)):
        assert node["_target_"].startswith(place + ".")


@named(COMPONENTS)
def test_keys_of_a_yaml_are_the_signature(path):
    for node in nodes(OmegaConf.to_container(composed(path), resolve=True)):
        filled_in = injected(locate(node["_target_"]), bool(node.get("_partial_"))) | COMPONENTS_OF_A_RUN
        target, keys = locate(node["_target_"]), {key for key in node if key not in ("_target_", "_partial_")}
        known = set(parameters(target))
        assert keys <= known
        if target.__module__.startswith("vae_train."):
            assert known - keys <= filled_in, f"{target.__name__} has parameters that its YAML does not show"
            assert all(p.default is p.empty for name, p in parameters(target).items() if name in keys), (
                f"a default of {target.__name__} stands in the YAML only"
            )


def stated(data: str) -> list[str]:
    """A data set whose facts are known without its files."""
    return [f"data={data}", *OPEN.get(data, [])]


def tried(cfg: DictConfig, facts: DataFacts) -> tuple[LatentVariableModel | None, list[ErrorDetail]]:
    """The model, or what its constructors said."""
    try:
        with torch.device("meta"):
            return build_model(cfg, facts.data_shape, facts.levels), []
    except UsageError as error:
        return None, error.errors


SHAPES = {"conv_spatial": ["latent_shape=[10,1,1]"], "resnet": ["model.encoder.blocks=1"]}
"""Latents that a model needs (one pixel is a scale of every image), and what makes it faster to build."""


@cache
def on_data(model: str, data: str) -> tuple[DictConfig, DataFacts]:
    """A model of a data set, whose likelihood is replaced, and the facts of the data."""
    cfg = compose(f"model={model}", *SHAPES.get(model, ()), *stated(data))
    return cfg, facts_without_files(cfg)


FEW_LIKELIHOODS = {"bernoulli", "categorical", "gaussian_pixel"}
"""One, several and two parameters per value; deep models are built with the others among the slow tests."""
DEEP = {"resnet", "ladder", "lvae", "hvae", "convhvae"}


@pytest.mark.parametrize(
    ("model", "likelihood"),
    [
        pytest.param(m, n, marks=[pytest.mark.slow] if m in DEEP and n not in FEW_LIKELIHOODS else [])
        for m in choices("model")
        for n in choices("model/likelihood")
    ],
)
def test_every_model_is_built_with_every_likelihood_that_takes_the_data(model, likelihood):
    node, taken = compose(f"model/likelihood={likelihood}").model.likelihood, 0
    for data in DATA:
        cfg, facts = on_data(model, data)
        cfg.model.likelihood = node  # composing every choice would take minutes
        with torch.device("meta"):
            built, wrong = tried(cfg, facts)
        knobs = {key: value for key, value in cfg.model.likelihood.items() if not key.startswith("_")}
        refused = locate(cfg.model.likelihood._target_).check_compatible(facts.levels, **knobs)
        assert [m.where for m in wrong] == ["model.likelihood"] * (built is None)
        if refused:
            assert wrong[0].message.startswith(refused.reason)
        taken += built is not None
    assert taken, "no data set goes with this likelihood"


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("model", choices("model"))
def test_a_data_set_names_a_likelihood_that_takes_it(model, data):
    cfg = compose(f"model={model}", *SHAPES.get(model, ()), *stated(data))
    facts = facts_without_files(cfg)
    with torch.device("meta"):
        assert build_model(cfg, facts.data_shape, facts.levels).levels == facts.levels


POSTERIORS = {"uniform_codes": ["model/posterior=fsq"]}
"""Priors that are only built with a posterior of their own."""


@pytest.mark.parametrize("part", ["prior", "posterior"])
def test_every_prior_and_posterior_is_built(part):
    for name in choices(f"model/{part}"):
        assert build_model(
            compose(f"model/{part}={name}", *(POSTERIORS.get(name, ()) if part == "prior" else ())), (1, 8, 8), 17
        )


@pytest.mark.parametrize("objective", choices("objective"))
def test_every_objective_is_built(objective):
    assert isinstance(build_objective(compose(f"objective={objective}")), Objective)


SCHEDULES = {("elbo", name) for name in choices("objective/beta_schedule")} | {(name, "cosine") for name in annealed()}
"""What a schedule is built from does not depend on the objective: every one of both, not every pair."""


@pytest.mark.parametrize(("objective", "beta_schedule"), sorted(SCHEDULES))
def test_every_annealed_objective_and_every_beta_schedule_is_built(objective, beta_schedule):
    cfg = compose(f"objective={objective}", f"objective/beta_schedule={beta_schedule}")
    assert isinstance(build_objective(cfg), Objective)


@pytest.mark.parametrize("name", choices("optimizer"))
def test_every_optimizer_is_built(name):
    optimizer = build(compose(f"optimizer={name}", "lr=0.25").optimizer)([torch.nn.Parameter(torch.zeros(2))])
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize("name", choices("lr_schedule"))
def test_every_lr_schedule_is_built(name):
    cfg = compose(f"lr_schedule={name}")
    assert build_learner(cfg, build_model(cfg, (1, 8, 8), 17)).lr_schedule.epochs == (cfg.epochs or 30)


def test_learner_and_trainer_are_built_from_the_top_knobs():
    cfg = compose("precision=bfloat16", "epochs=7", "batch_size=9", "execution=eager")
    assert build_learner(cfg, build_model(cfg, (1, 8, 8), 17)).precision == "bfloat16"
    trainer = build(cfg.trainer)
    assert (trainer.epochs, trainer.batch_size, trainer.execution) == (7, 9, "eager")


@pytest.mark.parametrize("name", choices("logger"))
def test_every_logger_is_built(name, tmp_path):
    for logger in build(compose(f"logger={name}").logger, folder=tmp_path, step=0).values():
        logger.close()


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_is_built(name):
    cfg = compose(f"experiment={name}")
    facts = facts_without_files(cfg)
    with torch.device("meta"):
        assert build_model(cfg, facts.data_shape, facts.levels)
    assert build(cfg.trainer).epochs == cfg.epochs


@pytest.mark.parametrize("folder", CATALOGUES)
def test_every_class_of_a_catalogue_has_a_yaml(folder):
    named_somewhere = {node["_target_"] for path in COMPONENTS for node in nodes(raw(path))}
    for module in catalogue_modules(folder):
        components = [c for c in classes_in(module) if not issubclass(c, tuple)]
        mine = {f"{c.__module__}.{c.__qualname__}" for c in components}
        assert mine, f"{module.__name__} defines nothing"
        assert mine <= named_somewhere


def test_no_group_shares_its_name_with_a_knob():
    knobs = set(raw(Path("train.yaml"))) - {"defaults", "hydra"}
    groups = {part for path in YAMLS for part in path.parent.parts}
    assert groups
    assert knobs & groups == set()


def test_the_default_configuration_reads_every_knob_that_components_can_read():
    assert (
        unread_knobs(compose(), ["latent_dim", "latent_shape", "beta", "lr", "batch_size", "epochs", "precision"]) == []
    )


@named(COMPONENTS)
def test_every_yaml_begins_by_saying_what_it_is(path):
    lines = [line for line in (CONF / path).read_text().splitlines() if not line.startswith("# @package")]
    assert lines[0].startswith("# ")
