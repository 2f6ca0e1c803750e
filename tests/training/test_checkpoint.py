from __future__ import annotations

import errno
import os
import pickle
import zipfile
from collections import OrderedDict

import pytest
import torch

from vae_train.training import checkpoint
from vae_train.training.checkpoint import Checkpoints, load, previous, save
from vae_train.util.errors import RunError


def state(number=0):
    return {"model": OrderedDict(w=torch.full((100, 100), float(number))), "step": number, "ema": None, "names": ["a"]}


def at(step):
    return state(step) | {"progress": {"step": step}}


def step_of(state):
    return state["progress"]["step"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "last.pt"


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped":
        with zipfile.ZipFile(path) as archive:
            info = max(archive.infolist(), key=lambda i: i.file_size)
        content[info.header_offset + len(info.filename) + 20_000] ^= 1
    elif how == "truncated":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    elif how == "text":
        content = bytearray(b"<html>not found</html>")
    path.write_bytes(content)


DAMAGES = pytest.mark.parametrize("how", ["flipped", "truncated", "empty", "text"])


def test_a_state_comes_back_as_it_was(path):
    save(path, state(7))
    found = load(path)
    assert torch.equal(found["model"]["w"], state(7)["model"]["w"])
    assert (found["step"], found["ema"], found["names"]) == (7, None, ["a"])


def test_the_checkpoint_before_is_kept_and_nothing_else(path):
    for number in range(3):
        save(path, state(number))
    assert (load(path)["step"], load(previous(path))["step"]) == (2, 1)
    assert sorted(p.name for p in path.parent.iterdir()) == ["last.previous.pt", "last.pt"]


def test_a_flipped_bit_is_one_that_torch_itself_does_not_see(path):
    save(path, state(1))
    damage(path, "flipped")
    assert not torch.equal(torch.load(path, weights_only=True)["model"]["w"], state(1)["model"]["w"])


@DAMAGES
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(path, how):
    save(path, state(1))
    save(path, state(2))
    damage(path, how)
    assert load(path)["step"] == 1


@DAMAGES
def test_two_damaged_checkpoints_are_both_named(path, how):
    save(path, state(1))
    save(path, state(2))
    damage(path, how)
    damage(previous(path), how)
    with pytest.raises(RunError) as caught:
        load(path)
    assert f"{path} is damaged" in str(caught.value)
    assert f"{previous(path)} is damaged" in str(caught.value)


def test_a_checkpoint_lost_between_two_renames_is_found(path):
    save(path, state(1))
    os.replace(path, previous(path))
    assert load(path)["step"] == 1


@pytest.mark.parametrize("names", [["best"], ["last"], ["best", "last"]])
@pytest.mark.parametrize("again", [False, True])
def test_a_save_that_is_killed_at_any_rename_leaves_every_checkpoint(tmp_path, monkeypatch, names, again):
    class Killed(BaseException):
        pass

    def killed_at(number):
        calls = iter(range(number))

        def replace(source, target, rename=os.replace):
            if next(calls, None) is None:
                raise Killed
            rename(source, target)

        return replace

    for number in range(len(names) + ("last" in names)):
        checkpoints = Checkpoints(tmp_path / str(number))
        for step in (1, 2) if again else (2,):
            checkpoints.save(names, at(step))
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint.os, "replace", killed_at(number))
            with pytest.raises(Killed):
                checkpoints.save(names, at(3))
        assert sorted(checkpoints.names()) == names
        assert {step_of(checkpoints.load(name)) for name in ("best", *names)} <= {2, 3}
        assert "last" not in names or checkpoints.load_last()["step"] == 2


def test_no_checkpoint_is_an_error_that_names_it(path):
    with pytest.raises(RunError, match=r"last\.pt does not exist"):
        load(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_foreign_pickle_is_refused_and_not_run(path, tmp_path, zipped):
    path.parent.mkdir()
    trap = tmp_path / "trap"
    if zipped:
        torch.save({"format": checkpoint.FORMAT, "model": Malicious(trap)}, path)
    else:
        path.write_bytes(pickle.dumps({"format": checkpoint.FORMAT, "model": Malicious(trap)}))
    with pytest.raises(RunError, match=r"last\.pt is (not a checkpoint of vae_train|damaged)"):
        load(path)
    assert not trap.exists()
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert trap.exists(), "the trap does not work"


@pytest.mark.parametrize("content", [{"model": {}}, {"format": 99}, [1, 2], {"state_dict": {"w": torch.zeros(2)}}])
def test_a_file_of_another_program_is_refused(path, content):
    path.parent.mkdir()
    torch.save(content, path)
    with pytest.raises(RunError, match="is not a checkpoint of"):
        load(path)


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("where", "name"), [(checkpoint.os, "fsync"), (checkpoint.torch, "save"), (checkpoint.os, "replace")]
)
def test_a_full_disk_leaves_the_old_checkpoint_and_no_rubbish(path, monkeypatch, where, name):
    save(path, state(1))
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(where, name, full)
        with pytest.raises(RunError, match="No space left on device"):
            save(path, state(2))
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]
    assert load(path)["step"] == 1


