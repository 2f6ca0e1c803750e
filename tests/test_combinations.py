"""Every pair of components trains, or is refused with a sentence; the full product is for `scripts/test --slow`."""

from __future__ import annotations

import itertools
import math
import random
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from tests.support import (
    BINARY,
    InMemory,
    build_learner,
    build_model,
    choices,
    combination_errors,
    compose,
    levels_for,
    loaded,
    locate,
    model_errors,
    single_latent_models,
    update,
)
from vae_train.batch import Batch
from vae_train.rng import Rng
from vae_train.runs import compatibility
from vae_train.util.errors import ErrorDetail

AXES = ("objective", "posterior", "prior", "likelihood", "model")
STEPS, FEW_STEPS, BATCH = 20, 5, 8
MOST = {"components": 20, "num_samples": 4, "groups": 2, "transforms": 2, "flows": 2, "channels": 8, "projections": 10}
MOST |= {"num_codes": 16, "quantizers": 2}
ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "combinations"

Choice = tuple[str, ...]
"""One name per axis."""
Part = tuple[tuple[int, str], ...]
"""Some axes by number, with a name of each."""


@cache
def names(axis: str) -> list[str]:
    if axis == "model":
        return single_latent_models()
    return choices(axis if axis == "objective" else f"model/{axis}")


@cache
def parts() -> dict[tuple[str, str], dict[str, Any]]:
    """The node of every part; `small` ones, as all that is trained here."""
    return {key: small(node) for key, node in runpy.run_path(str(SCRIPT))["nodes"]().items()}


def small(found: dict[str, Any]) -> dict[str, Any]:
    """The same, with sizes at which a step costs little; none of them decides what goes with what."""
    sizes = {key: min(found[key], most) for key, most in MOST.items() if key in found}
    hidden = {"hidden": [16] * len(found["hidden"])} if "hidden" in found else {}
    return found | sizes | hidden


@cache
def networks(name: str) -> DictConfig:
    nets = ["model.encoder.hidden=[16]", "model.decoder.hidden=[16]"]
    return compose(f"model={name}", *(nets if name == "mlp" else ["model.encoder.channels=4"])).model


def latent_shape(model: str) -> list[int]:
    return [2, 4, 4] if model == "conv_spatial" else [10]


@cache
def refusals(objective: str, posterior: str, prior: str, likelihood: str, model: str = "mlp") -> list[ErrorDetail]:
    names = {"posterior": posterior, "prior": prior, "likelihood": likelihood}
    nodes = {place: parts()[place, name] for place, name in names.items()}
    node = {"_target_": networks(model)._target_, "latent_shape": latent_shape(model), **nodes}
    return compatibility.combination_errors(node, parts()["objective", objective], locate)


def refused(*choice: str) -> bool:
    return bool(refusals(*choice))


def meaningful(choice: Choice) -> bool:
    return not refused(*choice)


