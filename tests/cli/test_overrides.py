"""What is composed here is what Hydra's own application would have composed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import hydra
import pytest
from omegaconf import OmegaConf

from vae_train.cli.commands.train import Settings
from vae_train.cli.hydra_compat import conf_dir
from vae_train.cli.overrides import compose_jobs
from vae_train.cli.parsing import to_override
from vae_train.runs.config import Config

WORDS = [
    [],
    ["beta=0.5", "latent_dim=5"],
    ["model=conv", "objective=iwae", "objective.num_samples=3", "+optimizer.amsgrad=true", "name='a b'"],
    ["experiment=pytorch_example", "epochs=2", "model/prior=vamp", "model.prior.components=7"],
]


def composed(words: list[str], **options: object) -> Config:
    (job,), errors = compose_jobs("train", words, Settings, **options)
    assert errors == []
    return job.config


def by_hydra(words: list[str]) -> Config:
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("train", overrides=words)
    cfg.latent_shape = [cfg.latent_dim]
    return Config(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_job_is_what_hydra_would_have_composed(words):
    assert composed(words) == by_hydra(words)


def test_a_further_folder_counts(tmp_path: Path):
    (tmp_path / "objective").mkdir()
    (tmp_path / "objective" / "mine.yaml").write_text("defaults: [elbo, _self_]\nnum_samples: 3\n")
    assert composed(["objective=mine"], config_dir=str(tmp_path)).at("objective.num_samples") == 3


def test_jobs_of_a_sweep_are_all_combinations():
    jobs, errors = compose_jobs("train", ["beta=1,2", "model=mlp,conv", "seed=range(3)"], Settings, multirun=True)
    assert errors == []
    assert len(jobs) == 12
    assert jobs[4].overrides == ("model=conv", "beta=1", "seed=1")
    assert (jobs[4].choices["model"], jobs[4].settings.beta, jobs[4].settings.seed) == ("conv", 1, 1)
    assert len({id(job.session) for job in jobs}) == 1


@pytest.mark.parametrize(
    ("words", "shape", "size"),
    [
        ([], (10,), 10),
        (["latent_dim=3"], (3,), 3),
        (["latent_shape=[2,4,4]"], (2, 4, 4), 32),
    ],
)
def test_latent_shape_and_dimension_follow_from_each_other(words, shape, size):
    config = composed(words)
    assert (config["latent_shape"], config["latent_dim"], config.at("model.latent_shape")) == (shape, size, shape)


@pytest.mark.parametrize("word", ["hydra.job.name=x", "hydra/launcher=basic", "hydra.mode=MULTIRUN", "+hydra.a=1"])
@pytest.mark.parametrize("multirun", [False, True])
def test_settings_of_hydra_have_no_effect_and_say_so(word, multirun):
    _, errors = compose_jobs("train", [word, "beta=x"], Settings, multirun=multirun)
    assert [e.where for e in errors] == [word, "beta=x"]
    assert errors[0].message.startswith("has no effect")


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 1e-7, float("inf"), "a b", "it's", "photos/my run", "a=b,c", "${x}", [1, "b c", None]],
)
def test_python_values_become_overrides_and_back(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    override = OverridesParser.create().parse_override(to_override("key", value))
    assert override.value() == value


def test_choices_may_be_quoted():
    assert composed([to_override("model", "conv")]) == composed(["model=conv"])


@dataclass
class Listing:
    """Settings of a command whose `format` is a list of choices."""

    run: str
    format: list[Literal["png", "pdf", "svg"]]


@pytest.mark.parametrize(
    ("typed", "formats"),
    [
        ("format=png", ["png"]),
        ("format=png,svg", ["png", "svg"]),
        ("format=png, svg", ["png", "svg"]),
        ("format=[png,svg]", ["png", "svg"]),
        (to_override("format", ("png", "svg")), ["png", "svg"]),
    ],
)
def test_a_list_of_choices_needs_no_brackets(typed, formats):
    (job,), errors = compose_jobs("eval", ["run=r", typed], Listing)
    assert errors == []
    assert list(job.settings.format) == formats


def test_commas_of_a_sweep_separate_lists_of_one_choice():
    jobs, errors = compose_jobs("eval", ["run=r", "format=png,svg"], Listing, multirun=True)
    assert errors == []
    assert [list(job.settings.format) for job in jobs] == [["png"], ["svg"]]
    jobs, errors = compose_jobs("eval", ["run=r", "format=[png,svg],[pdf]"], Listing, multirun=True)
    assert errors == []
    assert [list(job.settings.format) for job in jobs] == [["png", "svg"], ["pdf"]]


@pytest.mark.parametrize(
    ("typed", "where", "message"),
    [
        ("format=png,html", "format=png,html", "has no choice html (png, pdf, svg)"),
        ("format=pgn", "format=pgn", "has no choice pgn; did you mean png? (png, pdf, svg)"),
        ("format=", "format=", "is empty; choose from png, pdf, svg"),
        ("format=[]", "format=", "is empty; choose from png, pdf, svg"),
        ("format=png,png", "format=png,png", "names png twice"),
        ("format=null", "format=null", "is null, expected a list"),
    ],
)
def test_errors_in_a_list_of_choices(typed, where, message):
    jobs, errors = compose_jobs("eval", ["run=r", typed], Listing)
    assert [(error.where, error.message) for error in errors] == [(where, message)]
    assert jobs == []


@pytest.mark.parametrize("typed", ["format=png,svg,", "format=png,svg]", "format=(png,svg)"])
def test_a_list_of_choices_that_cannot_be_parsed_is_corrected(typed):
    _, (error, *_) = compose_jobs("eval", ["run=r", typed], Listing)
    assert error.where == typed
    assert error.message.partition("did you mean ")[2] in (
        "format=png,svg?",
        "'format=[png,svg]'?",
        "format=[png,svg]?",
    )
