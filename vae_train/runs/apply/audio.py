"""Audio files as inputs of a trained model: resampled, mixed and cut to clips as its training data was."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from vae_train.batch import DataFacts
from vae_train.data.dataset import TransformedImages
from vae_train.data.storage.audio_files import AudioHeader, Clips
from vae_train.data.storage.clips import DecodedClips, audio_headers, clipped_notes, conversion_notes, decoded_clips
from vae_train.data.storage.listing import AUDIO, Listing
from vae_train.data.storage.stored import ArrayStore, StoredImages
from vae_train.runs.apply.arrays import form_of_data
from vae_train.runs.apply.inputs import Inputs, Request
from vae_train.runs.apply.labels import given_labels
from vae_train.runs.apply.names import part_names
from vae_train.runs.apply.recordings import Recording
from vae_train.runs.config import Config
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, UsageError, collecting

MAX_IN_MEMORY = 2**26
"""Number of samples above which decoded audio is kept in the user's cache."""


def open_audio(request: Request, model: TrainedModel, config: Config) -> Inputs:
    """Opens a folder of audio files, recursively, or audio files in the given order.

    Every file is covered by clips without overlap, the last one padded with silence.

    Args:
        request: what to open.
        model: the model, whose sample rate and channels the files are brought to.
        config: the run's configuration.

    Raises:
        UsageError: no file can be read, the model was not trained on audio, or a label is missing.
    """
    facts, errors = model.facts, list[ErrorDetail]()
    with collecting(errors, f"input={','.join(request.paths)}"):
        how = _clips(facts, request)
        listing = request.listing(AUDIO)
        cache = config.at("data.cache")
        headers = audio_headers(listing.root, listing.entries, cache)
        audio = _decoded(listing, headers, how, cache)
        rows = np.flatnonzero(~np.isin(audio.files, list(audio.bad)))
        files = audio.files[rows]
        y, classes = given_labels(request.label, listing.classes(files), len(rows), model)
    if errors:
        raise UsageError(errors)
    names = [entry.name for entry in listing.entries]
    known = [header for number, header in enumerate(headers) if number not in audio.bad]
    stored = StoredImages(ArrayStore(audio.samples, rows, "NCT", False, facts.units), None, y)
    return Inputs(
        TransformedImages(stored, model.device, model.input_transforms),
        names=part_names(names, files, "clip"),
        classes=classes,
        title=Path(request.paths[0]).absolute().name if len(request.paths) == 1 else "audio",
        noise=request.noise(),
        notes=(*listing.left_out, *conversion_notes(known, how, None), *clipped_notes(audio.clipped, names)),
        bad_files=tuple((names[number], why) for number, why in sorted(audio.bad.items())),
        form=form_of_data(facts, config),
        recordings=_recordings(names, files, headers, how),
    )


def _clips(facts: DataFacts, request: Request) -> Clips:
    """How files become the clips of a model."""
    if facts.sample_rate is None:
        raise UsageError("this model was not trained on audio; give images or an array file")
    if request.kind == "images":
        raise UsageError(f"this model was trained on {facts.description}; give audio files or an array file")
    channels, _, length = facts.data_shape
    return Clips(facts.sample_rate, length, channels, whole=True)


def _decoded(listing: Listing, headers: list[AudioHeader], how: Clips, cache: str | None) -> DecodedClips:
    """The clips of a listing; a few are decoded into memory, others into the user's cache."""
    if sum(map(how.samples, headers)) * how.channels > MAX_IN_MEMORY:
        return decoded_clips(listing.root, listing.entries, headers, how, cache)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        audio = decoded_clips(listing.root, listing.entries, headers, how, folder)
        return audio._replace(samples=np.array(audio.samples))


def _recordings(names: list[str], files: np.ndarray, headers: list[AudioHeader], how: Clips) -> tuple[Recording, ...]:
    """The files whose clips are the inputs; `files` has the index of every input's file."""
    numbers, starts, counts = np.unique(files, return_index=True, return_counts=True)
    return tuple(
        Recording(names[file], ".wav", int(start), int(start + count), Fraction(how.rate), how.samples(headers[file]))
        for file, start, count in zip(numbers.tolist(), starts, counts, strict=True)
    )