@cache
def digits(levels: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    data = loaded(compose())
    batch = data.training().fetch(torch.arange(STEPS * BATCH))
    return (batch.x.round() if levels == 2 else batch.x), batch.y


def configured(choice: Choice) -> DictConfig:
    objective, posterior, prior, likelihood, model = choice
    cfg = compose("execution=eager", *BINARY)
    cfg.latent_shape = latent_shape(model)
    cfg.latent_dim = math.prod(cfg.latent_shape)
    cfg.model, cfg.objective = networks(model).copy(), parts()["objective", objective]
    for place, name in (("posterior", posterior), ("prior", prior), ("likelihood", likelihood)):
        cfg.model[place] = parts()[place, name]
    if "latent_shape" in cfg.objective:
        cfg.objective.latent_shape = cfg.latent_shape
    return cfg


def train(choice: Choice, steps: int = STEPS) -> None:
    cfg, levels = configured(choice), levels_for(parts()["likelihood", choice[3]])
    model = build_model(cfg, (1, 8, 8), levels)
    x, y = digits(levels)
    model.initialize(InMemory(x, y))
    learner = build_learner(cfg, model)
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        scalars = update(learner, Batch(x[rows], y[rows]), step)
        bad = [name for name, value in scalars.items() if not value.isfinite()]
        assert not bad, f"{choice}: {bad} at step {step}"
    assert all(p.isfinite().all() for p in learner.parameters), choice
    with torch.no_grad():
        assert model.sample(2, Rng(0, "x")).mean.isfinite().all(), choice


def completions(part: Part, dice: random.Random) -> list[Choice]:
    """Some meaningful choices that hold a pair or a triple; none where there are none at all."""
    fixed = {number: [name] for number, name in part}
    whole = [fixed.get(number, names(axis)) for number, axis in enumerate(AXES)]
    drawn = {tuple(dice.choice(options) for options in whole) for _ in range(TRIED)}
    found = sorted(choice for choice in drawn if meaningful(choice))
    return found or list(itertools.islice(filter(meaningful, itertools.product(*whole)), 1))


@cache
def covering(size: int) -> list[Choice]:
    """Meaningful choices that together hold every `size` components that any meaningful choice holds."""

    def parts_of(choice: Choice) -> set[Part]:
        return set(itertools.combinations(enumerate(choice), size))

    dice, found, held = random.Random(0), list[Choice](), set[Part]()
    for axes in itertools.combinations(enumerate(map(names, AXES)), size):
        numbers = [number for number, _ in axes]
        for chosen in itertools.product(*(options for _, options in axes)):
            part = tuple(zip(numbers, chosen, strict=True))
            tried = [] if part in held else completions(part, dice)
            if tried:
                found.append(max(tried, key=lambda choice: (len(parts_of(choice) - held), -dear(choice))))
                held |= parts_of(found[-1])
    return found


def dear(choice: Choice) -> int:
    """How many of its parts take long to train."""
    return len(DEAR & set(choice))


DEAR = {
    *(
        "conv",
        "conv_spatial",
        "vamp",
        "exemplar",
        "maf",
        "realnvp",
        "spline",
        "iaf",
        "sylvester",
        "low_rank",
        "von_mises_fisher",
    ),
    *(
        "vae_gan",
        "first_stage",
        "wae_gan",
        "factor_vae",
        "sliced_wasserstein",
        "miwae",
        "piwae",
        "ciwae",
        "logistic_mixture",
    ),
}

TRIED = 30
"""Choices that are sampled for each pair or triple. The one with the most that are not covered yet is taken, of several
the one that is trained sooner."""

SHARES = 16
"""The covering is walked through in as many tests, so that workers share it."""


@pytest.mark.parametrize(
    "share", [pytest.param(n, marks=[pytest.mark.slow] if n % 8 != 1 else []) for n in range(SHARES)]
)
def test_every_pair_of_components_trains(share):
    for choice in covering(2)[share::SHARES]:
        train(choice, FEW_STEPS)


SPATIAL = [
    *(("elbo", posterior, "standard_normal") for posterior in names("posterior")),
    *(("elbo", "gaussian", prior) for prior in names("prior")),
    *((objective, "gaussian", "standard_normal") for objective in names("objective")),
    *((objective, "deterministic", "standard_normal") for objective in ("rae", "wae_mmd")),
]


@pytest.mark.parametrize(("objective", "posterior", "prior"), sorted(set(SPATIAL)))
def test_every_component_trains_on_spatial_latents_or_is_refused(objective, posterior, prior):
    choice = (objective, posterior, prior, "bernoulli", "conv_spatial")
    if refused(objective, posterior, prior, "bernoulli"):
        return  # not because of the latents' shape
    if refused(*choice):
        assert posterior in ("von_mises_fisher", "categorical", "joint")
        return
    train(choice, steps=2)


@pytest.mark.parametrize("posterior", ["von_mises_fisher", "categorical", "joint"])
def test_posteriors_that_need_a_vector_say_so(posterior):
    prior = {"von_mises_fisher": "uniform_sphere"}.get(posterior, posterior)
    (error,) = combination_errors(configured(("elbo", posterior, prior, "bernoulli", "conv_spatial")))
    assert error.where == f"model/posterior={posterior}"
    assert error.message == (
        "needs a latent vector, but latent_shape has 3 dimensions; use latent_dim=32 or model/posterior=gaussian"
    )


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_every_triple_of_components_trains(share):
    for choice in covering(3)[share::SHARES]:
        train(choice)


@pytest.mark.slow
@pytest.mark.parametrize("posterior", names("posterior"))
@pytest.mark.parametrize("objective", names("objective"))
def test_every_meaningful_choice_trains(objective, posterior):
    for rest in itertools.product(*(names(axis) for axis in AXES[2:])):
        choice = (objective, posterior, *rest)
        if meaningful(choice):
            train(choice)


def test_every_component_is_part_of_a_meaningful_choice():
    held = {(axis, choice[number]) for choice in covering(2) for number, axis in enumerate(AXES)}
    assert held == {(axis, name) for axis in AXES for name in names(axis)}


def test_a_refusal_says_what_to_use():
    found = [refusals(*choice) for choice in itertools.product(*(names(axis) for axis in AXES[:4]))]
    errors = {error for each in found for error in each}
    assert len(errors) > 20
    assert all("use " in error.message.lower() or "=" in error.message for error in errors), errors


def test_the_command_line_refuses_what_is_refused():
    objective, posterior, prior, likelihood = next(
        c for c in itertools.product(*(names(axis) for axis in AXES[:4])) if refused(*c) and c[3] == "bernoulli"
    )
    cfg = compose(
        f"objective={objective}",
        f"model/posterior={posterior}",
        f"model/prior={prior}",
        f"model/likelihood={likelihood}",
        "data.binarize=threshold",
    )
    assert model_errors(cfg)


def test_the_table_in_the_docs_is_that_of_the_code():
    made = runpy.run_path(str(SCRIPT))["page"]()
    assert made == (ROOT / "docs" / "combinations.md").read_text(encoding="utf-8"), "run scripts/combinations"
