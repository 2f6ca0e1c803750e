"""Campaigns: every kind of fault is tried many times, and every outcome is compared with what was promised."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.torture.process import TIMED_OUT, Answer, call, count_changes, fail_from, forbid_escape, kill_at
from tests.torture.reports import Report
from tests.torture.sweeps import killed_sweep

TINY = (
    *("data=digits", "model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "latent_dim=2", "logger=none"),
    *("threads=1", "device=cpu", "trainer.checkpoint_seconds=0", "trainer.sample_every=1"),
)
TRAIN = ("train", *TINY, "epochs=2")
EVAL = ("k=5", "latents=false", "threads=1")
REPORT = ["report", "run=r", "examples=2"]
CLOCK = ("images_per_second", "data_wait", "seconds", "samples_per_second", "date", "conditions")
TIME_ZONES = ("", "Nowhere/None", ":/etc/passwd", "../../etc/shadow", "UTC+99", "\x01", "x" * 5000)
ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)
NAMED = ("no space", "permission", "read-only", "quota", "disk", "not writable")
MAX_CONFIG_SECONDS = 10
SAID = ("damaged", "does not exist", "is not what the checkpoint was trained with")
"""What a command says when it falls back to another file."""


class Torture:
    """Runs campaigns in a folder.

    Args:
        folder: an empty folder.
        rounds: how often a random fault is tried for every file, configuration or command line.
        stride: every how many-th operation is struck; 1 for all.
        seed: of everything random.
    """

    def __init__(self, folder: Path, rounds: int, stride: int, seed: int) -> None:
        self.folder, self.rounds, self.stride, self.random = folder, rounds, stride, random.Random(seed)
        self.whole = folder / "whole"
        self.whole.mkdir()
        self.changes = folder / "changes.txt"
        answer = call([*TRAIN, "out=r"], self.whole, count_changes(self.changes, self.whole))
        assert answer.code == 0, answer
        self.num_changes = len(self.changes.read_text().splitlines())
        self.results = results(self.whole / "r")
        self.evaluation = self.evaluate(self.whole)

    def kills(self) -> Report:
        """SIGKILL before every change of a file; resuming must give the run that was never killed."""
        report = Report("SIGKILL, then resume")
        for number in self._struck():
            with self.place() as place:
                killed = call([*TRAIN, "out=r"], place, kill_at(number, place))
                report.judge(f"change {number}", self._goes_on(place) if killed.code < 0 else ended(killed, (0,)))
        return report

    def errors(self) -> Report:
        """Every change of a file from one on fails; the command says so in a line, and the run can be gone on with."""
        report = Report("failing file operation, then resume")
        for number in self._struck():
            error = self.random.choice(ERRORS)
            with self.place() as place:
                failed = call([*TRAIN, "out=r"], place, fail_from(number, place, error))
                fault = ended(failed, (0, 1, 2)) or (silent(failed) if failed.code else None)
                report.judge(f"change {number}, {os.strerror(error)}", fault or self._goes_on(place))
        return report

    def full_disks(self) -> Report:
        """A small file system fills up; the command says so in a line, and the run goes on once there is room."""
        report = Report("full disk, then resume")
        if os.geteuid() != 0:
            return report
        sizes = [f"size={kilobytes}k" for kilobytes in (16, 40, 64, 100, 150, 200, 300, 400, 600)]
        inodes = [f"size=64m,nr_inodes={count}" for count in (1, 2, 3, 5, 8, 11, 14, 17, 20, 25)]
        for limit in [*sizes[:: self.stride], *inodes[:: self.stride]]:
            with self.place() as place, small_disk(place, limit):
                answer = call([*TRAIN, "out=r"], place)
                fault = ended(answer, (0, 1, 2)) or (silent(answer) if answer.code else None)
                remount(place, "size=64m,nr_inodes=1000")
                report.judge(limit, fault or half_written(place) or self._goes_on(place))
        return report

    def locked(self) -> Report:
        """A file system is read-only, or permissions are missing; commands say so in a line and change nothing."""
        report = Report("read-only or no permission")
        if os.geteuid() != 0:
            return report
        for number, arguments in enumerate(self._ways_to_write()):
            with self.place(self.whole) as place, small_disk(place, "size=64m"):
                shutil.copytree(self.whole / "r", place / "r")
                remount(place, "ro")
                report.judge(f"read-only, {' '.join(arguments[:2])}", self._denied(arguments, place))
            with self.place(self.whole) as place:
                lock(place)
                report.judge(f"no permission to write, {' '.join(arguments[:2])}", self._denied(arguments, place))
            if number == 0:  # starts a new run
                continue
            for file in ("config.yaml", "facts.json", "checkpoints/best.pt", "checkpoints/last.pt", "metrics.jsonl"):
                with self.place(self.whole) as place:
                    (place / "r" / file).chmod(0)
                    report.judge(
                        f"no permission to read {file}, {' '.join(arguments[:2])}", self._unread(arguments, place)
                    )
        return report

    def time_zones(self) -> Report:
        """TZ names no time zone; everything works."""
        report = Report("odd value of TZ")
        for zone in TIME_ZONES:
            with self.place(self.whole) as place:
                for arguments in self._ways_to_write():
                    answer = call(arguments, place, lambda zone=zone: set_time_zone(zone))
                    report.judge(f"TZ={zone[:20]}, {' '.join(arguments[:2])}", ended(answer, (0,)))
        return report

    def sweeps(self) -> Report:
        """SIGKILL for the processes of a sweep; the same command finishes it, with equal runs."""
        place = self.folder / "sweeps"
        place.mkdir()
        return killed_sweep(place, self.random, results)

    def _ways_to_write(self) -> list[list[str]]:
        """Commands that write: a new run, and into a run."""
        into = (["train", "resume=r", "epochs=3"], ["eval", "run=r", *EVAL], ["sample", "run=r", "num=2"], REPORT)
        return [[*TRAIN, "out=new"], *into, ["fit-prior", "run=r", "prior=gmm", "prior.components=2"]]

    def _denied(self, arguments: list[str], place: Path) -> str | None:
        before = {path: path.stat().st_size for path in place.rglob("*")}
        answer = call(arguments, place, obey_permissions)
        fault = ended(answer, (1, 2)) or silent(answer) or one_line(answer)
        after = {path: path.stat().st_size for path in place.rglob("*")}
        return fault or (None if before == after else "changed files")

    def _unread(self, arguments: list[str], place: Path) -> str | None:
        answer = call(arguments, place, obey_permissions)
        fault = ended(answer, (0, 1, 2)) or (silent(answer) if answer.code else None)
        return fault or ("called damaged" if "damaged" in answer.out + answer.err else None) or half_written(place)

    def damage(self) -> Report:
        """A bit flips, or a file is cut or emptied; results are those of the intact run, or it is said."""
        report = Report("damaged file, then eval, report and resume")
        files = sorted(p.relative_to(self.whole) for p in (self.whole / "r").rglob("*") if p.is_file())
        with self.place(self.whole) as place:
            longer = self._longer(place)
        for file in (f for f in files if f.suffix != ".png"):
            for _ in range(self.rounds):
                with self.place(self.whole) as place:
                    kind = self._damage(place / file)
                    fault = self._same_or_refused(self.evaluate(place), self.evaluation)
                    report.judge(f"{kind} in {file}, eval", fault)
                    report.judge(f"{kind} in {file}, report", ended(call(REPORT, place), (0, 1, 2)))
                    report.judge(f"{kind} in {file}, resume", self._same_or_refused(self._longer(place), longer))
        return report

    def hostile_configs(self) -> Report:
        """An untrusted config.yaml names foreign code, or is huge; none of it is executed."""
        from tests.torture.hostile import hostile_configs

        report = Report("hostile config.yaml")
        text = (self.whole / "r/config.yaml").read_text()
        for name, config in hostile_configs(text, self.random, self.rounds):
            with self.place(self.whole) as place:
                (place / "r/config.yaml").write_text(config)
                command = self.random.choice((["eval", "run=r", *EVAL], ["sample", "run=r", "num=2"], REPORT))
                answer = call(command, place, lambda place=place: forbid_escape(place))
                slow = f"took {answer.seconds:.0f} s" if answer.seconds > MAX_CONFIG_SECONDS else None
                report.judge(f"{name}, {command[0]}", ended(answer, (0, 1, 2)) or slow)
        return report

    def commands(self) -> Report:
        """Mistyped command lines; an error is a line with exit code 2, and nothing is written."""
        from tests.torture.fuzz import command_lines

        report = Report("mistyped command line")
        for arguments in command_lines(self.random, self.rounds):
            with self.place() as place:
                answer = call(arguments, place, timeout=60)
                written = [p.name for p in place.iterdir()]
                fault = ended(answer, (0, 2)) or (f"wrote {written}" if answer.code == 2 and written else None)
                is_training = answer.code == TIMED_OUT and not answer.err and "epoch 1/" in answer.out
                report.judge(" ".join(arguments), None if is_training else fault)  # some lines are valid all the same
        return report

    @contextmanager
    def place(self, copied: Path | None = None) -> Iterator[Path]:
        """A fresh folder, or a copy of one."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            place = Path(name) / "place"
            if copied is None:
                place.mkdir()
            else:
                shutil.copytree(copied, place)
            yield place

    def evaluate(self, place: Path) -> tuple[Answer, Any]:
        """`vae eval` of the run in `place`: its answer, and its numbers without the clock's."""
        answer = call(["eval", "run=r", *EVAL], place)
        file = place / "r/eval/test.json"
        return answer, without_clock(json.loads(file.read_text())) if answer.code == 0 and file.exists() else None

    def _longer(self, place: Path) -> tuple[Answer, Any]:
        answer = call(["train", "resume=r", "epochs=3"], place)
        return answer, results(place / "r") if answer.code == 0 else None

    def _goes_on(self, place: Path) -> str | None:
        """Why the interrupted run in `place` does not become the uninterrupted one; None if it does."""
        answer = call(["train", "resume=r"], place)
        if answer.code == 2 and not (place / "r/config.yaml").exists():
            answer = call([*TRAIN, "out=r"], place)
        if answer.code == 2 and "finished" in answer.err:  # struck after the last step
            return None if results(place / "r") == self.results else "is said to have finished, with other results"
        fault = ended(answer, (0,))
        return fault or (None if results(place / "r") == self.results else "other results after resuming")

    def _same_or_refused(self, outcome: tuple[Answer, Any], intact: tuple[Answer, Any]) -> str | None:
        answer, numbers = outcome
        if fault := ended(answer, (0, 1, 2)):
            return fault
        if answer.code:
            return None if answer.err.strip() else "refused without a word"
        said = any(words in answer.out + answer.err for words in SAID)
        return None if said or numbers == intact[1] else "other results without a word"

    def _damage(self, path: Path) -> str:
        content = bytearray(path.read_bytes())
        kind = self.random.choice(("flipped bit", "flipped bit", "cut", "emptied", "deleted"))
        if kind == "flipped bit":
            content[self.random.randrange(len(content))] ^= 1 << self.random.randrange(8)
        path.unlink()  # a hard link may lead to the same content
        if kind != "deleted":
            kept = len(content) if kind == "flipped bit" else self.random.randrange(len(content)) * (kind == "cut")
            path.write_bytes(bytes(content[:kept]))
        return kind

    def _struck(self) -> Iterator[int]:
        return iter(range(1, self.num_changes + 1, self.stride))


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    """An empty file system in memory at `place`, with the options of its mount."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, options: str) -> None:
    """Changes the options of a mounted file system."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def lock(place: Path) -> None:
    """Lets everybody read a folder and nobody write to it."""
    for path in (place, *place.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def obey_permissions() -> None:
    """Gives up root's capabilities to read and write files whatever their permissions are."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0


def set_time_zone(zone: str) -> None:
    """Sets TZ for this process."""
    os.environ["TZ"] = zone
    time.tzset()


def half_written(place: Path) -> str | None:
    """Temporary and empty files below a folder; None if there are none."""
    left = [str(p.relative_to(place)) for p in place.rglob("*") if p.suffix == ".tmp" or ".tmp" in p.name]
    return f"left {', '.join(left)}" if left else None


def one_line(answer: Answer) -> str | None:
    """What an error says if it is not one line, below the head line of a wrong usage."""
    lines = answer.err.strip().splitlines()
    return None if len(lines) == answer.code else f"{len(lines)} lines: {answer.err.strip()[-200:]}"


def ended(answer: Answer, codes: tuple[int, ...]) -> str | None:
    """What is wrong with the way a command ended, whatever it was asked; None if nothing is."""
    text = answer.out + answer.err
    last = (answer.err.strip() or answer.out.strip()).splitlines()[-1:] or [""]
    if "Traceback (most recent call last)" in text:
        return f"traceback: {last[0]}"
    if answer.code not in codes:
        return f"exit code {answer.code}: {last[0]}"
    if answer.code and not answer.err.strip():
        return f"exit code {answer.code} without a message"
    return None


def silent(answer: Answer) -> str | None:
    """The message of a failed file operation if it does not name the cause."""
    named = any(name in answer.err.lower() for name in NAMED)
    return None if named else f"cause not named: {answer.err.strip()[-150:]}"


def results(run: Path) -> Any:
    """Rows and weights of a run, which two equal trainings share; what is missing, if anything is."""
    import torch

    files = [run / name for name in ("metrics.jsonl", "checkpoints/last.pt", "checkpoints/best.pt")]
    if missing := [file.name for file in files if not file.exists()]:
        return missing
    rows = [without_clock(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = {}
    for name in ("last", "best"):
        state = torch.load(run / f"checkpoints/{name}.pt", weights_only=True)
        weights[name] = {key: value.tolist() for key, value in _tensors("", state)}
    return rows, weights


def without_clock(value: Any) -> Any:
    """A value without what depends on the clock."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if not any(k.startswith(name) for name in CLOCK)}
    return [without_clock(each) for each in value] if isinstance(value, list) else value


def _tensors(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(value, "tolist"):
        yield path, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _tensors(f"{path}/{key}", each)


CAMPAIGNS: dict[str, Callable[[Torture], Report]] = {
    "kills": Torture.kills,
    "errors": Torture.errors,
    "full": Torture.full_disks,
    "locked": Torture.locked,
    "zones": Torture.time_zones,
    "damage": Torture.damage,
    "configs": Torture.hostile_configs,
    "commands": Torture.commands,
    "sweeps": Torture.sweeps,
}
