"""What a sweep has found: means over seeds, the best point and when there is none, tables, charts and estimates.

Nothing is trained: the folders of the runs are written here.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from collections import namedtuple
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vae_train.plotting import sweeps as plots
from vae_train.runs.config import Config
from vae_train.runs.sweep_file import SweepJob, add_jobs, read_jobs, write_results
from vae_train.runs.sweep_results.best import find_judge, judge_points
from vae_train.runs.sweep_results.estimate import estimate, log_estimate
from vae_train.runs.sweep_results.points import Mean, Point, points_of
from vae_train.runs.sweep_results.rows import JobResult, read_results
from vae_train.runs.sweep_table import report
from vae_train.util.errors import UsageError

ELBOS = {("1", "0"): -100.0, ("1", "1"): -103.0, ("1", "2"): -101.5, ("2", "0"): -90.0, ("2", "1"): -91.0}
"""(latent_dim, seed) -> ELBO."""


class Sweep:
    """A sweep whose runs are written by the test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, list[SweepJob]()
        folder.mkdir(parents=True)

    def add(
        self,
        *overrides: str,
        status: str | None = "done",
        elbo: float | None = -100.0,
        config: dict[str, Any] | None = None,
        summary: dict[str, Any] | None = None,
        checksum: str = "a",
    ) -> Path:
        """Adds a job with its run; without a status it was not started."""
        key = str(len(self.jobs))
        self.jobs = add_jobs(self.folder, {SweepJob(key, "", overrides, overrides): Config({"model": {}, "data": {}})})
        run = self.jobs[-1].files(self.folder).folder
        if status is None:
            return run
        run.mkdir()
        typed = dict(text.split("=", 1) for text in overrides)
        values = {key: float(text) if _is_number(text) else text for key, text in typed.items() if "." not in key}
        objective = {"_target_": "objective.elbo.ELBO", "beta": values.get("beta", 1.0), "beta_schedule": {}}
        tree = {"beta": 1.0, "latent_dim": 10, "seed": 0, "model": {"likelihood": {"_target_": "a.B"}}, "data": {}}
        Config({**tree, "objective": objective, **values, **(config or {})}).write(run / "config.yaml")
        found: dict[str, Any] = {"status": status}
        if status == "done":
            found |= {"best_epoch": 3, "best_by": "validation ELBO", "train_loss": 1.0, "seconds": 2.0}
            found |= {} if elbo is None else {"best_elbo": elbo, "best_rate": 5.0, "best_distortion": -elbo - 5}
        (run / "summary.json").write_text(json.dumps(found | (summary or {})))
        (run / "environment.json").write_text(json.dumps({"data_checksum": checksum}))
        return run

    def results(self) -> list[JobResult]:
        return read_results(self.folder, self.jobs, {})

    def points(self) -> list[Point]:
        return points_of(self.results())


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace("-", "").isdigit()


