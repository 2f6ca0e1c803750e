"""The first lines of a training's log."""

import logging

import torch

from vae_train.batch import SPLITS
from vae_train.plotting.grid import channels_note
from vae_train.runs.build import Training
from vae_train.runs.outcome import latents_text
from vae_train.runs.run import Run, write_bad_files
from vae_train.training.monitor import schedule_notes
from vae_train.util.runtime import emulated

log = logging.getLogger("vae_train")


def log_start(run: Run, training: Training) -> None:
    """Logs what is trained and where, and lists files that could not be read."""
    data, learner, trainer = training
    sizes = " / ".join(f"{len(images):,} {name}" for name in SPLITS if (images := data.split(name)) is not None)
    count = sum(p.numel() for p in learner.parameters)
    threads, ranks = torch.get_num_threads(), learner.ranks
    device = f"cpu, {threads} thread{'s' * (threads > 1)}" if learner.device.type == "cpu" else str(learner.device)
    device = device if ranks.size == 1 else f"{ranks.size} ranks of {device}"
    channels, height, width = data.facts.data_shape
    log.info(
        "vae train · %s · %dx%dx%d · %s · %s, %s parameters · %s, %s, %s",
        *(run.config["name"], height, width, channels, sizes, latents_text(learner.model), f"{count:,}"),
        *(device, learner.precision, trainer.execution),
    )
    if slow := emulated(learner.precision, learner.device):
        log.warning("%s", slow)
    log.log(logging.DEBUG if data.training().resident else logging.INFO, "data: %s", data.storage)
    warning = getattr(getattr(learner.model, "likelihood", None), "warning", None)
    epochs = trainer.epochs_of(data.facts.num_train)
    schedules = schedule_notes(learner.objective, learner.lr_schedule, epochs, trainer.monitor)
    for note in filter(None, [warning, channels_note(data.facts.data_shape), *learner.objective.notes, *schedules]):
        log.info("%s", note)
    log.info("%s", run.folder)
    for note in data.notes:
        log.info("data: %s", note)
    write_bad_files(run.bad_files, data.bad_files)
    if count := len(data.bad_files):
        log.info("%d unreadable file%s skipped, see %s", count, "s" if count > 1 else "", run.bad_files)
