"""Searches of several processes, some of which are killed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vae_train
from tests.commandline import TINY, Vae, rows, start, wait_for
from tests.postgres import postgres
from vae_train.runs.search.history import History, TrialRow, read_history
from vae_train.runs.sweep_file import SweepJob, read_jobs
from vae_train.util.locks import is_locked_by

pytestmark = pytest.mark.slow

LONG = ("epochs=40", *TINY[1:], "threads=1", "trainer.checkpoint_seconds=0.1", "trainer.sample_every=1000")
SEARCH = (
    "-m",
    "search=tpe",
    "search.startup=2",
    "prune=median",
    "beta=interval(0.5,8)",
    "lr=tag(log,interval(1e-4,1e-2))",
)


def history(name: str) -> History:
    found = read_history(Path("outputs/sweeps") / name)
    assert found is not None
    return found


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Waits until a condition is met, and returns what meets it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def is_trained_by(process: int, job: SweepJob) -> bool:
    return is_locked_by(job.files(Path("outputs/sweeps/s")).lock_file, process)


def trained(name: str, trial: TrialRow) -> tuple[list[dict[str, object]], bytes]:
    """The rows and weights of a trial's run."""
    run = Path("outputs/sweeps") / name / trial.runs[0]
    return rows(run), b"".join(t.numpy().tobytes() for t in vae_train.load(run).model.state_dict().values())


@pytest.mark.parametrize("again", [(*SEARCH, "trials=4", *LONG), ()], ids=["same command", "name alone"])
def test_a_killed_search_goes_on_as_if_nothing_had_happened(vae: Vae, again: tuple[str, ...]) -> None:
    vae("train", *SEARCH, *LONG, "trials=4", "sweep=whole")
    sweep = Path("outputs/sweeps/s")
    process = start("train", *SEARCH, *LONG, "trials=4", "sweep=s", folder=Path())
    wait_until(lambda: len(read_jobs(sweep)) == 3)
    wait_for(read_jobs(sweep)[2].files(sweep).metrics_file, '"epoch": 9')
    process.kill()
    process.communicate()
    assert [trial.state for trial in history("s").trials] == ["complete"] * 2 + ["running"]
    answer = vae("train", *(again or ["-m"]), "sweep=s")
    assert answer.code == 0, answer.err
    assert "s: 3 trials: 2 complete, 1 unfinished" in answer.out
    assert "resuming after step" in answer.out
    assert history("s") == history("whole")
    for one, other in zip(history("s").trials, history("whole").trials, strict=True):
        assert trained("s", one) == trained("whole", other)


def test_several_workers_share_a_search(vae: Vae) -> None:
    answer = vae("train", *SEARCH, *LONG, "trials=6", "sweep=s", "workers=2")
    assert answer.code == 0, answer.err
    found = history("s")
    assert len(found.trials) == 6
    assert {trial.state for trial in found.trials} <= {"complete", "pruned"}
    assert len({tuple(trial.settings.values()) for trial in found.trials}) == 6
    logs = [path.read_text() for path in sorted(Path("outputs/sweeps/s/workers").iterdir())]
    assert all("trial" in text for text in logs)
    assert f"best: trial {found.best[0]}, elbo" in answer.out


def test_ctrl_c_saves_and_says_how_to_go_on(vae: Vae) -> None:
    process = start("train", *SEARCH, *LONG, "trials=3", "sweep=s", folder=Path())
    sweep = Path("outputs/sweeps/s")
    wait_until(lambda: bool(read_jobs(sweep)))
    wait_for(read_jobs(sweep)[0].files(sweep).metrics_file, '"epoch": 3')
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "Go on with: vae train -m sweep=s" in err
    assert vae("train", "-m", "sweep=s").code == 0
    assert len(history("s").trials) == 3
    assert "running" not in {trial.state for trial in history("s").trials}


def test_two_workers_share_a_study_in_postgresql_and_one_is_killed(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres() as url:
        monkeypatch.setenv("VAE_STORAGE", url)
        sweep = Path("outputs/sweeps/s")
        first = start("train", *SEARCH, *LONG, "trials=7", "sweep=s", folder=Path())
        wait_until(lambda: len(read_jobs(sweep)) == 2)
        first.kill()
        first.communicate()
        workers = [start("worker", "sweep=s", folder=Path()) for _ in range(2)]
        job = wait_until(lambda: next((job for job in read_jobs(sweep) if is_trained_by(workers[0].pid, job)), None))
        wait_for(job.files(sweep).metrics_file, '"epoch": 9')
        workers[0].kill()
        workers[0].communicate()
        out, err = workers[1].communicate(timeout=300)
        assert workers[1].returncode == 0, err
        found = history("s")
        assert len(found.trials) == 7
        assert {trial.state for trial in found.trials} <= {"complete", "pruned"}
        (number,) = (trial.number for trial in found.trials if job.folder in trial.runs)
        assert out.count(f"trial {number}: ") == 2  # it was continued under its number, and ended
        assert "resuming after step" in out
        assert not (sweep / "study.journal").exists()
        texts = [path.read_text() for path in sweep.rglob("*") if path.suffix in (".json", ".yaml", ".log", ".csv")]
        assert not any("word" in text for text in texts)
        assert "postgres@127.0.0.1" in (sweep / "search.json").read_text()


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_search_is_submitted_to_a_cluster(vae: Vae) -> None:
    pytest.importorskip("submitit", reason="needs the extra [cluster]")
    answer = vae("train", *SEARCH, *TINY, "threads=1", "trials=3", "sweep=s", "workers=2", "launch=local")
    assert answer.code == 0, answer.err
    assert "submitted 2 jobs" in answer.out
    sweep = Path("outputs/sweeps/s")
    wait_until(lambda: len(list(sweep.glob("cluster/*_result.pkl"))) == 2)
    assert [trial.state for trial in history("s").trials] == ["complete"] * 3
    assert not any("launch" in override for job in read_jobs(sweep) for override in job.overrides)
