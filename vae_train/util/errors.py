"""Errors for the user. All other exceptions are bugs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "failed to map segment", "Cannot allocate memory")
"""Phrases by which PyTorch and the dynamic linker report a lack of memory."""


class ErrorDetail(NamedTuple):
    """One error: the setting as typed, and what is wrong with it."""

    where: str
    message: str
    package: str = ""
    """The package that `allow=` has to name, if that is what is wrong."""


class UsageError(Exception):
    """An invalid request. Nothing has been started or written; exit code 2.

    Args:
        errors: all errors, or a single message.
    """

    def __init__(self, errors: list[ErrorDetail] | str) -> None:
        self.errors = [ErrorDetail("", errors)] if isinstance(errors, str) else errors
        super().__init__("; ".join(f"{e.where}: {e.message}" if e.where else e.message for e in self.errors))


def raise_out_of_memory(error: BaseException) -> None:
    """Raises a MemoryError if a lack of memory caused `error`, whose message would then mislead."""
    cause: BaseException | None = error
    while cause is not None:
        is_system_error = isinstance(cause, RuntimeError | OSError | ImportError)
        if isinstance(cause, MemoryError) or (is_system_error and any(text in str(cause) for text in OUT_OF_MEMORY)):
            raise MemoryError(str(cause)) from error
        cause = cause.__cause__


@contextmanager
def collecting(errors: list[ErrorDetail], where: str = "") -> Iterator[None]:
    """Catches a `UsageError` of the block and appends its errors to a list.

    Args:
        errors: receives the errors.
        where: the setting to blame for errors that name none.
    """
    try:
        yield
    except UsageError as error:
        raise_out_of_memory(error)
        errors += [e if e.where else e._replace(where=where) for e in error.errors]


class RunError(Exception):
    """A failure during a run, such as a NaN, a full disk or a damaged checkpoint. Exit code 1."""


class TrainingError(RunError):
    """A failure of a training that all of its ranks notice at the same step, such as a NaN."""


class RankLostError(RunError):
    """Another rank of a training ended, or does not answer.

    Args:
        message: what is known about it.
        is_reported: whether another rank prints the message.
    """

    def __init__(self, message: str, is_reported: bool = False) -> None:
        self.is_reported = is_reported
        super().__init__(message)


class FolderGoneError(RunError):
    """The folder of a run or a sweep was deleted, emptied or renamed while a command wrote to it."""


class LockLostError(RunError):
    """Another process has taken over the folder of a run while a command wrote to it."""


class Stopped(KeyboardInterrupt):
    """Raised when a signal stops a run, after its state was saved. Exit code 128 + `signal`.

    It is not an `Exception`, so that it also ends a sweep instead of continuing with the next job.
    """

    def __init__(self, signal: int, message: str) -> None:
        self.signal = signal
        super().__init__(message)


class Incompatible(NamedTuple):
    """Why a component does not work with the others, and alternatives that would.

    Components do not know the spelling of the command line; `vae_train.runs` converts this to a message.
    """

    reason: str
    """The reason without a suggestion, for instance "needs the density q(z | x), but the posterior is a point mass"."""
    instead: Mapping[str, str] = {}
    """Alternatives by component or setting: {"posterior": "gaussian"} or {"objective.free_bits_per": "layer"}."""


class IncompatibleError(ValueError):
    """Raised by the constructor of a component that is incompatible with the others.

    Args:
        incompatible: the reason and alternatives.
    """

    def __init__(self, incompatible: Incompatible) -> None:
        self.incompatible = incompatible
        super().__init__(incompatible.reason)
