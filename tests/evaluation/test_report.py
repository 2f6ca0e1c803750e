from __future__ import annotations

import csv
import io

import pytest

from tests.support import SMALL, build_model, compose, loaded
from vae_train.evaluation.comparison import TABLE_COLUMNS, Comparison, EvaluatedRun
from vae_train.evaluation.metrics.base import Estimate, MetricInfo, Unavailable
from vae_train.evaluation.report import format_conditions, format_value, lines, markdown
from vae_train.evaluation.suite import Report, protocol

INFOS = (
    MetricInfo("elbo", "ELBO (beta = 1)", "nats"),
    MetricInfo("distortion", "distortion", "nats"),
    MetricInfo("nll", "-log p(x)", "nats"),
    MetricInfo("frechet_distance", "Fréchet distance of samples"),
)


def estimate(value, se=None, **about):
    return Estimate(value, se, 1234, about)


def report(**results):
    results = {"elbo": estimate(-90.0, 0.25), "distortion": estimate(70.0, 0.25), **results}
    infos = tuple(info for info in INFOS if info.name in results)
    return Report(infos, results, split="test", prior=None, seed=0, protocol="binary pixels")


@pytest.mark.parametrize(("given", "text"), [
    (estimate(1.23456, 0.01), "1.23 ± 0.01"),
    (estimate(1.23456), "1.23"),
    (estimate(3, of=50), "3.00 of 50"),
])  # fmt: skip
def test_a_value_stands_with_its_error(given, text):
    assert format_value(given, 2) == text


def test_what_an_estimate_was_measured_on_stands_beside_it():
    assert format_conditions(estimate(1.0)) == "1,234 images"
    assert format_conditions(estimate(1.0, num_samples=5000, conditions="x")) == "1,234 images, K = 5,000, x"


def test_every_estimate_is_printed_once_and_in_the_table():
    full = report(**{info.name: estimate(0.5, 0.1) for info in INFOS})
    printed, table = lines(full), markdown("run", full)
    for info in INFOS:
        assert sum(line.startswith(info.label) for line in printed) == 1, info
        assert f"| {info.label} | 0.50 ± 0.10 | 1,234 images |" in table


@pytest.mark.parametrize(("likelihood", "words"), [
    ("model/likelihood=gaussian", "17 levels, dequantised without noise: bits/dim are an upper bound"),
    ("model/likelihood=laplace", "17 levels, dequantised without noise: bits/dim are an upper bound"),
    ("model/likelihood=categorical", "17 levels, each with its own probability"),
    ("model/likelihood=discretized_logistic", "17 levels, each with its own probability"),
    ("model/likelihood=logistic_mixture", "17 levels, each with its own probability"),
    ("model.likelihood.grey_targets=true", "17 levels without probabilities, so there are no bits/dim"),
])  # fmt: skip
def test_the_protocol_is_that_of_the_likelihood(likelihood, words):
    cfg = compose(*SMALL, "data.binarize=none", likelihood)
    data = loaded(cfg)
    assert protocol(build_model(cfg, data.facts.data_shape, data.facts.levels), data) == words


def test_a_distance_is_called_fid_only_if_it_says_so():
    for about in ({}, {"title": "FID"}):
        full = report(frechet_distance=estimate(12.0, **about))
        assert any(line.startswith("FID ") for line in lines(full)) is bool(about)
        assert ("| FID | 12.00 |" in markdown("run", full)) is bool(about)


def test_what_is_missing_says_why_and_warnings_are_bold():
    full = report(nll=Unavailable("disabled by k=0"))
    full = Report(**{**vars(full), "warnings": ("only 3 of 32 latent dimensions are active",)})
    text = markdown("run", full)
    assert "Not available: -log p(x) (disabled by k=0)" in text
    assert "–" not in text
    assert "**only 3 of 32 latent dimensions are active**" in text
    assert "Fréchet" not in text
    assert full.to_dict()["nll"] is None
    assert full.to_dict()["unavailable"] == {"nll": "disabled by k=0"}


def compared(*rows):
    return Comparison([EvaluatedRun(name, {"beta": beta}, full) for name, beta, full in rows])


def test_runs_stand_side_by_side_with_the_best_first():
    worse = report(elbo=estimate(-100.0, 0.5), nll=estimate(95.0, 0.5))
    table = compared(("worse", "4.0", worse), ("better", "1.0", report()))
    rows = table.markdown().splitlines()
    assert rows[2].startswith("| better | 1.0 | -90.00 ± 0.25 |")
    assert rows[2].endswith("| – |")
    assert rows[3].endswith("| 95.00 ± 0.50 |")
    head, *values = csv.reader(io.StringIO(table.csv()))
    assert head == ["run", "beta", "elbo", "elbo_se", "distortion", "distortion_se", "nll", "nll_se"]
    assert values == [
        ["better", "1.0", "-90.0", "0.25", "70.0", "0.25", "", ""],
        ["worse", "4.0", "-100.0", "0.5", "70.0", "0.25", "95.0", "0.5"],
    ]
    first, better, _ = table.lines()
    assert first.split() == ["run", "beta", "elbo", "distortion", "nll"]
    assert better.split("  ")[0] == "better"


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("length", [3, 40])
def test_the_table_fits_a_terminal_and_names_what_it_leaves_out(count, length):
    full = report(**{info.name: estimate(-1234.5, 12.3) for info in INFOS[:count]})
    table = compared(("a" * length, "1" * length, full), ("b", "2", full))
    lines = table.lines()
    assert max(map(len, lines)) <= TABLE_COLUMNS
    assert all(info.name in " ".join(lines) for info in table.infos)


@pytest.mark.parametrize("value", [-0.001, 0.001, -1e-30])
def test_nothing_is_minus_zero(value):
    assert format_value(estimate(value, abs(value)), 2) == "0.00 ± 0.00"


def test_a_model_without_a_bound_is_ranked_by_its_distortion():
    assert report().cost == 90.0
    assert report(elbo=Unavailable("the posterior is a point mass")).cost == 70.0
