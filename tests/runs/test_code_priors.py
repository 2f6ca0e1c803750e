"""Priors that are fitted to codes: training, resume, and what they save."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from tests.runs.test_fitted_priors import FITTED, KINDS
from tests.support import BUILDER, CONF, NOISE, build_model, compose, loaded, plain
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.encodings import encode_codes
from vae_train.evaluation.subject import Noise, Subset
from vae_train.model.prior.fitted.base import CodePrior
from vae_train.rng import generator
from vae_train.runs.fitted_priors import compare_priors, fit_prior

CODE_KINDS = [kind for kind in FITTED if kind not in KINDS]
SETTINGS = {
    "autoregressive": {"width": 16, "layers": 2, "heads": 2, "lr": 1e-2},
    "pixelcnn": {"width": 12, "layers": 3, "lr": 1e-2},
}
K = 5
kinds = pytest.mark.parametrize("kind", CODE_KINDS)


def node(kind: str, **settings: Any) -> Any:
    cfg = OmegaConf.load(CONF / "fitted_prior" / f"{kind}.yaml")
    return plain(OmegaConf.merge(cfg, SETTINGS[kind], {"steps": 250, "patience": 10}, settings))


def fit(
    kind: str, codes: torch.Tensor, checkpoint: Any = None, num_codes: int = K, device: str = "cpu", **settings: Any
) -> CodePrior:
    codebook = SimpleNamespace(code_shape=tuple(codes.shape[1:]), num_codes=num_codes)
    model: Any = SimpleNamespace(codebook=codebook, data_shape=(1, 8, 8), device=torch.device(device))
    return fit_prior(node(kind, **settings), model, codes, 0, BUILDER, checkpoint)  # type: ignore[return-value]


def waves(count: int, key: int) -> torch.Tensor:
    """Maps `(N, 3, 3)` in which every code is that to the left plus 1, or with probability 0.1 any code.

    The first of a row is that above plus 2, and the very first is uniform, so every frequency table is uniform.
    """
    source = generator(0, "waves", key)
    codes = torch.randint(K, (count, 3, 3), generator=source)
    copied = torch.rand(count, 3, 3, generator=source) < 0.9
    for row in range(3):
        for column in range(3):
            if row or column:
                before = codes[:, row, column - 1] + 1 if column else codes[:, row - 1, 0] + 2
                codes[:, row, column] = torch.where(copied[:, row, column], before % K, codes[:, row, column])
    return codes


def entropy_of_waves() -> float:
    """Exact, in nats per map."""
    stays, other = 0.9 + 0.1 / K, 0.1 / K
    return math.log(K) - 8 * (stays * math.log(stays) + (K - 1) * other * math.log(other))


@pytest.mark.slow
@kinds
def test_structure_is_learned_that_a_frequency_table_cannot_see(kind: str) -> None:
    prior, there = fit(kind, waves(2000, 0), batch_size=32), waves(500, 1)
    entropy, table = -prior.log_prob(there).mean().item(), -prior.table_log_prob(there).mean().item()
    assert table == pytest.approx(9 * math.log(K), abs=0.1)
    assert entropy_of_waves() - 0.4 < entropy < entropy_of_waves() + 1 < table - 5


@kinds
def test_without_structure_it_is_as_good_as_the_frequency_table(kind: str) -> None:
    source = generator(0, "independent")
    mass = (2 * torch.randn(6, K, generator=source)).softmax(-1)
    codes = torch.stack([torch.multinomial(row, 1500, True, generator=source) for row in mass], 1).view(-1, 2, 3)
    prior, there = fit(kind, codes[:1000], steps=100), codes[1000:]
    assert prior.log_prob(there).mean() > prior.table_log_prob(there).mean() - 0.05


@pytest.mark.parametrize(
    ("kind", "posterior", "count"),
    [
        ("autoregressive", ["fsq", "levels=3"], 4),
        ("pixelcnn", ["fsq", "levels=3"], 4),
        ("autoregressive", ["vq", "num_codes=9"], 4),
        ("pixelcnn", ["rvq", "num_codes=9", "quantizers=2"], 8),
    ],
)
@torch.no_grad()
def test_bits_per_dim_fall_by_exactly_what_the_prior_saves(kind: str, posterior: list[str], count: int) -> None:
    """(L·log K - cross-entropy) / (D log 2), on the codes of a model of images."""
    name, *settings = posterior
    cfg = compose(
        *("model=conv_spatial", f"model/posterior={name}", "latent_shape=[2,2,2]", "model.encoder.channels=4"),
        *(f"model.posterior.{setting}" for setting in settings),
    )
    data = loaded(cfg)
    model: Any = build_model(cfg, data.facts.data_shape, data.facts.levels)
    model.initialize(data.split("train"))
    images = Subset(data.split("test"), 100)
    codes = encode_codes(model, data.split("train"), noise=Noise(0, "fit", "train"))
    before = image_bounds(model, images, noise=NOISE)
    with torch.enable_grad():
        model.prior = fit_prior(node(kind, steps=50), model, codes, 0, BUILDER)
    after = image_bounds(model, images, noise=NOISE)
    entropy = -model.prior.log_prob(encode_codes(model, images, noise=NOISE).long())
    saved = (count * math.log(9) - entropy) / (64 * math.log(2))
    assert saved.mean() > 0.01
    assert torch.allclose((before["bits_per_dim"] - after["bits_per_dim"]).double(), saved, atol=1e-5)
    assert torch.allclose(before["rate"].double(), torch.full_like(entropy, count * math.log(9)))
    assert torch.equal(before["distortion"], after["distortion"])


@kinds
def test_a_comparison_is_of_the_same_codes(kind: str) -> None:
    cfg = compose("model/posterior=categorical", "model/prior=categorical", "latent_dim=20")
    model: Any = build_model(cfg, (1, 8, 8), 17)
    codes = torch.randint(5, (300, 4), generator=generator(0, "codes"))
    prior = fit_prior(node(kind, steps=20), model, codes, 0, BUILDER)
    found = compare_priors(model, prior, codes)
    assert found["own"].value == pytest.approx(-4 * math.log(5), rel=1e-6)
    assert found["gain"].value == pytest.approx(found["fitted"].value - found["own"].value, abs=1e-6)
    assert found["frequency_table"].value == pytest.approx(prior.table_log_prob(codes).mean().item())


class Interrupted(Exception):
    pass


class Memory:
    """A checkpoint in memory, of a training that is interrupted once, after a number of updates."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        import signal

        from vae_train.training.learner import Learner

        self.state: dict[str, Any] | None = None
        step, taken = Learner.step, [0]

        def counted(learner: Learner, inputs: Any) -> Any:
            taken[0] += 1
            if taken[0] == after:
                signal.raise_signal(signal.SIGINT)
            return step(learner, inputs)

        monkeypatch.setattr(Learner, "step", counted)

    def load(self) -> dict[str, Any] | None:
        return self.state

    def save(self, state: dict[str, Any]) -> None:
        self.state = state

    def stop(self, signal: int, step: int) -> Any:
        raise Interrupted(step)