def evaluate(run: Path, split: str = "test", epoch: int | None = 3, **values: float) -> None:
    """Writes the report of `vae eval`."""
    (run / "eval").mkdir(exist_ok=True)
    content: dict[str, Any] = {name: {"value": v, "se": 0.5, "n": 100} for name, v in values.items()}
    content["trained"] = {"status": "done", "best_epoch": epoch}
    (run / "eval" / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "outputs/sweeps/first")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are built, but not rendered."""
    monkeypatch.setattr(plots, "write_figure", lambda figure, path: path.write_text("a chart"))


def with_seeds(sweep: Sweep) -> Sweep:
    for (size, seed), elbo in ELBOS.items():
        sweep.add(f"latent_dim={size}", f"seed={seed}", elbo=elbo)
    return sweep


def page(sweep: Sweep, **options: Any) -> str:
    report(sweep.folder, sweep.jobs, {}, **options)
    return (sweep.folder / "sweep.md").read_text()


def rows(sweep: Sweep) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((sweep.folder / "sweep.csv").read_text())))


# points


def test_points_are_means_over_seeds(sweep: Sweep) -> None:
    one, two = with_seeds(sweep).points()
    for point, size in ((one, "1"), (two, "2")):
        values = [elbo for (dim, _), elbo in ELBOS.items() if dim == size]
        mean = point.mean("elbo")
        assert mean == pytest.approx((np.mean(values), np.std(values, ddof=1), len(values)))
        assert mean.se == pytest.approx(np.std(values, ddof=1) / np.sqrt(len(values)))
        assert point.settings == {"latent_dim": size}
    assert one.mean("rate") == Mean(5.0, 0.0, 3)
    assert one.mean("nothing") is None


def test_a_single_seed_has_no_standard_deviation(sweep: Sweep) -> None:
    sweep.add("latent_dim=1", elbo=-100.126)
    sweep.add("latent_dim=2", elbo=-90.0)
    for point in sweep.points():
        assert point.mean("elbo").sd is None
        assert point.mean("elbo").se is None
    text = page(sweep)
    assert "| 1 | 1 | -100.13 | 5.00 |" in text
    assert "±" not in text.replace("Mean ± standard deviation", "")


def test_values_that_are_equal_are_the_same_point(sweep: Sweep) -> None:
    """1 and 1.0 are, and so are a default and the same value as typed; also before a job has started."""
    sweep.add("beta=1", "seed=0")
    sweep.add("beta=1.0", "seed=1")
    sweep.add("seed=2")
    sweep.add("beta=1", "seed=3", status=None)
    sweep.add("beta=2", "seed=0")
    sweep.add("beta=2.0", "seed=1", status=None)
    assert [[result.number for result in point.results] for point in sweep.points()] == [[0, 1, 2, 3], [4, 5]]


def test_settings_of_another_command_make_other_points(sweep: Sweep) -> None:
    sweep.add("latent_dim=2", "seed=0")
    sweep.add("latent_dim=2", "seed=0", "lr=0.01")
    assert len(sweep.points()) == 2
    assert [point.settings["lr"] for point in sweep.points()] == ["–", "0.01"]


def test_jobs_that_only_differ_in_the_seed_are_one_point(sweep: Sweep) -> None:
    for seed in range(3):
        sweep.add("steps=5", f"seed={seed}", elbo=-100.0 - seed)
    (point,) = sweep.points()
    assert point.settings == {"steps": "5"}
    assert point.mean("elbo") == Mean(-101.0, 1.0, 3)
    assert "best by validation ELBO: steps=5, -101.00 ± 1.00 nats (n = 3)" in page(sweep)


def test_a_sweep_of_one_job_has_a_table(sweep: Sweep) -> None:
    sweep.add("beta=2", elbo=-99.5)
    assert "| 2 | 1 | -99.50 |" in page(sweep)
    assert len(rows(sweep)) == 1


def test_jobs_that_failed_or_run_do_not_count(sweep: Sweep) -> None:
    with_seeds(sweep)
    sweep.add("latent_dim=2", "seed=2", status="failed", summary={"error": "no | memory", "best_elbo": -1.0})
    sweep.add("latent_dim=2", "seed=3", status="running")
    sweep.add("latent_dim=2", "seed=4", status=None)
    sweep.add("latent_dim=3", "seed=0", status=None)
    _, point, waiting = sweep.points()
    assert point.mean("elbo").n == 2
    assert point.remark == "1 failed, 1 running, 1 to go"
    assert waiting.remark == "1 to go"
    text = page(sweep)
    assert "5 of 9 jobs done, 1 failed, 1 running, 2 to go." in text
    assert "| 2 | 2 of 5 | -90.50 ± 0.71 |" in text
    assert "| 3 | 0 of 1 | – |" in text
    assert text.count("best so far by validation ELBO") == 2
    assert "| 5 | latent_dim=2 seed=2 | no \\| memory |" in text


def test_active_dimensions_come_from_the_training_or_an_evaluation(sweep: Sweep) -> None:
    sweep.add("latent_dim=1", summary={"active_units": 1})
    evaluate(sweep.add("latent_dim=2"), active_units=2)
    sweep.add("latent_dim=3")
    assert [result.values.get("active_units") for result in sweep.results()] == [1, 2, None]


def test_damaged_files_of_a_run_are_unknown_values(sweep: Sweep) -> None:
    """A run's folder is not trusted."""
    bad = {"status": ["done"], "best_epoch": "x", "best_elbo": "high", "best_by": {}, "seconds": None, "error": [1]}
    run = sweep.add("latent_dim=2", summary=bad)
    (run / "eval").mkdir()
    for number, text in enumerate(
        ("", "[]", '{"elbo": 3}', '{"elbo": {"value": "x"}, "nll": {"value": 1e999}}', "\xff")
    ):
        (run / f"eval/{number}.json").write_text(text)
    (run / "config.yaml").write_text("- no configuration")
    (run / "environment.json").write_text('{"data_checksum": {}}')
    sweep.add("latent_dim=4")
    first, _ = sweep.results()
    assert (first.split, first.best_epoch) == ("train", None)
    assert "elbo" not in first.values
    assert not [name for name in first.values if "." in name]
    assert "| 4 | 1 | -100.00 |" in page(sweep)


