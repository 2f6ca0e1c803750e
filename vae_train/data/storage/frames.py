"""Headers and frames of image files and videos."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from vae_train.data.storage.decoding import BadImage, Decoded, Decoding, Header, animation_rate, decode_frames, headers
from vae_train.data.storage.listing import VIDEOS
from vae_train.data.storage.video_files import VideoReader, video_headers, video_rate


def is_video(name: Path | str) -> bool:
    """Whether a file is a video, by its suffix."""
    return str(name).lower().endswith(VIDEOS.suffixes)


def frame_headers(path: Path, every_frame: bool = False) -> list[Header]:
    """Reads the header of a file's first frame, or of every frame.

    Raises:
        BadImage: it cannot be read.
        UsageError: it is a video, and the package that reads videos is missing.
    """
    return video_headers(path, every_frame) if is_video(path) else headers(path, every_frame)


def frame_rate(path: Path) -> Fraction | None:
    """Frames per second of a video or an animation, on average; None for pages and single images.

    Raises:
        BadImage: it cannot be read.
        UsageError: it is a video, and the package that reads videos is missing.
    """
    return video_rate(path) if is_video(path) else animation_rate(path)


class FrameReader:
    """Decodes frames of image files and of videos; frames of a video in ascending order are decoded once."""

    def __init__(self) -> None:
        self._videos = VideoReader()

    def frames(self, path: Path, how: Decoding, numbers: Sequence[int]) -> list[Decoded | BadImage]:
        """Decodes some frames of a file; returns each, or why it cannot be decoded.

        Raises:
            UsageError: the file is a video, and the package that reads videos is missing.
        """
        if is_video(path):
            return self._videos.frames(path, how, numbers)
        return decode_frames(path, how, numbers)
