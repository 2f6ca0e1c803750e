"""`keep=`: which checkpoints a finished run keeps, and what is said where a missing one is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commandline import BRIEF, TINY, Vae, rows
from vae_train.runs.config import Config
from vae_train.runs.sweep_file import NEUTRAL


def checkpoints(run: str | Path) -> list[str]:
    return sorted(path.name for path in Path(run, "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("keep", "names"),
    [("both", ["best.pt", "last.pt"]), ("best", ["best.pt"]), ("last", ["last.pt"]), ("none", [])],
)
def test_a_finished_run_keeps_what_was_asked_for(vae: Vae, keep: str, names: list[str]) -> None:
    answer = vae.train(f"keep={keep}", "out=run")
    assert answer.code == 0, answer.err
    assert checkpoints("run") == names
    assert ("checkpoints/best.pt" in answer.out) == ("best.pt" in names)
    assert ("next: vae eval run=run" in answer.out) == bool(names)
    assert json.loads(Path("run/summary.json").read_text())["status"] == "done"


def test_without_a_validation_the_last_checkpoint_is_the_best(vae: Vae) -> None:
    import numpy as np

    np.save("x.npy", np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32))
    data = ("data=arrays", "data.path=x.npy", "data.valid=0", "batch_size=16", "data.test=0.1")
    answer = vae.train(*data, "keep=best", "out=run")
    assert answer.code == 0, answer.err
    assert checkpoints("run") == ["last.pt"]


def test_commands_say_what_a_run_without_checkpoints_lacks(vae: Vae) -> None:
    assert vae.train("keep=none", "out=run").code == 0
    reason = "has no checkpoint (keep=none removed it when the run was done); train it again with keep=best"
    for command in (["eval", *BRIEF], ["sample"]):
        (line,) = vae(*command[:1], "run=run", *command[1:]).errors()
        assert line.strip() == f"run  {reason}"
    (line,) = vae("train", "resume=run", "epochs=4").errors()
    assert "last.pt does not exist (keep=none removed it when the run was done)" in line
    (line,) = vae.train("init_from=run").errors()
    assert "(keep=none removed it when the run was done)" in line
    answer = vae("report", "run=run")
    assert answer.code == 0, answer.err
    assert f"left out: Worst and best reconstructions, and latent dimensions: run: {reason}" in answer.out
    answer = vae("reproduce", "run=run")
    assert answer.code == 0, answer.err
    assert "identical: all" in answer.out


def test_a_run_that_kept_its_best_epoch_is_evaluated_but_not_resumed(vae: Vae) -> None:
    assert vae.train("keep=best", "out=run").code == 0
    assert vae("eval", "run=run", *BRIEF).code == 0
    (line,) = vae("eval", "run=run", "checkpoint=last").errors()
    assert "(keep=best removed it when the run was done); use checkpoint=best" in line
    (line,) = vae("train", "resume=run", "epochs=4").errors()
    assert "last.pt does not exist (keep=best removed it when the run was done)" in line
    assert line.endswith("use init_from=run")
    assert vae("reproduce", "run=run").code == 0


def test_a_run_that_kept_its_last_state_is_resumed_and_says_what_is_evaluated(vae: Vae) -> None:
    assert vae.train("keep=last", "out=run").code == 0
    answer = vae("eval", "run=run", *BRIEF)
    assert answer.code == 0, answer.err
    assert "best.pt does not exist (keep=last removed it when the run was done); using last.pt instead" in answer.out
    answer = vae("train", "resume=run", "epochs=4", "keep=best")
    assert answer.code == 0, answer.err
    assert checkpoints("run") == ["best.pt"]


def test_an_interrupted_run_keeps_its_state(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a run that is done has checkpoints that nobody needs."""

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("vae_train.runs.train.latent_use", fail)
        assert vae.train("keep=none", "out=run").code == 1
    assert "last.pt" in checkpoints("run")
    assert vae("train", "resume=run").code == 0
    assert checkpoints("run") == []


def test_keep_changes_no_number_and_no_job(vae: Vae) -> None:
    for keep in ("both", "none"):
        assert vae.train(f"keep={keep}", f"out={keep}").code == 0
    both, none = (Config.read(Path(keep, "config.yaml")) for keep in ("both", "none"))
    assert both.digest(NEUTRAL) == none.digest(NEUTRAL)
    assert rows(Path("both")) == rows(Path("none"))
    assert "2 jobs" in vae("train", *TINY, "-m", "seed=1,2", "keep=best", "sweep=s").out
    assert "s: 2 of 2 done" in vae("train", "-m", "sweep=s", "keep=none").out


def test_an_unknown_word_is_an_error(vae: Vae) -> None:
    (line,) = vae.train("keep=all").errors()
    assert line.strip() == "keep=all  is 'all', must be one of both, best, last, none"
