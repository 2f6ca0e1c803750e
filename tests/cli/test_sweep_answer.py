"""`vae sweep`, what a sweep prints at its end, and evaluations of sweeps, from the command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.commandline import BRIEF, TINY, Vae
from vae_train.util.locks import locked

FOLDER = Path("outputs/sweeps/mine")


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two sizes with two seeds each."""
    from vae_train.cli.main import run

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        words = ("-m", *TINY[:3], TINY[4], "latent_dim=2,3", "seed=1,2", "sweep=mine")
        assert run(["train", *words]) == 0
        return Path("outputs").absolute()


@pytest.fixture
def made(_made: Path, tmp_path: Path) -> Path:
    """The test's own copy, in the current folder."""
    shutil.copytree(_made, tmp_path / "outputs")
    return FOLDER


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open() as file:
        return list(csv.DictReader(file))


def summary(folder: Path, number: int) -> dict[str, object]:
    return json.loads(next(folder.glob(f"{number}-*/summary.json")).read_text())


def test_the_table_has_a_row_for_every_point(vae: Vae, made: Path) -> None:
    answer = vae("sweep", "sweep=mine")
    assert answer.code == 0, answer.err
    head, *lines = [line for line in answer.out.splitlines() if line.startswith("  ")]
    assert head.split() == ["latent_dim", "n", "ELBO", "rate", "distortion", "active", "s"]
    assert len(lines) == 2
    for number, line in enumerate(lines):
        elbos = [summary(made, 2 * number + k)["best_elbo"] for k in (0, 1)]
        size, n, mean, _, sd, *_ = line.split()
        assert (size, n) == (str(number + 2), "2")
        assert (mean, sd) == (f"{np.mean(elbos):.2f}", f"{np.std(elbos, ddof=1):.2f}")
    assert answer.out.count("best by validation ELBO: latent_dim=") == 1
    assert "4 of 4 jobs done. Written to outputs/sweeps/mine: sweep.csv, sweep.md, sweep-curve.png" in answer.out
    assert (made / "sweep-curve.png").exists()
    assert [row["active_units"] for row in rows(made)] == [
        str(float(summary(made, number)["active_units"])) for number in range(4)
    ]


def test_a_sweep_is_shown_while_it_runs(vae: Vae, made: Path) -> None:
    run = next(made.glob("3-*"))
    (run / "summary.json").write_text('{"status": "running"}')
    jobs = json.loads((made / "sweep.json").read_text())["jobs"]
    with locked(run / ".lock"):
        answer = vae("sweep", "sweep=mine")
    assert answer.code == 0, answer.err
    assert "1 of 2" in answer.out
    assert "1 running" in answer.out
    assert "3 of 4 jobs done, 1 running." in answer.out
    assert "mine: 3 of 4 done · about " in answer.out
    assert rows(made)[3]["best_elbo"] == ""
    left = json.loads((made / "sweep.json").read_text())["jobs"]
    assert [job | {"results": None} for job in left] == [job | {"results": None} for job in jobs]


def test_a_metric_decides(vae: Vae, made: Path) -> None:
    shown = vae("sweep", "sweep=mine", "metric=seconds", "goal=max")
    assert shown.code == 0, shown.err
    assert shown.out.count("best by seconds:") == 1
    assert vae("sweep", "-m", "sweep=mine", "metric=elbo,distortion", "format=svg").code == 0
    assert (made / "sweep-curve.svg").exists()


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        ("sweep=min", "sweep=min  no such sweep; did you mean mine? (mine)"),
        ("sweep=outputs/sweeps/mine", "no such sweep; did you mean sweep=mine? (mine)"),
        ("sweep=mine metric=rate", "metric=rate  has no better direction; add goal=max or goal=min"),
        ("sweep=mine metric=nl", "metric=nl  no finished job has this metric ("),
        ("sweep=mine goal=max", "goal=max  has no effect without metric="),
        ("sweep=mine metric=elbo goal=up", "goal=up  is 'up', must be one of max, min"),
        ("sweep=mine metric=elbo --cfg job", "--cfg does not work with metric="),
    ],
)
def test_errors_are_a_line(vae: Vae, made: Path, typed: str, error: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    (line,) = vae("sweep", *typed.split()).errors()
    assert error in line
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_a_sweep_without_jobs_has_no_table(vae: Vae) -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "sweep.json").write_text('{"jobs": []}')
    assert vae("sweep", "sweep=mine").errors() == ["  sweep=mine  has no jobs yet"]
    (FOLDER / "sweep.json").write_text("damaged")
    answer = vae("sweep", "sweep=mine")
    assert answer.code in (1, 2)
    assert "sweep.json is damaged" in answer.err


