"""A command in several processes that torchrun or srun started: rank 0 runs it, and the others train along.

Imports nothing heavy, so that a command in a single process starts at once.
"""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Literal

from vae_train.util.errors import RankLostError, Stopped, TrainingError, UsageError
from vae_train.util.text import first_line, printable

Run = Callable[[Sequence[str], Any], int]
"""(arguments, the ranks or None) -> exit code; reports errors itself."""


def run_on_ranks(arguments: Sequence[str], run: Run) -> int:
    """Runs a command line on the ranks of a launcher, or in this process alone; returns the exit code.

    Args:
        arguments: the command line without the program's name.
        run: runs it on rank 0.
    """
    launcher: Literal["torchrun", "slurm"] = "slurm" if "distributed=slurm" in arguments else "torchrun"
    if launcher == "torchrun" and os.environ.get("WORLD_SIZE", "1") == "1":
        return run(arguments, None)

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else a lost rank gives pages of warnings
    from vae_train.training.distributed import Place, ProcessRanks

    try:
        place = Place.find(launcher, os.environ)
        if place is None:
            return run(arguments, None)
        _check(arguments, place.rank)
    except UsageError as error:
        if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
            print(printable(f"vae: {error}"), file=sys.stderr)
        return 2
    try:
        ranks = ProcessRanks(place)
    except RankLostError as error:
        print(printable(f"vae train: rank {place.rank} cannot reach the others: {error.__cause__}"), file=sys.stderr)
        return 1
    _handle_termination(ranks)
    return _lead(arguments, run, ranks) if place.rank == 0 else _follow(ranks)


def _check(arguments: Sequence[str], rank: int) -> None:
    """Raises an error for a command that several processes cannot run together."""
    command = next(iter(arguments), "")
    if command != "train":
        raise UsageError(f"{command or 'this'} runs in one process; start it without torchrun or srun")
    if {"-m", "--multirun"} & set(arguments):
        raise UsageError("-m does not work with several ranks; train one job at a time")


def _handle_termination(ranks: Any) -> None:
    """Ignores SIGTERM once a rank is lost: torchrun sends it then, while this rank reports that and closes its run."""

    def handle(number: int, frame: FrameType | None) -> None:
        if not ranks.is_lost:
            raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, handle)


def _lead(arguments: Sequence[str], run: Run, ranks: Any) -> int:
    """Runs the command as rank 0."""
    from vae_train.runs.ranks import dismiss

    code = 1
    try:
        code = run(arguments, ranks)
    finally:
        if ranks.is_waiting and not ranks.is_lost:
            with suppress(RankLostError):
                dismiss(ranks, code)
        _close(ranks, code)
    return code


def _close(ranks: Any, code: int) -> None:
    """Disconnects this rank, which ends with its own exit code: torchrun sends SIGTERM once another rank has ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ranks.close(failed=code != 0)


def silence() -> None:
    """Drops log messages and warnings of this process."""
    log = logging.getLogger("vae_train")
    log.handlers, log.propagate = [logging.NullHandler()], False
    warnings.simplefilter("ignore")


def _follow(ranks: Any) -> int:
    """Trains along as another rank, in silence unless it has to report an error."""
    from vae_train.runs.follow import follow
    from vae_train.runs.ranks import Dismissed

    silence()
    code = 1
    try:
        follow(ranks)
        code = 0
    except Dismissed as dismissed:
        code = dismissed.code
    except Stopped as stopped:
        code = 128 + stopped.signal
    except KeyboardInterrupt:
        code = 130
    except TrainingError:
        pass  # rank 0 has noticed it, too
    except RankLostError as error:
        if not error.is_reported:
            print(printable(f"vae train: {error}"), file=sys.stderr)
    except Exception as error:
        kind = "" if isinstance(error, UsageError | OSError) else f"{type(error).__name__}: "
        ranks.fail(kind + first_line(error))
        code = 2 if isinstance(error, UsageError) else 1
    finally:
        _close(ranks, code)
    return code