def test_a_disk_that_fills_up_while_torch_writes_is_an_error_of_the_run(path):
    resource = pytest.importorskip("resource")
    save(path, state(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(RunError, match="could not write the checkpoint"):
            save(path, state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load(path)["step"] == 1
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


def test_nothing_is_written_through_a_link(path, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    path.parent.mkdir()
    for name in ("last.pt", "last.previous.pt", "last.pt.tmp"):
        (path.parent / name).symlink_to(outside)
    for number in range(3):
        save(path, state(number))
    assert (outside.read_text(), load(path)["step"]) == ("mine", 2)


def test_a_disk_that_lies_is_caught_by_reading_back(path, monkeypatch):
    save(path, state(1))

    def lie(state, file):
        file.write(b"something else")

    monkeypatch.setattr(checkpoint.torch, "save", lie)
    with pytest.raises(RunError, match="reading it back failed"):
        save(path, state(2))
    assert load(path)["step"] == 1


def test_a_folder_that_cannot_be_made_is_an_error_of_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not write the checkpoint"):
        save(tmp_path / "file" / "last.pt", state())


@pytest.mark.parametrize("linked", [True, False])
def test_two_checkpoints_do_not_share_their_file(tmp_path, monkeypatch, linked):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links on this file system")

    if not linked:
        monkeypatch.setattr(os, "link", refuse)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(["best", "last"], at(1))
    checkpoints.save(["last"], at(2))
    assert [step_of(checkpoints.load(name)) for name in ("best", "last")] == [1, 2]
    assert load(previous(tmp_path / "last.pt"))["step"] == 1
    checkpoints.save(["best", "last"], at(3))
    assert [step_of(checkpoints.load(name)) for name in ("best", "last")] == [3, 3]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_best_checkpoint_contains_weights_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path, stamp={"config": "c", "data": "d"})
    checkpoints.save(["best", "last"], at(1) | {"optimizer": {"momentum": torch.zeros(100_000)}})
    best, last = checkpoints.load("best"), checkpoints.load("last")
    assert set(best) == {"format", "model", "ema", "progress", "config", "data"}
    assert set(last) == {*best, "optimizer", "step", "names"}
    assert (tmp_path / "best.pt").stat().st_size < (tmp_path / "last.pt").stat().st_size / 5


def test_without_a_best_checkpoint_the_last_is_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(["last"], at(1))
    assert checkpoints.path("best") == tmp_path / "last.pt"
    assert step_of(checkpoints.load("best")) == 1
    checkpoints.save(["best"], at(2))
    checkpoints.save(["last"], at(3))
    assert (step_of(checkpoints.load("best")), step_of(checkpoints.load("last"))) == (2, 3)


@DAMAGES
def test_a_damaged_checkpoint_is_replaced_by_the_other_one(tmp_path, how):
    reports = []
    checkpoints = Checkpoints(tmp_path, lambda *report: reports.append(report))
    checkpoints.save(["best", "last"], at(1))
    checkpoints.save(["last"], at(2))
    checkpoints.remove_previous()
    damage(tmp_path / "last.pt", how)
    assert step_of(checkpoints.load("last")) == 1
    ((why, instead),) = reports
    assert why.startswith(f"{tmp_path}/last.pt is damaged (")
    assert instead == "using best.pt instead"
    with pytest.raises(RunError, match=r"last\.pt is damaged .*last\.previous\.pt does not exist"):
        checkpoints.load_last()
    checkpoints.save(["last"], at(3))
    damage(tmp_path / "best.pt", how)
    assert step_of(checkpoints.load("best")) == 3
    for name in ("last.pt", "last.previous.pt"):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(RunError, match=r"best\.pt is damaged .*; .*last\.pt is damaged"):
        checkpoints.load("best")


@pytest.mark.parametrize("is_damaged", [False, True])
def test_the_previous_state_goes_once_the_last_one_is_verified(tmp_path, is_damaged):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.remove_previous()
    for step in (1, 2):
        checkpoints.save(["last"], at(step))
    if is_damaged:
        damage(tmp_path / "last.pt", "flipped")
    checkpoints.remove_previous()
    assert (tmp_path / "last.previous.pt").exists() == is_damaged
    assert checkpoints.load_last()["step"] == (1 if is_damaged else 2)