# rows


def test_the_file_of_a_sweep_has_a_row_for_every_job(sweep: Sweep) -> None:
    with_seeds(sweep)
    sweep.add("latent_dim=3", "seed=0", status="failed", summary={"error": "no memory"})
    evaluate(sweep.jobs[0].files(sweep.folder).folder, nll=95.0)
    page(sweep)
    table = rows(sweep)
    assert [(row["latent_dim"], row["seed"]) for row in table] == [*ELBOS, ("3", "0")]
    assert [float(row["best_elbo"]) for row in table[:5]] == list(ELBOS.values())
    assert (table[5]["status"], table[5]["best_elbo"], table[5]["error"]) == ("failed", "", "no memory")
    assert (table[0]["test.nll"], table[0]["test.nll_se"], table[1]["test.nll"]) == ("95.0", "0.5", "")
    assert table[0]["folder"] == str(sweep.jobs[0].files(sweep.folder).folder)
    entries = json.loads((sweep.folder / "sweep.json").read_text())["jobs"]
    assert [entry["results"].get("best_elbo") for entry in entries] == [*ELBOS.values(), None]
    assert entries[0]["results"]["test.nll"] == 95.0
    assert entries[5]["results"]["error"] == "no memory"
    assert read_jobs(sweep.folder) == sweep.jobs


def test_results_and_jobs_are_added_by_different_processes(sweep: Sweep) -> None:
    """Results are no reason to forget a job that was added in the meantime, and the other way round."""
    sweep.add("seed=0")
    page(sweep)
    before = list(sweep.jobs)
    sweep.add("seed=1")
    write_results(sweep.folder, {before[0].key: {"status": "done"}, "unknown": {}})
    entries = json.loads((sweep.folder / "sweep.json").read_text())["jobs"]
    assert [entry.get("results") for entry in entries] == [{"status": "done"}, None]
    assert read_jobs(sweep.folder) == sweep.jobs


def test_the_file_of_a_sweep_is_only_extended(sweep: Sweep) -> None:
    sweep.add("seed=0")
    path = sweep.folder / "sweep.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"search": "tpe"}))
    page(sweep)
    sweep.add("seed=1")
    content = json.loads(path.read_text())
    assert content["search"] == "tpe"
    assert [entry.get("results", {}).get("status") for entry in content["jobs"]] == ["done", None]
    for damage in ("", '{"jobs": 3}', '{"jobs": [3]}'):
        path.write_text(damage)
        write_results(sweep.folder, {"0": {"status": "done"}})
        assert path.read_text() == damage


