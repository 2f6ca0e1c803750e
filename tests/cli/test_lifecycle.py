"""Runs that were killed, are damaged or in use elsewhere: what can be resumed, and the messages."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_process import wait_for
from tests.commandline import BRIEF, TINY, Vae, rows, start
from vae_train.runs.config import Config
from vae_train.runs.run import Run
from vae_train.util.errors import UsageError
from vae_train.util.files import replacing
from vae_train.util.locks import locked


def status(run: Path) -> str:
    return json.loads((run / "summary.json").read_text())["status"]


def test_a_run_without_a_checkpoint_starts_afresh(vae: Vae, trained: Path) -> None:
    before = rows(trained)
    shutil.rmtree(trained / "checkpoints")
    (trained / "summary.json").write_text('{"status": "running"}')
    answer = vae("train", f"resume={trained}")
    assert (answer.code, "has no checkpoint yet; starting from the beginning" in answer.out) == (0, True)
    assert rows(trained) == before
    assert status(trained) == "done"


def test_a_run_without_a_checkpoint_starts_from_the_weights_that_it_was_to_start_from(vae: Vae, trained: Path) -> None:
    assert vae.train("out=warm", f"init_from={trained}").code == 0
    before = rows(Path("warm"))
    shutil.rmtree("warm/checkpoints")
    (Path("warm") / "summary.json").unlink()
    assert vae("train", "resume=warm").code == 0
    assert rows(Path("warm")) == before


def test_a_folder_that_a_killed_run_left_empty_can_be_named_again(vae: Vae) -> None:
    Path("r").mkdir()
    Path("r/.config.yaml.1a2b3c4d.tmp").write_text("version: 2")
    assert vae.train("out=r").code == 0
    (line,) = vae.train("out=r").errors()
    assert "already exists" in line


def test_a_run_is_running_from_its_first_second_and_one_that_was_killed_goes_on(tmp_path: Path, vae: Vae) -> None:
    assert vae.train("out=r", "trainer.log_every=7", "threads=1").code == 0
    process = start("train", "resume=r", "epochs=4000", folder=tmp_path)
    wait_for(tmp_path / "r/metrics.jsonl", '"epoch": 4')
    assert status(Path("r")) == "running"
    for command in (("train", "resume=r"), ("train", "resume=r", "epochs=5000")):
        (line,) = vae(*command).errors()
        assert f"is in use by process {process.pid} on " in line
    assert vae("eval", "run=r", *BRIEF).code == 0
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert status(Path("r")) == "running"
    Path("r/train.log").unlink()
    second = start("train", "resume=r", folder=tmp_path)
    wait_for(tmp_path / "r/train.log", ", step ")
    second.send_signal(signal.SIGTERM)
    _, err = second.communicate(timeout=60)
    assert (second.returncode, "Traceback" in err) == (143, False)
    assert status(Path("r")) == "stopped"


@pytest.mark.parametrize("content", ["", "{", '{"status"', "[1]", "3", "null", "\x00\x00", "[" * 100_000])
def test_damaged_json_is_read_as_nothing(trained: Path, content: str) -> None:
    for name in ("summary.json", "environment.json"):
        (trained / name).write_text(content)
    run = Run.open(trained)
    assert (run.summary(), run.environment()) == ({"status": "unknown"}, {})


@pytest.mark.parametrize("content", ["", '{"status"'])
def test_damaged_json_is_no_obstacle(vae: Vae, trained: Path, content: str) -> None:
    for name in ("summary.json", "environment.json"):
        (trained / name).write_text(content)
    answer = vae("train", f"resume={trained}", "epochs=3")
    assert answer.code == 0, answer.err
    assert rows(trained)[-1]["epoch"] == 3


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(TypeError), replacing(path) as file:
        file.writelines([b"half", None])
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_text() == "old"


def test_a_run_is_created_once(tmp_path: Path) -> None:
    Run.create(tmp_path / "r", Config({"name": "x"}))
    with pytest.raises(UsageError, match="already exists"):
        Run.create(tmp_path / "r", Config({"name": "y"}))
    assert "name: x" in (tmp_path / "r/config.yaml").read_text()


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked(path), pytest.raises(UsageError, match=f"in use by process {os.getpid()} on "), locked(path):
        pass
    with locked(path):
        pass


def test_a_forked_child_does_not_hold_the_locks_of_its_parent(tmp_path: Path) -> None:
    (ready, tell), (end, leave) = os.pipe(), os.pipe()
    parent = os.fork()
    if parent == 0:
        with locked(tmp_path / "lock"):
            if os.fork() == 0:
                os.write(tell, b"x")
                os.read(end, 1)
            else:
                os.read(ready, 1)
            os._exit(0)
    os.waitpid(parent, 0)
    try:
        with locked(tmp_path / "lock"):
            pass
    finally:
        os.write(leave, b"x")


@pytest.mark.parametrize("name", ["summary.json", "train.log", "metrics.jsonl", "metrics.csv", "config.yaml", ".lock"])
def test_nothing_of_a_run_is_written_through_a_link(vae: Vae, trained: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    shutil.move(trained / name, outside)
    before = outside.read_bytes()
    (trained / name).symlink_to(outside)
    answer = vae("train", f"resume={trained}", "epochs=3")
    assert (answer.code in (0, 1, 2), "Traceback" in answer.err) == (True, False)
    assert outside.read_bytes() == before


@pytest.mark.slow
def test_two_trainings_that_start_at_once_have_one_folder(tmp_path: Path) -> None:
    both = [start("train", *TINY, "out=r", folder=tmp_path) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], answers
    assert status(tmp_path / "r") == "done"


def test_default_batches_follow_the_files_that_can_be_read(vae: Vae) -> None:
    Path("photos").mkdir()
    for number in range(10):
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(f"photos/{number}.png")
    for number in range(6):
        Path(f"photos/bad{number}.png").write_text("no image")
    answer = vae.train("data=folder", "data.root=photos", "out=r")
    assert answer.code == 0, answer
    assert vae("train", "resume=r", "epochs=3").code == 0


@pytest.mark.parametrize("setting", ["seed: abc", "device: [1]", "threads: many"])
def test_a_value_of_a_saved_configuration_that_no_component_reads_is_checked(vae: Vae, setting: str) -> None:
    assert vae.train("out=r").code == 0
    name, file = setting.partition(":")[0], Path("r/config.yaml")
    file.write_text(re.sub(f"^{name}:.*$", setting, file.read_text(), count=1, flags=re.MULTILINE))
    for command in ("eval", "sample"):
        (line,) = vae(command, "run=r").errors()
        assert line.lstrip().startswith(f"r/config.yaml: {name}=")
