"""Damaged files of a run: a line names the file, the damage and what is used instead; strict=true refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.commandline import BRIEF, Vae, rows


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.find(b"archive/data/0")  # the middle of a checkpoint may be padding, which means nothing
    content[len(content) // 2 if start < 0 else start + 500] ^= 1
    path.unlink()  # a hard link may lead to the same content
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def said(vae: Vae, line: str, *arguments: str) -> None:
    """The command says a line once and continues, but with strict=true it stops."""
    refused = vae(*arguments, "strict=true").errors()
    assert (len(refused), line.partition("; ")[0] in refused[0]) == (1, True), refused
    answer = vae(*arguments)
    assert (answer.code, answer.out.count(line), answer.err) == (0, 1, ""), answer


@pytest.mark.parametrize("damage", [flip, cut])
def test_the_other_checkpoint_is_used_with_a_line(vae: Vae, trained: Path, damage: Callable) -> None:
    damage(trained / "checkpoints/best.pt")
    said(vae, "); using last.pt instead", "eval", f"run={trained}", *BRIEF)
    (line,) = json.loads((trained / "eval/test.json").read_text())["damage"]
    assert line.startswith(f"{trained}/checkpoints/best.pt is damaged (")
    assert "best.pt is damaged" in vae("sample", f"run={trained}", "num=1").out


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_run_whose_last_state_is_lost_names_a_way_on(vae: Vae, trained: Path, damage: Callable) -> None:
    damage(trained / "checkpoints/last.pt")
    (line,) = vae("train", f"resume={trained}", "epochs=3").errors()
    assert "last.pt does not exist" in line if damage == Path.unlink else "last.pt is damaged (" in line
    assert line.endswith(f"best.pt, use init_from={trained}")
    assert vae.train(f"init_from={trained}").code == 0
    assert vae("eval", f"run={trained}", *BRIEF, "strict=true").code == 0
    if damage != Path.unlink:
        said(vae, "); using best.pt instead", "eval", f"run={trained}", "checkpoint=last", *BRIEF)


def test_a_best_checkpoint_that_is_gone_is_missed(vae: Vae, trained: Path) -> None:
    (trained / "checkpoints/best.pt").unlink()
    said(vae, "best.pt does not exist; using last.pt instead", "eval", f"run={trained}", *BRIEF)


def test_a_damaged_prior_is_replaced_with_a_line(vae: Vae, trained: Path) -> None:
    for seed in (0, 1):
        assert vae("fit-prior", f"run={trained}", "prior=kde", f"seed={seed}").code == 0
    cut(trained / "priors/kde.pt")
    said(vae, "; using kde.previous.pt instead", "eval", f"run={trained}", "prior=kde", *BRIEF)


def test_a_prior_that_is_lost_is_fitted_again_by_the_suggestion(vae: Vae, trained: Path) -> None:
    assert vae("fit-prior", f"run={trained}", "prior=gmm", "prior.components=2").code == 0
    cut(trained / "priors/gmm.pt")
    answer = vae("eval", f"run={trained}", "prior=gmm", *BRIEF)
    assert (answer.code, len(answer.err.splitlines())) == (1, 1)
    suggestion = answer.err.strip().partition("refit it with: vae ")[2]
    assert suggestion == f"fit-prior run={trained} prior=gmm"
    assert vae(*suggestion.split()).code == 0
    assert vae("eval", f"run={trained}", "prior=gmm", *BRIEF).code == 0


def test_nothing_is_said_where_nothing_is_damaged(vae: Vae, trained: Path) -> None:
    for arguments in (["eval", f"run={trained}", *BRIEF], ["train", f"resume={trained}", "epochs=3"]):
        answer = vae(*arguments, "strict=true")
        assert (answer.code, "damaged" in answer.out) == (0, False)
    assert json.loads((trained / "eval/test.json").read_text())["damage"] == []


@pytest.mark.parametrize("how", ["cut line", "changed digit", "missing line"])
def test_rows_after_a_damaged_one_are_kept(vae: Vae, trained: Path, how: str) -> None:
    path = trained / "metrics.jsonl"
    lines, before = path.read_text().splitlines(), rows(trained)
    lines[1] = {"cut line": lines[1][:20], "changed digit": lines[1].replace("1", "2", 1), "missing line": ""}[how]
    path.write_text("\n".join(lines) + "\n")
    kept = len(before) - (how != "changed digit")
    said(
        vae,
        f"metrics.jsonl is damaged or incomplete; keeping the {kept} readable rows",
        *("train", f"resume={trained}", "epochs=3"),
    )
    assert rows(trained)[kept - 1] == before[-1]
    assert "damaged" not in vae("train", f"resume={trained}", "epochs=4").out


def test_a_history_that_is_gone_is_missed(vae: Vae, trained: Path) -> None:
    (trained / "metrics.jsonl").write_text("")
    said(
        vae,
        "metrics.jsonl is damaged or incomplete; keeping the 0 readable rows",
        "train",
        f"resume={trained}",
        "epochs=3",
    )


def test_another_configuration_is_not_that_of_the_checkpoint(vae: Vae, trained: Path) -> None:
    path = trained / "config.yaml"
    path.write_text(path.read_text().replace("lr: 0.001", "lr: 0.003", 1))
    said(vae, "config.yaml is not what the checkpoint was trained with; using it", "eval", f"run={trained}", *BRIEF)
    (line,) = vae("train", f"resume={trained}", "epochs=3").errors()
    assert "config.yaml  is not what the run was trained with; restore it" in line


def test_a_run_from_before_a_setting_is_that_of_its_checkpoint(vae: Vae, trained: Path) -> None:
    path = trained / "config.yaml"
    lines = path.read_text().splitlines(keepends=True)
    older = [line for line in lines if "skip_norm: null" not in line]
    assert len(older) == len(lines) - 1
    path.write_text("".join(older))
    assert "is not what" not in vae("eval", f"run={trained}", *BRIEF).err
    assert vae("train", f"resume={trained}", "epochs=3").code == 0


def test_settings_that_change_nothing_belong_to_no_checkpoint(vae: Vae, trained: Path) -> None:
    path = trained / "config.yaml"
    text = path.read_text().replace("name: digits-mlp", "name: mine").replace("workers: 2", "workers: 1")
    path.write_text(text.replace("log_every: 50", "log_every: 10"))
    assert vae("eval", f"run={trained}", *BRIEF, "strict=true").code == 0
    assert vae("train", f"resume={trained}", "epochs=3", "strict=true").code == 0


def test_the_data_is_checked_without_environment_json(vae: Vae, trained: Path) -> None:
    (trained / "environment.json").unlink()
    assert vae("eval", f"run={trained}", *BRIEF).code == 0
    for path in (trained / "checkpoints").iterdir():
        torch.save(torch.load(path, weights_only=True) | {"data": "sha256:0"}, path)
    for arguments in (("eval", f"run={trained}"), ("train", f"resume={trained}", "epochs=3")):
        (line,) = vae(*arguments).errors()
        assert f"is not the data that {trained} was trained on" in line


@pytest.mark.parametrize("file", ["checkpoints/best.pt", "facts.json", "summary.json"])
def test_a_file_that_cannot_be_opened_is_not_called_damaged(vae: Vae, trained: Path, file: str) -> None:
    (trained / file).unlink()
    (trained / file).mkdir()
    answer = vae("eval", f"run={trained}", *BRIEF)
    assert (answer.code, answer.out.count(f"{trained}/{file} cannot be read: Is a directory; ")) == (0, 1), answer
    assert "damaged" not in answer.out


def test_a_report_that_is_damaged_is_replaced_with_a_line(vae: Vae, trained: Path) -> None:
    vae("eval", f"run={trained}", *BRIEF)
    cut(trained / "eval/test.json")
    answer = vae("eval", f"run={trained}", *BRIEF)
    assert f"{trained}/eval/test.json is damaged; its metrics are lost" in answer.out


def test_errors_of_the_system_name_file_and_cause(vae: Vae, trained: Path) -> None:
    (trained / "metrics.jsonl").unlink()
    (trained / "metrics.jsonl").mkdir()
    answer = vae("train", f"resume={trained}", "epochs=3")
    assert answer.err == f"vae train: cannot read or write {trained}/metrics.jsonl: Is a directory\n"


def test_damage_of_initial_weights_is_said_once(vae: Vae, trained: Path) -> None:
    flip(trained / "checkpoints/best.pt")
    answer = vae.train("data=digits", f"init_from={trained}", "out=new")
    assert (answer.code, answer.out.count("; using last.pt instead"), answer.err) == (0, 1, "")
