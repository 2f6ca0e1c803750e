"""Videos for tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

GREYS = tuple(range(10, 250, 20))
"""Brightness of the frames of a clip, by which a frame is recognised."""


def flat(greys: Sequence[int] = GREYS, height: int = 16, width: int = 24) -> np.ndarray:
    """Frames (N, H, W, 3) of one brightness each."""
    return np.repeat(np.asarray(greys, np.uint8), height * width * 3).reshape(-1, height, width, 3)


def write_video(
    path: Path, frames: np.ndarray | None = None, rate: Fraction | int = 25, sound: bool = False, **options: str
) -> Path:
    """Writes frames (N, H, W, 3) as a video with B-frames and one key frame, or as a lossless .avi file.

    Args:
        path: the file.
        frames: the frames; None for `flat()`.
        rate: frames per second.
        sound: whether to add a second of silence.
        options: "pix_fmt", the format of the pixels.
    """
    import av

    frames = flat() if frames is None else frames
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        known = {"crf": "5", "g": "1000", "bf": "2"} if path.suffix != ".avi" else {}
        video = container.add_stream("libx264" if known else "ffv1", rate=rate, options=known)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], options.get("pix_fmt", "yuv420p")
        audio = container.add_stream("aac", rate=8000, layout="mono") if sound else None
        for pixels in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            container.mux(audio.encode(silence))
            container.mux(audio.encode())
    return path
