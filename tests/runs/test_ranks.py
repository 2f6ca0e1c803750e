"""Whole trainings on two ranks: rank 0 runs the command line, the other one follows."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import pytest
import torch

from tests.commandline import rows
from tests.training.ranks import team
from vae_train.cli.main import run as run_alone
from vae_train.cli.main import run_on_rank_0
from vae_train.cli.ranks import silence
from vae_train.runs.follow import follow
from vae_train.runs.ranks import Dismissed, dismiss
from vae_train.util.errors import TrainingError

SMALL = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=2", "logger=none", "threads=1")
FAST = (*SMALL, "trainer.log_every=5", "trainer.eval_batch_size=50", "batch_size=150", "seed=3")


def command(ranks, folder, *arguments):
    """The exit code of a command on every rank, and what it printed."""
    os.chdir(folder)
    ranks.is_waiting = True
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = lead(ranks, arguments) if ranks.rank == 0 else trail(ranks)
    return code, out.getvalue(), err.getvalue()


def lead(ranks, arguments):
    code = run_on_rank_0(arguments, ranks)
    if ranks.is_waiting:
        dismiss(ranks, code)
    return code


def trail(ranks):
    silence()
    try:
        follow(ranks)
    except Dismissed as dismissed:
        return dismissed.code
    except TrainingError:
        return 1
    return 0


@pytest.fixture(scope="module")
def pair():
    with pytest.MonkeyPatch.context() as patched:  # before the ranks are forked
        patched.setattr("vae_train.runs.train.plot_curves", lambda rows, path: None)
        with team(2) as members:
            yield members


def train(members, folder, *arguments):
    answers = members(command, folder, "train", *arguments)
    assert [code for code, _, _ in answers] == [0, 0], answers
    assert answers[1][1:] == ("", "")
    return answers[0]


def state(run):
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)


def test_a_run_of_two_ranks_has_the_rows_and_files_of_one_process(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, out, _ = train(pair, tmp_path, *FAST, "epochs=2", "out=two", "learner.ema=0.9")
    assert "2 ranks of cpu" in out
    assert run_alone(["train", *FAST, "epochs=2", "out=one", "learner.ema=0.9"]) == 0
    two, one = rows(Path("two")), rows(Path("one"))
    assert len(two) == len(one) == 7
    for found, expected in zip(two, one, strict=True):
        assert found.keys() == expected.keys()
        numbers = [name for name, value in expected.items() if isinstance(value, float)]
        assert [found[n] for n in numbers] == pytest.approx([expected[n] for n in numbers], rel=1e-4, abs=1e-5)
    files = [{str(path.relative_to(run)) for path in Path(run).rglob("*")} for run in ("one", "two")]
    assert files[0] == files[1]
    assert json.loads(Path("two/environment.json").read_text())["ranks"] == 2
    assert "distributed" not in Path("two/config.yaml").read_text()


def test_exact_runs_give_the_same_bits_and_go_on_with_any_number_of_ranks(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exact = (*FAST, "distributed.exact=4", "objective=geco")
    assert run_alone(["train", *exact, "epochs=3", "out=one"]) == 0
    train(pair, tmp_path, *exact, "epochs=3", "out=two")
    train(pair, tmp_path, *exact, "epochs=1", "out=first")
    assert run_alone(["train", "resume=first", "epochs=2"]) == 0
    train(pair, tmp_path, "resume=first", "epochs=3")
    assert rows(Path("one")) == rows(Path("two")) == rows(Path("first"))
    expected = state(Path("one"))
    for run in ("two", "first"):
        for part in ("model", "objective"):
            assert all(torch.equal(value, expected[part][name]) for name, value in state(Path(run))[part].items())


def test_a_run_of_several_ranks_goes_on_in_one_process(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(pair, tmp_path, *FAST, "epochs=1", "out=run")
    assert run_alone(["train", "resume=run", "epochs=2"]) == 0
    _, out, _ = train(pair, tmp_path, "resume=run", "epochs=3")
    assert "resuming after step 17, in epoch 3 of 3" in out
    assert state(Path("run"))["progress"]["step"] == 26


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lr=-1",), "lr=-1  is -1, must be above 0"),
        (("batch_size=1",), "batch_size=1  is less than the 2 ranks, of which each needs an image"),
        (("distributed.exact=3",), "distributed.exact=3  is not a multiple of the 2 ranks; use distributed.exact=4"),
        (("model/likelihood=sigma_vae",), "2 ranks  the loss of the model's likelihood depends on the whole batch"),
        (("distributed.exact=4", "objective=tcvae"), "distributed.exact=4  the loss of objective=tcvae depends on"),
        (("distributed.exact=4", "learner.grad_accumulation=2"), "distributed.exact=4  divides the batch already"),
        (("objective=tcvae", "execution=compile"), "execution=compile  cannot compile a loss that 2 ranks compute"),
        (("out=taken",), "out=taken  already exists; choose a new folder"),
    ],
)
def test_a_wrong_setting_is_one_message_and_exit_code_2_on_all_ranks(arguments, message, pair, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    (first, _, err), (second, *silent) = pair(command, tmp_path, "train", *SMALL, *arguments)
    assert (first, second, silent) == (2, 2, ["", ""])
    head, line = err.strip().splitlines()
    assert head == "vae train: 1 error; nothing was written"
    assert line.strip().startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_exact_is_checked_in_one_process(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run_alone(["train", *SMALL, "distributed.exact=4", "batch_size=3"]) == 2
    assert "batch_size=3  is less than the 4 shards" in capfd.readouterr().err


def test_all_ranks_end_at_a_nan(pair, tmp_path):
    (first, _, err), second = pair(command, tmp_path, "train", *FAST, "epochs=2", "lr=1e30", "out=run")
    assert (first, second) == (1, (1, "", ""))
    (line,) = err.strip().splitlines()
    assert "became NaN or infinite at step 2" in line
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
