from __future__ import annotations

import math

import pytest

from vae_train.evaluation.report import ROWS, comparison, conditions, lines, markdown, shown


def figure(value, se=None, **about):
    return {"value": value, "se": se, "count": 1234, **about}


def figures(**more):
    found = {name: figure(value, 0.25) for name, value in (("elbo", -90.0), ("rate", 20.0), ("distortion", 70.0))}
    about = {"split": "test", "images": 1234, "num_samples": 1, "protocol": "binary pixels", "why": {}}
    return {**found, "bits_per_dim": None, **about, **more}


@pytest.mark.parametrize(("given", "text"), [
    (figure(1.23456, 0.01), "1.23 ± 0.01"),
    (figure(1.23456), "1.23"),
    (figure(1.0, math.nan), "1.00"),
    (figure(3, of=50), "3.00 of 50"),
])  # fmt: skip
def test_a_value_stands_with_its_error(given, text):
    assert shown(given, 2) == text


def test_what_a_figure_was_measured_on_stands_beside_it():
    assert conditions(figure(1.0)) == "1,234 images"
    assert conditions(figure(1.0, draws=5000, by="features")) == "1,234 images, K = 5,000, features"


def test_every_figure_is_printed_once_and_in_the_table():
    given = figures(**{name: figure(0.5, 0.1) for name, _, _ in ROWS[3:]})
    printed, table = lines(given), markdown("run", given)
    for name, title, _ in ROWS[4:]:
        assert sum(line.startswith(title) for line in printed) >= 1, name
    assert all(f"| {title} | " in table for _, title, _ in ROWS)
    assert "0.5000 bits/dim" in printed[0]


def test_a_distance_is_called_fid_where_it_says_so_alone():
    for called in ({}, {"called": "FID"}):
        given = figures(frechet_distance=figure(12.0, **called))
        assert any(line.startswith("FID ") for line in lines(given)) is bool(called)
        assert ("| FID | 12.00 |" in markdown("run", given)) is bool(called)


def test_what_is_missing_says_why_and_what_is_wrong_is_bold():
    text = markdown("run", figures(mig=None, why={"mig": "no factors"}, diagnosis="3 of 32 units active", warning=None))
    assert "| MIG | – | no factors |" in text
    assert "**3 of 32 units active**" in text
    assert "SAP" not in text


def test_runs_stand_side_by_side_with_the_best_first():
    worse = figures(elbo=figure(-100.0, 0.5), nll=figure(95.0, 0.5))
    rows = comparison([("worse", worse), ("better", figures())]).splitlines()
    assert rows[2].startswith("| better | -90.00 ± 0.25 |")
    assert rows[2].endswith("| – |")
    assert rows[3].endswith("| 95.00 ± 0.50 |")