def test_without_a_sweep_it_is_said(vae: Vae) -> None:
    (line,) = vae("sweep", "sweep=mine").errors()
    assert line.strip() == "sweep=mine  no such sweep: there is none in outputs/sweeps yet"


def test_evaluations_of_a_sweep_join_its_tables(vae: Vae, made: Path) -> None:
    """Of the jobs that are done; nothing is chosen by those of the test split."""
    run = next(made.glob("3-*"))
    (run / "summary.json").write_text('{"status": "stopped"}')
    answer = vae("eval", f"run={made}", *BRIEF)
    assert answer.code == 0, answer.err
    assert not (run / "eval").exists()
    assert "evaluation: test" in answer.out
    assert "3 of 4 jobs done, 1 stopped." in answer.out
    assert answer.out.count("best so far by validation ELBO") == 2  # in the table, and below it
    table = rows(made)
    reports = [json.loads((path / "eval/test.json").read_text()) for path in sorted(made.glob("[0-2]-*"))]
    assert [float(row["test.nll"]) for row in table[:3]] == [report["nll"]["value"] for report in reports]
    assert table[3]["test.nll"] == ""
    values = [report["nll"]["value"] for report in reports[:2]]
    cell = f"| {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} |"
    assert cell in (made / "sweep.md").read_text()
    assert "| run | latent_dim |" in (made / "eval-test.md").read_text()
    (line,) = vae("sweep", "sweep=mine", "metric=nll").errors()
    assert f"evaluate the validation split with vae eval run={made} split=valid, then use metric=nll" in line
    assert vae("eval", f"run={made}", *BRIEF, "split=valid").code == 0
    assert "best so far by valid.nll: latent_dim=" in vae("sweep", "sweep=mine", "metric=nll").out


def test_a_sweep_without_a_finished_job_is_not_evaluated(vae: Vae, made: Path) -> None:
    for path in made.glob("*/summary.json"):
        path.write_text('{"status": "running"}')
    (line,) = vae("eval", f"run={made}", *BRIEF).errors()
    assert line.strip() == f"run={made}  no job of this sweep is done yet"
    answer = vae("sweep", "sweep=mine")
    assert answer.code == 0, answer.err
    assert "0 of 4 jobs done, 4 running." in answer.out


def test_time_and_disk_are_estimated_after_the_first_jobs(vae: Vae) -> None:
    answer = vae.train("-m", "seed=1,2,3,4", "sweep=mine", "keep=best")
    assert answer.code == 0, answer.err
    lines = [line for line in answer.out.splitlines() if " left · all 4 jobs need about " in line]
    assert [line.partition(" done")[0] for line in lines] == ["mine: 1 of 4", "mine: 3 of 4"]
    assert not any("last.pt" in str(path) for path in FOLDER.rglob("*.pt"))


def test_tensorboard_shows_the_settings_that_vary(vae: Vae) -> None:
    """In the names of the runs, and as the first columns of HParams."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams.backend_context import Context

    assert vae("train", *TINY[:-1], "-m", "beta=1,4", "sweep=mine").code == 0
    assert vae("eval", f"run={FOLDER}", *BRIEF).code == 0
    events = EventMultiplexer()
    events.AddRunsFromDirectory(str(FOLDER))
    events.Reload()
    names = {"0-beta=1", "1-beta=4"}
    assert {name.partition("/")[0] for name in events.Runs()} == names
    assert {f"{name}/tb/best" for name in names} <= set(events.Runs())
    backend = Context(TBContext(data_provider=MultiplexerDataProvider(events, str(FOLDER)), multiplexer=events))
    request = RequestContext()
    table = backend.experiment_from_metadata(request, "", True, backend.hparams_metadata(request, ""), [])
    assert table.hparam_infos[0].name == "beta"
    assert "keep" not in {info.name for info in table.hparam_infos}
    metrics = {(info.name.group, info.name.tag) for info in table.metric_infos}
    assert {("", "bound/elbo"), ("test", "bound/elbo"), ("test", "evaluation/nll")} <= metrics
