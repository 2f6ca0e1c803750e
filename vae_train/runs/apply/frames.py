"""Frames of videos, animations and multi-page files as inputs of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vae_train.data.storage.cache_place import cache_folder
from vae_train.data.storage.frames import frame_rate, is_video
from vae_train.data.storage.headers import FileHeaders, all_headers, frame_entries
from vae_train.data.storage.listing import Entry, Listing
from vae_train.data.storage.video_files import EXTRA, has_sound
from vae_train.runs.apply.recordings import Recording
from vae_train.util.extras import import_extra
from vae_train.util.text import counted

Frames = Literal["first", "all"]
"""Which frames of a file are inputs."""


class FrameListing(NamedTuple):
    """The frames of the files of a listing."""

    entries: list[Entry]
    """Every frame."""
    files: np.ndarray
    """Index of every frame's file."""
    headers: list[FileHeaders]
    """The headers of every file, see `all_headers`."""
    every_frame: bool
    """Whether all frames of a file are inputs, at least of videos."""


def list_frames(listing: Listing, frames: Frames | None, cache: str | None) -> FrameListing:
    """Lists the frames that are inputs.

    Args:
        listing: the files.
        frames: which frames; None for all of videos, and the first of other files.
        cache: the folder for caches, see `cache_folder`.

    Raises:
        UsageError: a package is missing, or the cache cannot be written.
    """
    videos = [is_video(entry.name) for entry in listing.entries]
    if any(videos):
        import_extra("av", EXTRA)
    every_frame = frames == "all" or (frames is None and any(videos))
    headers = all_headers(listing.root, listing.entries, every_frame, cache_folder(cache))
    counts = [
        len(found) if frames == "all" or (video and every_frame) else 1
        for found, video in zip(headers, videos, strict=True)
    ]
    return FrameListing(*frame_entries(listing.entries, counts), headers, every_frame)


def skipped_notes(frames: FrameListing) -> list[str]:
    """A note on files whose further frames are skipped, beside videos of which all are inputs."""
    counts = np.bincount(frames.files, minlength=len(frames.headers))
    skipped = sum(len(found) > max(1, count) for found, count in zip(frames.headers, counts, strict=True))
    if not skipped or not frames.every_frame:
        return []
    return [f"further frames or pages of {counted(skipped, 'file')} are skipped; data.frames=all reads them"]


def frame_recordings(root: Path, names: Sequence[str], files: np.ndarray) -> tuple[Recording, ...]:
    """The files with several frames as recordings: videos and animations, but not the pages of documents.

    Args:
        root: the folder of the files.
        names: names of the files.
        files: index of every input's file, ascending.
    """
    numbers, starts, counts = np.unique(files, return_index=True, return_counts=True)
    recordings = []
    for file, start, count in zip(numbers.tolist(), starts.tolist(), counts.tolist(), strict=True):
        name = names[file]
        if (is_video(name) or count > 1) and (rate := frame_rate(root / name)) is not None:
            suffix = ".mp4" if is_video(name) else ".gif"
            recordings.append(Recording(name, suffix, start, start + count, rate, count))
    return tuple(recordings)


def recording_notes(root: Path, recordings: Sequence[Recording], size: tuple[int, int]) -> list[str]:
    """Notes on what results do not keep of videos.

    Args:
        root: the folder of the files.
        recordings: results of `frame_recordings`.
        size: (H, W) of the results.
    """
    videos = [recording for recording in recordings if recording.suffix == ".mp4"]
    notes, sound = [], sum(has_sound(root / video.name) for video in videos)
    if sound:
        notes.append(f"the sound of {counted(sound, 'video')} is left out")
    if videos and any(side % 2 for side in size):
        notes.append("videos of the results are enlarged to twice the size, since H.264 needs even numbers of pixels")
    return notes
