"""Tables of numbers, from the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.commandline import Vae, rows


def test_missing_numbers_are_counted_by_column(tmp_path: Path, vae: Vae) -> None:
    rows = [f"{'' if i < 3 else i},{i},{'nan' if i == 5 else i}" for i in range(100)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b,c", *rows]))
    (line,) = vae("train", "data=arrays", f"data.path={tmp_path}/x.csv").errors()
    assert "missing numbers (NaN): 3 in column 0, 1 in column 2; data.missing=mask trains without them" in line


def test_missing_numbers_are_trained_around_and_said_on_the_console(tmp_path: Path, vae: Vae) -> None:
    rows = [f"{'' if i < 3 else i},{i},{'nan' if i == 95 else i}" for i in range(100)]
    (tmp_path / "x.csv").write_text("\n".join(["a,b,c", *rows]))
    arguments = ("data=arrays", f"data.path={tmp_path}/x.csv", "data.missing=mask")
    answer = vae.train(*arguments, "objective=miwae", "batch_size=16", "out=run")
    assert answer.code == 0, answer.err
    assert "missing numbers (NaN): 3 in column 0, 1 in column 2" in answer.out
    answer = vae("eval", "run=run", "k=5")
    assert "a density of the numbers in the file that are not missing" in answer.out
    assert "1.33 % of the values of these images" in vae("data", *arguments, "data.valid=0", "data.test=0").out
    assert vae("sample", "run=run", "num=2", "npz=true").code == 0
    assert np.isfinite(np.load(next(Path("run/samples").glob("*.npz")))["images"]).all()


def test_a_table_is_trained_on(tmp_path: Path, vae: Vae) -> None:
    (tmp_path / "x.csv").write_text("\n".join(["a,name,c", *(f"{i},x,{2 * i}" for i in range(100))]))
    answer = vae.train("data=arrays", f"data.path={tmp_path}/x.csv", "batch_size=16", "out=run")
    assert answer.code == 0, answer.err
    assert vae("sample", "run=run", "num=2").code == 0


def test_a_table_is_planned(vae: Vae) -> None:
    table = np.random.RandomState(0).randn(100, 3) * [1, 1000, 0.01] + [0, 5000, 7]
    table[0, 0] = np.nan
    np.save("x.npy", table)
    arguments = ("data=arrays", "data.path=x.npy", "data.missing=mask", "batch_size=16")
    answer = vae.train(*arguments, "model/likelihood=gaussian", "plan=true")
    assert "timed on random images" in answer.out, answer
    assert "timed on random images" in vae.train(*arguments, "model/likelihood=beta", "plan=true").out


def test_bits_per_dimension_are_those_of_the_observed_pixels(vae: Vae) -> None:
    pixels = np.ones((60, 8, 8), np.float32)
    pixels[:, :, 3:] = np.nan
    np.save("x.npy", pixels)
    arguments = ("data.levels=2", "data.range=[0,1]", "model/likelihood=bernoulli", "model.output_bias=data")
    answer = vae.train("data=arrays", "data.path=x.npy", "data.missing=mask", "batch_size=16", *arguments, "out=run")
    assert answer.code == 0, answer.err
    (*_, row) = [row for row in rows(Path("run")) if row["split"] == "valid"]
    assert row["bits_per_dim"] == pytest.approx(-row["elbo"] / (24 * math.log(2)), rel=1e-4)
    assert vae("eval", "run=run", "k=50").code == 0
    report = json.loads(Path("run/eval/test.json").read_text())
    assert report["nll_bits_per_dim"]["value"] == pytest.approx(report["nll"]["value"] / (24 * math.log(2)), rel=1e-4)