def test_errors_of_jobs_without_a_folder_are_told(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    sweep.add("seed=0", status=None)
    with caplog.at_level("INFO", "vae_train"):
        report(sweep.folder, sweep.jobs, {sweep.jobs[0].folder: "no space left"})
    assert "failed: 0 (seed=0): no space left" in caplog.text
    assert "0 of 1 jobs done, 1 failed." in caplog.text


# the best


def test_the_best_is_that_of_the_mean(sweep: Sweep) -> None:
    """Not the one with the best job."""
    for size, values in (("2", (-100.0, -100.0)), ("4", (-90.0, -130.0))):
        for seed, elbo in enumerate(values):
            sweep.add(f"latent_dim={size}", f"seed={seed}", elbo=elbo)
    verdict = judge_points(sweep.points())
    assert verdict.best.settings == {"latent_dim": "2"}
    assert verdict.judge.metric == "elbo"


def test_test_metrics_choose_nothing(sweep: Sweep) -> None:
    for size, elbo, test in ((2, -100.0, -10.0), (4, -90.0, -500.0)):
        run = sweep.add(f"latent_dim={size}", elbo=elbo)
        evaluate(run, elbo=test, nll=-test)
        evaluate(run, "test-gmm", elbo=test)
    points = sweep.points()
    assert judge_points(points).best.settings == {"latent_dim": "4"}
    for name in ("test.elbo", "test-gmm.elbo", "nll", "test.nll"):
        with pytest.raises(UsageError, match="of the test split, by which nothing is chosen"):
            find_judge(name, None, points)
    for number, value in ((0, 50.0), (1, 40.0)):
        evaluate(sweep.jobs[number].files(sweep.folder).folder, "valid", nll=value)
    judge = find_judge("nll", None, sweep.points())
    assert judge == ("valid.nll", "lower")
    assert judge_points(sweep.points(), judge).best.settings == {"latent_dim": "4"}


@pytest.mark.parametrize(
    ("metric", "goal", "better"),
    [("elbo", None, "higher"), ("distortion", None, "lower"), ("seconds", None, "lower"), ("rate", "max", "higher"),
     ("seconds", "max", "higher"), ("train_loss", None, "lower")],
)  # fmt: skip
def test_a_metric_says_which_value_is_better(sweep: Sweep, metric: str, goal: Any, better: str) -> None:
    assert find_judge(metric, goal, with_seeds(sweep).points()) == (metric, better)


def test_metrics_that_cannot_decide(sweep: Sweep) -> None:
    points = with_seeds(sweep).points()
    with pytest.raises(UsageError, match="add goal=max or goal=min"):
        find_judge("rate", None, points)
    with pytest.raises(UsageError, match=r"no finished job has this metric; did you mean metric=elbo\?"):
        find_judge("elb", None, points)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (["beta=1"], ["beta=4"], "beta varies, and the ELBO does not rank runs"),
        (["objective=elbo"], ["objective=iwae"], "objective varies"),
        (["objective.free_bits=0"], ["objective.free_bits=1"], "objective.free_bits varies"),
        (["data=digits"], ["data=mnist"], "data varies, and the runs score pixels differently"),
        (["model/likelihood=a"], ["model/likelihood=b"], "model/likelihood varies, and the runs score"),
        (["preprocessing=none"], ["preprocessing=logit"], "preprocessing varies"),
    ],
)
def test_runs_that_the_elbo_does_not_rank_have_no_best(sweep: Sweep, first: Any, second: Any, reason: str) -> None:
    config = {"model": {}, "data": {}, "objective": {"_target_": "x.Y"}, "preprocessing": {}}
    sweep.add(*first, elbo=-100.0, config=config | {"typed": first})
    sweep.add(*second, elbo=-90.0, config=config | {"typed": second})
    verdict = judge_points(sweep.points())
    assert verdict.best is None
    assert verdict.reasons[0].startswith(reason)
    text = page(sweep)
    assert f"no best: {reason}" in text
    assert text.count("best by") == 0
    named = judge_points(sweep.points(), find_judge("elbo", None, sweep.points()))
    assert named.best is not None
    assert any(caution.startswith(reason) for caution in named.cautions) == ("score" in reason or "pre" in reason)


