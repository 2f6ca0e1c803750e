"""Conditional models, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commandline import Vae


@pytest.fixture
def run(vae: Vae) -> Path:
    answer = vae.train("model.condition=label", "out=run")
    assert answer.code == 0, answer.err
    return Path("run")


def test_a_conditional_model_is_evaluated_and_sampled_by_label(vae: Vae, run: Path) -> None:
    assert vae("eval", "run=run", "k=10").code == 0
    answer = vae("sample", "run=run", "label=3", "num=4")
    assert answer.code == 0, answer.err
    assert (run / "samples" / "prior-seed0-num4-label3.png").exists()
    (line,) = vae("sample", "run=run", "label=10").errors()
    assert line.endswith("no such class; use 0 to 9")
    (line,) = vae("sample", "run=run", "label=cat").errors()
    assert line.endswith("no such class; use 0 to 9")
    (line,) = vae("sample", "run=run", "factors=[1]").errors()
    assert "this run's model has model.condition=label" in line


def test_a_label_for_a_model_without_one_is_refused(vae: Vae, trained: Path) -> None:
    (line,) = vae("sample", f"run={trained}", "label=3").errors()
    assert "has no condition; train one with model.condition=label" in line


def test_factors_of_shapes(vae: Vae) -> None:
    data = ("data=shapes", "data.size=8", "data.num_train=200", "data.num_valid=20", "data.num_test=20")
    answer = vae.train(*data, "model.condition=factors", "out=run")
    assert answer.code == 0, answer.err
    (line,) = vae("sample", "run=run", "factors=[1]").errors()
    assert "the data has 5 factors" in line
    assert vae("sample", "run=run", "factors=[1,0,2,3,4]", "num=2").code == 0


def test_plan_of_a_conditional_model(vae: Vae) -> None:
    answer = vae("train", "model.condition=label", "plan=true")
    assert answer.code == 0, answer.err
    assert "parameters" in answer.out
