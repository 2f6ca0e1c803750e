"""Applies a trained model to a split, to image or audio files, or to an array."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from vae_train.data.storage.listing import IMAGES, kind_of
from vae_train.model.base import SingleLatent
from vae_train.runs.apply.arrays import open_array
from vae_train.runs.apply.audio import open_audio
from vae_train.runs.apply.files import open_images
from vae_train.runs.apply.inputs import Inputs, Request
from vae_train.runs.apply.latents import open_latents
from vae_train.runs.apply.splits import open_split
from vae_train.runs.apply.task import Application, Task
from vae_train.runs.apply.tiled_images import open_tiled_images
from vae_train.runs.build import Builder
from vae_train.runs.compatibility import stem
from vae_train.runs.run import Run, write_bad_files, write_json
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.folders import results_folder
from vae_train.util.text import counted, now

MEANING = {
    "split": "the {input} split of the run's data",
    "folder": "the folder {input}",
    "images": "{count}",
    "audio": "{count}",
    "array": "the file {input}",
}

MARKER = "apply.json"
"""The file that says how the results of a folder were made."""

log = logging.getLogger("vae_train")


def open_inputs(request: Request, task: Task, run: Run, model: TrainedModel, builder: Builder) -> Inputs:
    """Opens what a task is applied to, and says what it is and what is done to it.

    Args:
        request: what to open.
        task: the task.
        run: the run of the model.
        model: the model.
        builder: locates classes.

    Raises:
        UsageError: it cannot be read, or does not fit the model or the task.
    """
    if task.needs_single_latent and not isinstance(model.model, SingleLatent):
        layers = len(model.model.latent_shapes)
        message = f"needs a single latent; this model has {layers} layers of latents"
        raise UsageError([ErrorDetail(f"task={stem(type(task))}", message)])
    kind = request.kind
    if task.reads == "latents":
        inputs = open_latents(request, model, run.config)
    elif task.tile is not None:
        inputs = open_tiled_images(request, model, run, builder, task.tile, task.overlap)
    elif kind == "split":
        inputs = open_split(request, model, run.config, builder)
    elif kind == "array":
        inputs = open_array(request, model, run.config)
    elif kind == "audio" or model.facts.sample_rate is not None:
        inputs = open_audio(request, model, run.config)
    else:
        inputs = open_images(request, model, run.config)
    if len(inputs) < task.min_inputs:
        what = f"has {counted(len(inputs), 'image')}, but this task needs at least {task.min_inputs}"
        raise UsageError([ErrorDetail(f"input={','.join(request.paths)}", what)])
    nouns = {found.noun if found is not IMAGES else "image file" for found in map(kind_of, request.suffixes) if found}
    count = counted(len(request.paths), nouns.pop() if len(nouns) == 1 else "file")
    log.info("input: %s", MEANING[kind].format(input=request.input, count=count))
    for note in inputs.notes:
        log.info("  %s", note)
    if inputs.bad_files:
        name, why = inputs.bad_files[0]
        skipped = counted(len(inputs.bad_files), "file")
        log.warning("  %s cannot be read and left out (%s: %s); see bad_files.txt", skipped, name, why)
    return inputs


def apply_task(
    task: Task,
    name: str,
    run: Run,
    model: TrainedModel,
    inputs: Inputs,
    *,
    out: str | None = None,
    overwrite: bool = False,
    batch_size: int = 256,
) -> Path:
    """Applies a model to its inputs, and writes the results to a new folder.

    Args:
        task: what to do.
        name: name of the task, which names the folder.
        run: the run of the model.
        model: the model.
        inputs: a result of `open_inputs`.
        out: the folder; None for a new one in `apply/` of the run.
        overwrite: replace an existing folder.
        batch_size: images per pass; only affects rounding.

    Returns:
        The folder of the results.

    Raises:
        UsageError: the task does not fit the model or its inputs.
        RunError: the results cannot be written.
    """
    folder = Path(out) if out else run.applications / f"{name}-{inputs.title}"
    with results_folder(folder, overwrite=overwrite, numbered=out is None) as results, torch.no_grad():
        application = Application(run, model, inputs, results.temporary, batch_size)
        lines = task(application)
        write_bad_files(results.temporary / "bad_files.txt", inputs.bad_files)
        about: dict[str, Any] = {"task": name, "settings": vars(task), "run": str(run.folder)}
        about |= {"model": application.digest, "images": len(inputs), "date": now()}
        about |= {"notes": [*inputs.notes, *lines]}
        write_json(results.temporary / MARKER, about)
    for line in lines:
        log.info("  %s", line)
    return results.folder