@pytest.mark.parametrize("what", ["likelihood", "checksum", "objective"])
def test_what_a_choice_brings_along_is_noticed(sweep: Sweep, what: str) -> None:
    """model=a,b varies the likelihood if it is that of the model, and experiment= the objective."""
    other: dict[str, Any] = {
        "likelihood": {"config": {"model": {"likelihood": {"_target_": "c.D"}}}},
        "checksum": {"checksum": "b", "config": {"model": {}}},
        "objective": {"config": {"model": {}, "objective": {"_target_": "objective.iwae.IWAE"}}},
    }
    same = {"likelihood": {"model": {"likelihood": {"_target_": "a.B"}}}}.get(what, {"model": {}})
    sweep.add("model=a", config=same)
    sweep.add("model=b", elbo=-90.0, **other[what])
    (reason,) = judge_points(sweep.points()).reasons
    assert reason.startswith({"likelihood": "the likelihood", "checksum": "the data"}.get(what, "objective"))


def test_without_a_validation_nothing_is_the_best(sweep: Sweep) -> None:
    for size in (2, 4):
        summary = {"status": "done", "train_loss": 1.0, "train_elbo": -100.0 - size, "best_epoch": None}
        sweep.add(f"latent_dim={size}", elbo=None, summary=summary)
    assert [result.split for result in sweep.results()] == ["train", "train"]
    assert judge_points(sweep.points()).reasons == ["There is no validation split."]
    assert "Metrics of training are those of the training images of the last epoch." in page(sweep)


def test_models_without_an_elbo_are_ranked_by_their_distortion(sweep: Sweep) -> None:
    for size, distortion in ((2, 50.0), (4, 40.0)):
        sweep.add(f"latent_dim={size}", elbo=None, summary={"best_distortion": distortion})
    verdict = judge_points(sweep.points())
    assert (verdict.judge.metric, verdict.best.settings["latent_dim"]) == ("distortion", "4")
    sweep.add("latent_dim=8", elbo=-50.0)
    assert judge_points(sweep.points()).best.settings["latent_dim"] == "4"  # all of them have a distortion
    sweep.add("latent_dim=16", elbo=None, summary={"best_rate": 3.0})
    assert judge_points(sweep.points()).reasons == ["Some models have no ELBO."]


@pytest.mark.parametrize(("second", "is_close"), [((-100.4, -101.4), True), ((-110.0, -111.0), False)])
def test_a_lead_within_the_noise_is_told(sweep: Sweep, second: tuple[float, ...], is_close: bool) -> None:
    for size, values in ((2, (-100.0, -101.0)), (4, second)):
        for seed, elbo in enumerate(values):
            sweep.add(f"latent_dim={size}", f"seed={seed}", elbo=elbo)
    cautions = judge_points(sweep.points()).cautions
    expected = "The lead over latent_dim=4 is 0.40 nats, within two standard errors (1.41): other seeds may order"
    assert [caution.startswith(expected) for caution in cautions] == ([True] if is_close else [])


def test_a_single_seed_is_told(sweep: Sweep) -> None:
    sweep.add("latent_dim=2")
    sweep.add("latent_dim=4")
    (caution,) = judge_points(sweep.points()).cautions
    assert caution.startswith("One seed tells little about the order")


def test_nothing_done_has_no_best(sweep: Sweep) -> None:
    sweep.add("latent_dim=2", status=None)
    assert judge_points(sweep.points()) == (None, None, [], [])
    assert "0 of 1 jobs done, 1 to go." in page(sweep)


# evaluations


def test_evaluations_are_columns_with_the_spread_over_seeds(sweep: Sweep) -> None:
    for seed, nll in enumerate((90.0, 94.0)):
        evaluate(sweep.add("latent_dim=2", f"seed={seed}"), nll=nll, elbo=-100.0)
    text = page(sweep)
    assert "## Evaluation: test" in text
    row = next(line for line in text.splitlines() if "| 92.00 ± 2.83 |" in line)
    assert row.startswith("| 2 |")


def test_a_mean_over_fewer_jobs_says_so(sweep: Sweep) -> None:
    for seed in range(3):
        sweep.add("latent_dim=2", f"seed={seed}")
    for job, nll in zip(sweep.jobs[:2], (90.0, 94.0), strict=True):
        evaluate(job.files(sweep.folder).folder, nll=nll)
    assert "| 2 | 3 | 92.00 ± 2.83 (n = 2) |" in page(sweep)