@kinds
@pytest.mark.parametrize("after", [20, pytest.param(50, marks=pytest.mark.slow)])  # an evaluation is due after 50
def test_an_interrupted_training_continues_bit_for_bit(
    kind: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = waves(300, 2)
    whole = fit(kind, codes, steps=70, batch_size=16)
    memory = Memory(monkeypatch, after)
    with pytest.raises(Interrupted) as stopped:
        fit(kind, codes, memory, steps=70, batch_size=16)
    assert stopped.value.args == (after,)
    torch.save(memory.state, tmp_path / "state.pt")
    memory.state = torch.load(tmp_path / "state.pt", weights_only=True)
    again = fit(kind, codes, memory, steps=70, batch_size=16)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_large_batches_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = waves(200, 3)
    whole = fit("autoregressive", codes, steps=20)
    monkeypatch.setattr("vae_train.model.prior.fitted.base.MAX_ELEMENTS", 64 * 9 * 9 // 3)
    parts = fit("autoregressive", codes, steps=20)
    assert parts.gradient_training is not None
    assert parts.gradient_training.microbatches == 3
    assert torch.allclose(parts.log_prob(codes), whole.log_prob(codes), atol=0.02)


def test_epochs_are_a_number_of_updates() -> None:
    prior = fit("autoregressive", waves(90, 4), steps=1)
    training = prior.gradient_training
    assert training is not None
    assert training._replace(steps=None, epochs=3, batch_size=20).num_steps(90) == 14
