"""Progress bars with the time that is left."""

import sys

from tqdm import tqdm


def progress_bar(total: int, title: str, *, keep: bool = False, short: bool = False) -> tqdm:
    """A progress bar on standard error, which only terminals show.

    Args:
        total: number of steps.
        title: what is done.
        keep: whether it remains on the screen at the end.
        short: whether numbers are shortened to 1.2M and the like.
    """
    return tqdm(total=total, desc=title, unit="", leave=keep, unit_scale=short, disable=not sys.stderr.isatty())
