"""The time that a training spends on logging, previews and checkpoints."""

from __future__ import annotations

from typing import Any

from benchmarks.measurement import Measurement
from benchmarks.pool import Log, Pool, Worker
from benchmarks.workload import Settings

EPOCHS = 20
"""Previews are made every ten epochs by default, so that the effects of the first ones on later steps are included."""

METHODS = {"outputs": "timed_epochs", "bare": "timed_epochs_without_outputs"}


def measure(settings: Settings, warmup_steps: int, repeats: int, log: Log, epochs: int = EPOCHS) -> dict[str, Any]:
    """Compares a training at default settings with its steps and validations alone, in turns.

    Args:
        settings: what is trained, and on what.
        warmup_steps: steps before the timing.
        repeats: how often each is timed.
        log: reports progress.
        epochs: epochs of each.

    Returns:
        "seconds" of both, and "share": what fraction of the training is neither a step nor validation. The share
        includes the Python of the loop, and is as noisy as the machine.
    """
    with Pool([Worker(name, "vae_train_loop", settings) for name in METHODS], log) as pool:
        pool.warm_up(warmup_steps, min(warmup_steps, 50))
        for worker in pool.workers:
            worker.call(METHODS[worker.name], count=1)
        seconds = pool.take_turns(repeats, lambda w: w.call(METHODS[w.name], count=epochs)["seconds"])
    share = Measurement.of([1 - bare / all_ for bare, all_ in zip(seconds["bare"], seconds["outputs"], strict=True)])
    log(f"logging, previews and checkpoints: {share.median:.1%} of {epochs} epochs")
    return {
        "title": settings.workload.title,
        "images": settings.num_images,
        "share": share.as_json(),
        "seconds": {name: Measurement.of(values).as_json() for name, values in seconds.items()},
    }
