import io
import logging
import os
import pty
import termios
from fcntl import ioctl
from struct import pack

import pytest

from vae_train.training.display import Display, describe
from vae_train.training.epochs import Epochs

EPOCHS = Epochs(total=20, num_images=1000, batch_size=100)
VALID = {"elbo": -157.34, "rate": 5.31, "distortion": 152.03, "loss": 157.34}
TRAIN = {"elbo": -158.0, "rate": 5.0, "distortion": 153.0, "loss": 158.0, "images_per_second": 6100.4}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    """A terminal of a given size; the size is that of a pseudo-terminal."""

    def __init__(self, rows, columns):
        super().__init__()
        _, self._descriptor = pty.openpty()
        ioctl(self._descriptor, termios.TIOCSWINSZ, pack("HHHH", rows, columns, 0, 0))

    def isatty(self):
        return True

    def fileno(self):
        return self._descriptor

    def close(self):
        os.close(self._descriptor)

    def screen(self):
        """What remains in the line."""
        return self.getvalue().rstrip("\n").split("\r")[-1].rstrip()


def run(display, epochs, seconds_per_epoch=0.0, clock=None, stop_after=None):
    with display:
        for epoch in range(1, epochs + 1):
            for step in range((epoch - 1) * 10, epoch * 10):
                display.advance(step + 1)
            display.steps(TRAIN)
            if clock is not None:
                clock.now += seconds_per_epoch
            last = epoch == (stop_after or EPOCHS.total)
            display.epoch(TRAIN, VALID, "best -157.3", last)


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


@pytest.fixture(autouse=True)
def logged(caplog, monkeypatch):
    logger = logging.getLogger("vae_train")
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG, "vae_train"):
        yield
    logger.removeHandler(caplog.handler)


def test_a_line_says_what_matters(caplog):
    clock = Clock()
    run(Display(EPOCHS, 0, io.StringIO(), clock), 1, 60.0, clock)
    (line,) = lines(caplog)
    assert line == ("epoch 1/20 · valid ELBO -157.3 · rate 5.31 · distortion 152.0 · 6,100 images/s · 19 min left")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.1, [1, 20]), (10.0, [1, 4, 7, 10, 13, 16, 19, 20]), (45.0, list(range(1, 21)))],
)
def test_lines_are_30_seconds_apart_but_for_the_first_and_the_last(caplog, seconds, shown):
    clock = Clock()
    run(Display(EPOCHS, 0, io.StringIO(), clock), 20, seconds, clock)
    assert [int(line.split("/")[0].removeprefix("epoch ")) for line in lines(caplog)] == shown
    assert "left" not in lines(caplog)[-1]


def test_a_run_that_stops_early_shows_its_last_epoch(caplog):
    run(Display(EPOCHS, 0, io.StringIO(), Clock()), 7, stop_after=7)
    assert [line.split(" ·")[0] for line in lines(caplog)] == ["epoch 1/20", "epoch 7/20"]


def test_a_long_epoch_has_lines_within(caplog):
    clock = Clock()
    with Display(EPOCHS, 10, io.StringIO(), clock) as display:
        for step in range(10, 15):
            clock.now += 20.0
            display.advance(step + 1)
            display.steps(TRAIN)
    first, _ = lines(caplog)
    assert first.startswith("epoch 2/20 · step 12 of 200 · train ELBO -158.0 · rate 5.00 · distortion 153.0 · ")
    assert first.endswith(" · 63 min left")  # 188 steps of 20 s


@pytest.mark.parametrize("rows", [0, 24])
@pytest.mark.parametrize("columns", [0, 20, 40, 60, 80, 120, 200])
def test_the_bar_fits_the_terminal_and_stays(caplog, rows, columns):
    terminal = Terminal(rows, columns)
    run(Display(EPOCHS, 0, terminal, Clock()), 20)
    screen = terminal.screen()
    assert screen.startswith("epoch 20/20 ")
    assert all(len(line.rstrip()) <= (columns or 80) for line in terminal.getvalue().split("\r"))
    parts = {
        "step 200/200": 120,
        "rate 5.31 · distortion 152.0": 120,
        "best -157.3": 80,
        "valid ELBO -157.3": 60,
        "00:0": 40,
    }
    assert [part for part in parts if part in screen] == [p for p, wide in parts.items() if (columns or 80) >= wide]
    assert not lines(caplog)
    terminal.close()


def test_before_the_first_validation_the_bar_has_the_newest_training_metrics():
    terminal = Terminal(24, 120)
    with Display(EPOCHS, 0, terminal, Clock()) as display:
        for step, elbo in enumerate((-300.0, -200.0, -158.0)):
            display.advance(step + 1)
            display.steps(TRAIN | {"elbo": elbo})
        assert "train ELBO -158.0" in terminal.screen()
        display.epoch(TRAIN, VALID, "best -157.3", False)
        display.steps(TRAIN)
        assert "valid ELBO -157.3" in terminal.screen()
    terminal.close()


def test_metrics_of_models_without_an_elbo():
    assert describe("train", {"loss": 3.0, "distortion": 1234.5}) == "train loss 3.00 · distortion 1,234"