def test_evaluations_of_other_weights_are_left_out(sweep: Sweep) -> None:
    """Of a training that was not finished, or that went on afterwards."""
    run = sweep.add("latent_dim=2")
    evaluate(run, nll=90.0, epoch=2)
    assert "test.nll" not in sweep.results()[0].values
    evaluate(run, nll=90.0)
    assert sweep.results()[0].values["test.nll"] == 90.0
    report = json.loads((run / "eval/test.json").read_text())
    del report["trained"]  # older evaluations do not have it
    (run / "eval/test.json").write_text(json.dumps(report))
    assert sweep.results()[0].values["test.nll"] == 90.0


# the terminal


def test_the_table_fits_a_terminal_and_names_what_is_left_out(sweep: Sweep, caplog: pytest.LogCaptureFixture) -> None:
    for seed in range(2):
        for size in (2, 4):
            metrics = {f"metric_{number:02}": 1.0 * number for number in range(20)}
            evaluate(sweep.add(f"latent_dim={size}", f"seed={seed}", elbo=-100.0 - size - seed), **metrics)
    with caplog.at_level("INFO", "vae_train"):
        page(sweep)
    lines = [line for record in caplog.records if (line := record.getMessage()).startswith("  ")]
    table = [line for line in lines if "further columns" not in line]
    assert max(len(line.partition("  best by")[0]) for line in table) <= 102
    (further,) = [line for line in lines if "further columns in sweep.md" in line]
    assert "metric_19" in further
    assert sum("best by validation ELBO" in line for line in table) == 1


def test_what_decides_is_always_shown(sweep: Sweep) -> None:
    for size, value in ((2, 0.5), (4, 0.7)):
        evaluate(sweep.add(f"latent_dim={size}"), "valid", linear_probe=value)
    judge = find_judge("linear_probe", None, sweep.points())
    text = page(sweep, judge=judge)
    assert "| latent_dim | n | validation linear probe accuracy |" in text
    assert "best by valid.linear_probe: latent_dim=4, 0.7000; its best run: " in text


def test_numbers_of_a_search_are_rounded(sweep: Sweep) -> None:
    sweep.add("lr=0.00123456789")
    sweep.add("lr=0.01")
    assert "| 0.001235 | 1 |" in page(sweep)
    assert rows(sweep)[0]["lr"] == "0.00123456789"


# charts


def charts(sweep: Sweep) -> list[str]:
    return sorted(path.name for path in sweep.folder.glob("sweep-*"))


def test_charts_follow_the_settings_that_vary(sweep: Sweep) -> None:
    sweep.add("latent_dim=2", "beta=1")
    page(sweep)
    assert charts(sweep) == []
    sweep.add("latent_dim=4", "beta=1")
    page(sweep)
    assert charts(sweep) == ["sweep-curve.png"]
    sweep.add("latent_dim=4", "beta=2")
    assert "![](sweep-map.png)\n![](sweep-rate-distortion.png)" in page(sweep)
    assert charts(sweep) == ["sweep-map.png", "sweep-rate-distortion.png"]
    assert "[sweep-map.pdf](sweep-map.pdf)" in page(sweep, plot_format="pdf")


