from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from tests.support import small_run
from vae_train.training.background import Background, Output
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers.base import Logger
from vae_train.training.loggers.files import Files, read_metrics
from vae_train.util.errors import RunError, Stopped


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_work_is_done_in_order_by_another_thread():
    done, threads = [], set()

    def work(number):
        time.sleep(0.001 * (5 - number % 5))
        done.append(number)
        threads.add(threading.current_thread())

    with Background() as background:
        for number in range(20):
            background.submit(lambda number=number: work(number))
    assert done == list(range(20))
    assert len(threads) == 1
    assert threading.current_thread() not in threads


def test_operations_beside_training_use_one_core_and_those_of_training_all(two_threads):
    counts = []

    def count():
        torch.zeros(1_000_000).exp()
        counts.append(torch.get_num_threads())

    count()
    with Background() as background:
        background.submit(count)
        background.flush()
        new = threading.Thread(target=count)
        new.start()
        new.join()
        count()
    count()
    assert counts == [2, 1, 2, 2, 2]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_image_grids_leave_no_further_threads_of_openmp_behind(tmp_path, two_threads):
    """These would take cores from the steps, see `Background`."""
    seen = []

    class Counting(Files):
        def metrics(self, row):
            super().metrics(row)
            if (row["split"], row["scope"]) == ("train", "epoch"):
                seen.append(len(list(Path("/proc/self/task").iterdir())))

    data, learner, trainer = small_run("epochs=4", "trainer.sample_every=2")
    logger = Counting(tmp_path)
    trainer.fit(learner, data, Checkpoints(tmp_path), [logger])
    logger.close()
    assert len(list((tmp_path / "samples").glob("*.png"))) == 2
    assert seen[1:] == [seen[1]] * 3


def test_submitting_waits_where_too_much_is_waiting():
    gate, done = threading.Event(), []
    with Background(depth=2) as background:
        background.submit(gate.wait)
        background.submit(lambda: done.append(1))
        late = threading.Timer(0.2, gate.set)
        late.start()
        background.submit(lambda: done.append(2))
        assert gate.is_set()
    assert done == [1, 2]


def fail():
    raise RunError("the disk is full")


def test_an_error_of_the_work_reaches_a_later_call():
    def submit_for_ever():
        with Background() as background:
            background.submit(fail)
            while True:
                time.sleep(0.001)
                background.submit(lambda: None)

    with pytest.raises(RunError, match="the disk is full"):
        submit_for_ever()


@pytest.mark.parametrize("ending", [None, Stopped(15, "stopped")])
def test_an_error_of_the_last_work_is_not_lost(ending):
    def end():
        with Background() as background:
            background.submit(fail)
            if ending:
                raise ending

    with pytest.raises(RunError, match="the disk is full"):
        end()


