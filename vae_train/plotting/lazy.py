"""Imports matplotlib where the first figure is built, since it takes longer than a short training."""

import threading

_importing = threading.Lock()


def load_matplotlib() -> None:
    """Imports matplotlib; called before any other import of its modules.

    Image grids are plotted in the background. Two threads that import matplotlib at once would see incomplete modules.
    """
    with _importing:
        import matplotlib.backends.backend_agg  # noqa: F401