def test_a_chart_has_the_means_in_the_order_of_the_numbers(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[Any]()
    monkeypatch.setattr("vae_train.runs.sweep_results.charts.plot_setting", lambda *given: calls.append(given))
    for size in ("16", "4", "8"):
        for seed in range(2):
            sweep.add(f"latent_dim={size}", f"seed={seed}", elbo=-float(size) - 2 * seed)
    page(sweep)
    ((setting, found, path),) = calls
    assert (setting, path.name) == ("latent_dim", "sweep-curve.png")
    (line,) = found["ELBO (beta = 1), nats"]
    assert (line.x, line.mean) == ([4.0, 8.0, 16.0], [-5.0, -9.0, -17.0])
    assert line.sd == pytest.approx([np.sqrt(2)] * 3)


def test_a_map_has_the_best_point(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[Any]()
    monkeypatch.setattr("vae_train.runs.sweep_results.charts.plot_setting_map", lambda *given: calls.append(given))
    for size in ("2", "10"):
        for lr in ("0.1", "0.01"):
            if (size, lr) != ("2", "0.1"):
                sweep.add(f"latent_dim={size}", f"lr={lr}", elbo=-float(size) - 100 * float(lr))
    page(sweep)
    ((settings, values, mean, sd, title, _, best),) = calls
    assert (settings, values) == (("latent_dim", "lr"), (["2", "10"], ["0.01", "0.1"]))
    np.testing.assert_array_equal(mean, [[-3.0, np.nan], [-11.0, -20.0]])
    assert np.isnan(sd).all()
    assert (title, best) == ("ELBO (beta = 1), nats", (0, 0))


def test_rate_and_distortion_have_a_line_for_every_other_setting(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[Any]()
    monkeypatch.setattr("vae_train.runs.sweep_results.charts.plot_rate_distortion", lambda *given: calls.append(given))
    for size in ("2", "4"):
        for beta in ("1", "4", "2"):
            sweep.add(f"latent_dim={size}", f"beta={beta}", elbo=-90.0, summary={"best_rate": 8 / float(beta)})
    page(sweep)
    ((setting, curves, _),) = calls
    assert setting == "beta"
    assert [(curve.name, list(curve.labels), list(curve.rate)) for curve in curves] == [
        ("latent_dim=2", ["4", "2", "1"], [2.0, 4.0, 8.0]),
        ("latent_dim=4", ["4", "2", "1"], [2.0, 4.0, 8.0]),
    ]


# estimates


def test_an_estimate_follows_from_jobs_that_only_differ_in_the_seed(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 2**20))
    for size, seconds in (("2", 10.0), ("4", 30.0)):
        run = sweep.add(f"latent_dim={size}", "seed=0", summary={"seconds": seconds})
        (run / "last.pt").write_bytes(bytes(2**20))
        sweep.add(f"latent_dim={size}", "seed=1", status=None)
    sweep.add("latent_dim=8", "seed=0", status=None)
    sweep.add("latent_dim=8", "seed=1", status="failed")
    found = estimate(sweep.folder, sweep.jobs)
    assert (found.done, found.jobs) == (2, 6)
    assert found.seconds_left == 10 + 30 + 20
    assert found.num_bytes == pytest.approx(6 * 2**20, rel=0.01)
    assert "about 60 s left · all 6 jobs need about 6 MiB of disk (only 1 MiB free; keep=best" in found.line
    assert estimate(sweep.folder, sweep.jobs, workers=2).seconds_left == 30
    assert estimate(sweep.folder, sweep.jobs, workers=4).seconds_left == 30


def test_a_running_job_has_less_to_go_and_a_killed_one_does_not(sweep: Sweep) -> None:
    sweep.add("seed=0", summary={"seconds": 1000.0})
    run = sweep.add("seed=1", status="running")
    for ago, left in ((400, 600), (1500, 0), (10**6, 1000), (-60, 1000)):
        started = (datetime.now().astimezone() - timedelta(seconds=ago)).isoformat()
        (run / "environment.json").write_text(json.dumps({"started": started}))
        assert estimate(sweep.folder, sweep.jobs).seconds_left == pytest.approx(left, abs=5)
    (run / "environment.json").write_text('{"started": "yesterday"}')
    assert estimate(sweep.folder, sweep.jobs).seconds_left == 1000


def test_without_a_finished_job_or_one_to_go_there_is_no_estimate(
    sweep: Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    sweep.add("seed=0", status=None)
    assert estimate(sweep.folder, sweep.jobs) is None
    sweep.add("seed=1")
    with caplog.at_level(logging.INFO, "vae_train"):
        for finished in range(12):
            log_estimate(sweep.folder, finished)
    assert [record.getMessage().partition(" · ")[0] for record in caplog.records] == ["first: 1 of 2 done"] * 3
    assert estimate(sweep.folder, sweep.jobs[1:]) is None
