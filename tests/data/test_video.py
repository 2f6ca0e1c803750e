"""Videos as folders of frames."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.clips import GREYS, flat, write_video
from tests.data.pictures import fill, save
from tests.support import build, compose
from vae_train.batch import SPLITS
from vae_train.data.dataset import Dataset
from vae_train.data.session import DataSession
from vae_train.data.storage.cache import MIN_PARALLEL_FILES
from vae_train.data.storage.decoding import Decoded, Decoding
from vae_train.data.storage.frames import FrameReader
from vae_train.util.errors import UsageError

pytest.importorskip("av")

pytestmark = pytest.mark.usefixtures("caches")

WHOLE = ("valid=0", "test=0")


def load(root: Path, *settings: str) -> Dataset:
    words = [f"data.{setting}" for setting in settings]
    return DataSession().load(build(compose("data=folder", f"data.root={root}", *words).data))


def greys(data: Dataset, split: str = "train") -> list[int]:
    """The mean brightness of every image."""
    return (
        (255 * data.split(split).fetch(torch.arange(len(data.split(split)))).x.mean((1, 2, 3))).round().int().tolist()
    )


def test_every_frame_is_an_image_in_order(photos: Path) -> None:
    path = write_video(photos / "clip.mp4")
    data = load(photos, *WHOLE)
    assert data.stored_facts.data_shape == (3, 16, 24)
    assert greys(data) == pytest.approx(GREYS, abs=5)
    assert greys(load(path, *WHOLE)) == greys(data)
    assert data.resolved["frames"] == "all"


def test_only_the_first_frame_on_request(photos: Path) -> None:
    for number in range(3):
        write_video(photos / f"{number}.mp4", flat(GREYS[number:]))
    data = load(photos, *WHOLE, "frames=first")
    assert greys(data) == pytest.approx(GREYS[:3], abs=5)
    further = "3 images (for instance 0.mp4) have further frames or pages (30 in total), which are skipped"
    assert f"{further}; data.frames=all reads them" in data.notes


def test_frames_are_scaled_and_become_grey_like_images(photos: Path) -> None:
    frames = flat(height=32, width=48)
    frames[:, :, 24:] = 0
    write_video(photos / "clip.mp4", frames)
    data = load(photos, *WHOLE, "size=8", "channels=1", "fit=stretch")
    left, right = (255 * data.split("train").fetch(torch.arange(12)).x[:, 0, :, columns].mean((1, 2)) for columns in
                   (slice(0, 3), slice(5, 8)))  # fmt: skip
    assert left.tolist() == pytest.approx(GREYS, abs=5)
    assert right.tolist() == pytest.approx([0] * 12, abs=5)


def test_folders_are_classes_and_frames_of_a_file_stay_together(photos: Path) -> None:
    for number in range(10):
        write_video(photos / ("ab"[number % 2]) / f"{number}.mp4", flat([20 * number + 10] * 3))
    data = load(photos)
    files = {split: {grey // 20 for grey in greys(data, split)} for split in SPLITS}
    assert {split: len(own) for split, own in files.items()} == {"train": 8, "valid": 1, "test": 1}
    assert data.stored_facts.factors[0].values == ("a", "b")
    assert sum(len(data.split(split)) for split in SPLITS) == 30


def test_videos_beside_images_are_left_out(photos: Path) -> None:
    fill(photos, 3)
    write_video(photos / "clip.mp4")
    data = load(photos, *WHOLE)
    assert len(data.split("train")) == 3
    assert "files that are not images: 1 .mp4" in data.notes


def test_a_frame_is_the_same_in_any_order_of_reading(photos: Path) -> None:
    path, how = write_video(photos / "clip.mp4"), Decoding((16, 24), 1, "crop", None, "bicubic", "black", True)

    def brightness(reader: FrameReader, numbers: list[int]) -> list[float]:
        frames = reader.frames(path, how, numbers)
        assert all(isinstance(frame, Decoded) for frame in frames)
        return [frame.pixels.mean() for frame in frames]

    reader = FrameReader()
    whole = brightness(FrameReader(), list(range(12)))
    assert brightness(reader, [0, 1]) + brightness(reader, [2, 5]) == [*whole[:3], whole[5]]
    assert brightness(reader, [5, 6]) == whole[5:7]
    assert brightness(reader, [3]) == whole[3:4]


def test_workers_decode_the_same_frames(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_train.data.storage.cache.cores", lambda: 2)
    levels = np.random.default_rng(0).integers(10, 250, MIN_PARALLEL_FILES + 10)
    write_video(photos / "clip.mp4", flat(levels, 16, 16))
    assert greys(load(photos, *WHOLE, "size=4")) == pytest.approx(levels.tolist(), abs=5)


def turned(path: Path) -> None:
    """Tells players to turn the frames of an mp4 file by a quarter, clockwise."""
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    content = path.read_bytes()
    start = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:start] + clockwise + content[start + len(upright) :])


def test_frames_are_upright(photos: Path) -> None:
    frames = flat()
    frames[:, :8, :, :] = 255  # the upper half, which is on the right after a quarter turn clockwise
    frames[:, 8:, :, :] = 0
    turned(write_video(photos / "clip.mp4", frames))
    data = load(photos, *WHOLE)
    assert data.stored_facts.data_shape == (3, 24, 16)
    image = data.split("train").fetch(torch.arange(1)).x[0]
    assert image[:, :, 9:].mean() > 0.95
    assert image[:, :, :7].mean() < 0.05


def test_deep_and_grey_videos(photos: Path) -> None:
    write_video(photos / "deep.mp4", pix_fmt="yuv420p10le")
    data = load(photos, *WHOLE)
    depth = "12 images (for instance deep.mp4) have more than 8 bits per colour, but only the upper 8 are used"
    assert f"{depth}; data=arrays uses all" in data.notes
    assert greys(data) == pytest.approx(GREYS, abs=5)
    (photos / "deep.mp4").unlink()
    write_video(photos / "grey.avi", pix_fmt="gray")
    assert load(photos, *WHOLE).stored_facts.data_shape == (1, 16, 24)


def test_a_damaged_video_keeps_its_first_frames(photos: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    path = write_video(photos / "clip.mkv", noise)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    data = load(photos, *WHOLE)
    assert 0 < len(data.split("train")) < 12


def damaged(photos: Path, kind: str) -> None:
    path = photos / "clip.mp4"
    if kind == "junk":
        path.write_bytes(b"no video at all " * 20)
    elif kind == "half":
        whole = write_video(path).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "sound":
        import av

        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream("aac", rate=8000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 8000
            container.mux(stream.encode(silence))
            container.mux(stream.encode())
    elif kind == "no frames":
        import av

        with av.open(str(path), "w", format="matroska") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
            container.start_encoding()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "picture":
        save(photos / "clip.png").rename(path)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("junk", "none of its files is a readable video (clip.mp4: is not a video, or is damaged)"),
        ("half", "none of its files is a readable video (clip.mp4: is not a video, or is damaged)"),
        ("sound", "none of its files is a readable video (clip.mp4: has no frames, only sound)"),
        ("no frames", "none of its files is a readable video (clip.mp4: has no frames)"),
        ("empty", "none of its files is a readable video (clip.mp4: is not a video, or is damaged)"),
        ("nothing", "has no image or video (files that end in png"),
    ],
)
def test_a_folder_without_a_readable_video_is_an_error(photos: Path, kind: str, expected: str) -> None:
    damaged(photos, kind)
    with pytest.raises(UsageError) as error:
        load(photos)
    assert expected in str(error.value)


def test_a_missing_package_is_one_line(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(photos / "clip.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r'needs the package av; pip install "vae_train\[video\]"'):
        load(photos)
