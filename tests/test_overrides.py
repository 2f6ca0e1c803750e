"""What is composed for the check is what Hydra's own application would have composed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from vae_train.cli.commands.train import Settings
from vae_train.cli.main import _application, _composed
from vae_train.cli.overrides import checked
from vae_train.util.errors import UsageError

WORDS = [
    [],
    ["beta=0.5", "latent_dim=5"],
    ["model=conv", "objective=iwae", "objective.num_samples=3", "+optimizer.amsgrad=true", "name='a b'"],
    ["experiment=pytorch_example", "epochs=2", "model/prior=vamp", "model.prior.components=7"],
]


class Spy:
    """A command's function that keeps what it is given, and what Hydra then says of itself."""

    def __call__(self, cfg):
        self.cfg = OmegaConf.to_container(cfg, resolve=True)
        self.hydra = OmegaConf.to_container(HydraConfig.get(), resolve=True)
        # Hydra's own application adds hydra.mode=RUN to what was typed, and --config-dir is no search path to it.
        del self.hydra["overrides"]["hydra"], self.hydra["runtime"]["config_sources"], self.hydra["searchpath"]


def composed(words, **further):
    whole = checked("train", words, Settings, lambda cfg, words: [], **further).whole
    assert whole is not None
    return whole


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_a_job_finds_what_hydra_would_have_given_it(words):
    ours, hydras = Spy(), Spy()
    _composed("train", ours, composed(words))
    _application("train", hydras, words)
    assert (ours.cfg, ours.hydra) == (hydras.cfg, hydras.hydra)


def test_a_further_folder_counts(tmp_path: Path):
    (tmp_path / "objective").mkdir()
    (tmp_path / "objective" / "mine.yaml").write_text("defaults: [elbo, _self_]\nnum_samples: 3\n")
    ours, hydras = Spy(), Spy()
    _composed("train", ours, composed(["objective=mine"], config_dir=str(tmp_path)))
    _application("train", hydras, ["--config-dir", str(tmp_path), "objective=mine"])
    assert (ours.cfg, ours.hydra) == (hydras.cfg, hydras.hydra)
    assert ours.cfg["objective"]["num_samples"] == 3


@pytest.mark.parametrize(
    ("words", "sweep"), [(["hydra.job.name=x"], False), (["hydra.verbose=true", "beta=2"], False), (["beta=1,2"], True)]
)
def test_hydra_composes_a_sweep_and_what_is_about_itself(words, sweep):
    assert checked("train", words, Settings, lambda cfg, words: [], sweep=sweep).whole is None


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("hydra/launcher=foo", "no such hydra launcher (basic)"),
        ("hydra/launchers=basic", "there is no group hydra/launchers"),
        ("hydra.foo=1", "is not for Hydra: Could not override 'hydra.foo'."),
        ("hydra.job.chdir=maybe", "is not for Hydra: Error merging override hydra.job.chdir=maybe"),
        ("hydra.mode=MULTIRUN", "is what -m says"),
    ],
)
@pytest.mark.parametrize("sweep", [False, True])
def test_what_hydra_cannot_be_told_is_a_mistake_like_any_other(word, why, sweep):
    with pytest.raises(UsageError) as caught:
        checked("train", [word, "beta=x"], Settings, lambda cfg, words: [], sweep=sweep)
    assert [(m.where, m.message) for m in caught.value.errors] == [
        (word, why),
        ("beta=x", "is 'x', expected a number"),
    ]


@pytest.mark.parametrize("word", ["+hydra.job.env_set.X=1", "hydra.verbose=true", "hydra/job_logging=default"])
def test_what_hydra_can_be_told_is_left_to_it(word):
    assert checked("train", [word], Settings, lambda cfg, words: []) == ([[word]], None, [])
