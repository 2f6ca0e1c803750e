"""The failures that a user meets; everything else is a bug and shows its traceback."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "failed to map segment", "Cannot allocate memory")
"""What errors of PyTorch and of the dynamic linker say when memory is missing."""


class ErrorDetail(NamedTuple):
    """One thing that is wrong with what was asked for: the setting as typed, and what is wrong with it."""

    where: str
    message: str
    package: str = ""
    """The package that `allow=` has to name, if that is what is wrong."""


class UsageError(Exception):
    """A request that cannot be carried out. Nothing has been started or written; exit code 2.

    Args:
        errors: every error that was found, or one text.
    """

    def __init__(self, errors: list[ErrorDetail] | str) -> None:
        self.errors = [ErrorDetail("", errors)] if isinstance(errors, str) else errors
        super().__init__("; ".join(f"{e.where}: {e.message}" if e.where else e.message for e in self.errors))


def raise_out_of_memory(error: BaseException) -> None:
    """Raises a MemoryError if missing memory is what an error comes from: nothing that it says is wrong then."""
    cause: BaseException | None = error
    while cause is not None:
        is_systems = isinstance(cause, RuntimeError | OSError | ImportError)
        if isinstance(cause, MemoryError) or (is_systems and any(text in str(cause) for text in OUT_OF_MEMORY)):
            raise MemoryError(str(cause)) from error
        cause = cause.__cause__


@contextmanager
def collecting(errors: list[ErrorDetail], where: str = "") -> Iterator[None]:
    """Appends the errors of a `UsageError` that the block raises, instead of raising it.

    Args:
        errors: receives them.
        where: the setting that is wrong, for errors that name none.
    """
    try:
        yield
    except UsageError as error:
        raise_out_of_memory(error)
        errors += [e if e.where else e._replace(where=where) for e in error.errors]


class RunError(Exception):
    """A run that failed while it ran: a NaN, a full disk, a damaged checkpoint. Exit code 1."""


class Stopped(KeyboardInterrupt):
    """A run that a signal stopped after its state was saved. Exit code 128 + `signal`.

    It is not an `Exception`, so that a sweep ends as well instead of going on with the next job.
    """

    def __init__(self, signal: int, epoch: int, step: int) -> None:
        self.signal, self.epoch, self.step = signal, epoch, step
        super().__init__(f"interrupted at epoch {epoch}, step {step:,}; checkpoint saved")


class Incompatible(NamedTuple):
    """Why a component does not work with the others, and what would.

    Components do not know how a command line is spelt: `vae_train.runs` turns this into a message.
    """

    reason: str
    """What does not fit, without a suggestion: "needs the density q(z | x), but the posterior is a point mass"."""
    instead: Mapping[str, str] = {}
    """Alternatives by role or setting: {"posterior": "gaussian"} or {"objective.free_bits_per": "group"}."""


class IncompatibleError(ValueError):
    """What a constructor raises that cannot work with the others.

    Args:
        incompatible: why, and what would.
    """

    def __init__(self, incompatible: Incompatible) -> None:
        self.incompatible = incompatible
        super().__init__(incompatible.reason)