def test_an_error_of_the_training_itself_is_what_is_raised_and_what_was_submitted_is_done():
    done = []

    def go_wrong():
        with Background() as background:
            background.submit(lambda: done.append(time.sleep(0.05)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        go_wrong()
    assert done == [None]


def test_a_second_ctrl_c_does_not_wait_for_what_has_not_begun():
    begun, done = threading.Event(), []

    def interrupt():
        with Background() as background:
            background.submit(lambda: (begun.set(), time.sleep(0.1)))
            background.submit(lambda: done.append(1))
            begun.wait()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert done == []


def test_what_is_saved_is_the_state_when_it_was_asked_for(tmp_path):
    weights = torch.zeros(1000)
    gate = threading.Event()
    with Output([], Checkpoints(tmp_path)) as output:
        output.submit(gate.set)
        output.save(["last"], lambda: {"weights": weights, "inner": {"list": [weights]}})
        weights.fill_(1.0)
    state = Checkpoints(tmp_path).load("last")
    assert state["weights"].sum() == 0
    assert state["inner"]["list"][0].sum() == 0


def test_only_one_copy_of_the_state_waits(tmp_path):
    held = []

    class Slow(Checkpoints):
        def save(self, names, state):
            held.append(state["step"])
            time.sleep(0.05)
            held.remove(state["step"])

    def state(step):
        assert held == []
        return {"step": step}

    with Output([], Slow(tmp_path)) as output:
        for step in range(3):
            output.save(["last"], lambda step=step: state(step))


class Noted(Checkpoints):
    """Notes what it is told to write, names and state."""

    def __init__(self, folder):
        super().__init__(folder)
        self.saved = []

    def save(self, names, state):
        self.saved.append((list(names), state["step"]))


def saving(checkpoints, *calls, ending=None):
    """What is saved with a pause that lasts longer than the training, and how that ends."""
    with Output([], checkpoints, pause=600) as output:
        for step, names in enumerate(calls):
            output.save(names, lambda step=step: {"step": step})
        Background.flush(output)  # what is pending stays pending
        assert checkpoints.saved == [(calls[0], 0)]
        if ending is not None:
            raise ending


BOTH = ["best", "last"]


@pytest.mark.parametrize(
    ("calls", "waited"),
    [
        ([BOTH], []),
        ([BOTH, BOTH, BOTH], [(BOTH, 2)]),
        ([BOTH, BOTH, ["last"], ["last"]], [(["best"], 1), (["last"], 3)]),
        ([BOTH, ["last"], ["best"]], [(["last"], 1), (["best"], 2)]),
        ([["last"], ["best"], BOTH], [(BOTH, 2)]),
    ],
)
@pytest.mark.parametrize("ending", [None, Stopped(15, "stopped"), ZeroDivisionError()])
def test_a_state_that_waits_gives_way_to_a_newer_one_of_its_name_and_is_written_at_the_end(calls, waited, ending):
    checkpoints = Noted(Path())
    with nullcontext() if ending is None else pytest.raises(type(ending)):
        saving(checkpoints, *calls, ending=ending)
    assert checkpoints.saved[1:] == waited


def test_a_second_ctrl_c_does_not_wait_for_a_state_that_waits(monkeypatch):
    checkpoints = Noted(Path())
    monkeypatch.setattr(Background, "submit", lambda self, work: work())
    with pytest.raises(KeyboardInterrupt):
        saving(checkpoints, BOTH, BOTH, ending=KeyboardInterrupt())
    assert checkpoints.saved == [(BOTH, 0)]


def test_a_state_waits_no_longer_than_the_pause(monkeypatch):
    now, checkpoints = [0.0], Noted(Path())
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Output([], checkpoints, pause=10) as output:
        for second in (0, 9, 11, 12, 20, 21):
            now[0] = second
            output.save(BOTH, lambda second=second: {"step": second})
            Background.flush(output)
        assert [step for _, step in checkpoints.saved] == [0, 11, 21]
        output.save(BOTH, lambda: {"step": 22})
        output.flush()
        assert checkpoints.saved[-1] == (BOTH, 22)
    assert len(checkpoints.saved) == 4


@pytest.mark.parametrize("earlier", [RunError("the disk is full"), OSError("no image")])
def test_an_error_of_the_training_is_what_is_raised_where_the_disk_is_full_too(earlier):
    def fail():
        raise earlier

    def go_wrong():
        with Output([], Noted(Path()), pause=600) as output:
            output.save(BOTH, lambda: {"step": 0})
            output.save(BOTH, lambda: {"step": 1})
            output.submit(fail)
            time.sleep(0.05)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        go_wrong()


class FullDisk(Checkpoints):
    """The second checkpoint does not fit."""

    count = 0

    def save(self, names, state):
        self.count += 1
        if self.count == 2:
            raise RunError("could not write the checkpoint: No space left on device")
        super().save(names, state)


def test_a_full_disk_ends_a_training_though_it_is_noticed_elsewhere(tmp_path):
    data, learner, trainer = small_run("epochs=5", "trainer.checkpoint_seconds=0")
    with pytest.raises(RunError, match="No space left on device"):
        trainer.fit(learner, data, FullDisk(tmp_path), [])
    assert Checkpoints(tmp_path).load("last")["progress"]["step"] == 10


def test_metrics_are_on_disk_before_the_state_that_follows_them(tmp_path):
    written = []

    class Rows(Logger):
        def metrics(self, row):
            time.sleep(0.002)
            written.append(row["step"])

    class Seen(Checkpoints):
        def save(self, names, state):
            assert written[-1] == state["progress"]["step"]
            written.append("saved")

    data, learner, trainer = small_run("epochs=3", "trainer.log_every=2", "trainer.checkpoint_seconds=0")
    trainer.fit(learner, data, Seen(tmp_path), [Rows(tmp_path, 0)])
    assert written.count("saved") == 3


def test_every_logger_gets_everything(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    loggers = [*map(Files, folders), Logger(tmp_path, 0)]
    with Output(loggers, Checkpoints(tmp_path)) as output:
        output.metrics({"step": 5, "loss": 1.5})
        output.image_grid("samples", "final", 5, lambda: torch.rand(3, 8, 8))
    for logger in loggers:
        logger.close()
    for folder in folders:
        assert read_metrics(folder / "metrics.jsonl") == [{"step": 5, "loss": 1.5}]
        assert {p.name for p in folder.iterdir()} == {"metrics.jsonl", "metrics.csv", "samples"}
