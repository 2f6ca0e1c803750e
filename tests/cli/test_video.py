"""Videos, animations and multi-page files on the command line."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vae_train
from tests.commandline import Answer, Vae
from tests.data.clips import flat, write_video

av = pytest.importorskip("av")


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def done(answer: Answer) -> str:
    assert answer.code == 0, answer.err
    return answer.out + answer.err


def moving(count: int = 6) -> np.ndarray:
    """Frames (N, 8, 8) with a bar that moves."""
    frames = np.zeros((count, 8, 8), np.uint8)
    for number in range(count):
        frames[number, :, number % 8] = 255
    return frames


def read(path: str) -> tuple[np.ndarray, Fraction]:
    """The grey frames of a video and its frame rate."""
    with av.open(path) as container:
        (stream,) = container.streams
        return np.stack([f.to_ndarray(format="gray") for f in container.decode(stream)]), stream.average_rate


def reconstructed(run: Path, frames: np.ndarray) -> np.ndarray:
    return 255 * np.asarray(vae_train.load(run).reconstruct(frames[:, None]))[:, 0]


def colour(frames: np.ndarray) -> np.ndarray:
    return np.repeat(frames[..., None], 3, -1)


def test_a_video_is_reconstructed_as_a_video_of_the_same_frame_rate(vae: Vae, trained: Path) -> None:
    rate = Fraction(30000, 1001)
    write_video(Path("clips/sub/bar.mp4"), colour(moving()), rate, sound=True)
    write_video(Path("clips/grey.mkv"), colour(moving(3)), 10)
    said = done(vae("apply", f"run={trained}", "input=clips", "out=results"))
    assert "the sound of 1 video is left out" in said
    files = sorted(str(path.relative_to("results")) for path in Path("results").rglob("*") if path.is_file())
    assert files == ["apply.json", "reconstructions/grey.mp4", "reconstructions/sub/bar.mp4", "sheet.png"]
    frames, found = read("results/reconstructions/sub/bar.mp4")
    assert (frames.shape, found) == ((6, 8, 8), rate)
    assert np.abs(frames - reconstructed(trained, moving())).mean() < 12  # two lossy codecs
    assert read("results/reconstructions/grey.mp4")[1] == 10


def test_frames_of_a_video_are_named_and_counted(vae: Vae, trained: Path) -> None:
    write_video(Path("bar.mp4"), colour(moving(3)))
    Image.fromarray(moving()[0]).save("a.png")
    done(vae("apply", f"run={trained}", "task=encode", "input=[a.png,bar.mp4]", "out=latents"))
    with np.load("latents/latents.npz") as file:
        assert file["files"].tolist() == ["a.png", *(f"bar.mp4 (frame {number})" for number in (1, 2, 3))]
    done(vae("apply", f"run={trained}", "input=[a.png,bar.mp4]", "num=3", "out=two"))
    assert read("two/reconstructions/bar.mp4")[0].shape == (2, 8, 8)
    assert Path("two/reconstructions/a.png").exists()
    done(vae("apply", f"run={trained}", "input=bar.mp4", "data.frames=first", "out=first"))
    assert read("first/reconstructions/bar.mp4")[0].shape == (1, 8, 8)


def animation(path: str, **options: object) -> None:
    first, *rest = map(Image.fromarray, moving())
    first.save(path, save_all=True, append_images=rest, **options)


def test_an_animation_is_a_sequence_on_request(vae: Vae, trained: Path) -> None:
    animation("bar.gif", duration=40)
    said = done(vae("apply", f"run={trained}", "input=bar.gif", "out=first"))
    assert "bar.gif has further frames or pages (5 in total), which are skipped; data.frames=all reads them" in said
    assert Path("first/reconstructions/bar.png").exists()
    done(vae("apply", f"run={trained}", "input=bar.gif", "data.frames=all", "out=all"))
    with Image.open("all/reconstructions/bar.gif") as gif:
        frames = []
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("L")))
            assert gif.info["duration"] == 40
    assert np.abs(np.stack(frames) - reconstructed(trained, moving())).max() <= 1


def test_pages_of_a_document_are_images_on_request(vae: Vae, trained: Path) -> None:
    animation("scan.tif")
    done(vae("apply", f"run={trained}", "input=scan.tif", "data.frames=all", "out=pages"))
    names = sorted(path.name for path in Path("pages/reconstructions").iterdir())
    assert names == [f"scan.tif (frame {number}).png" for number in range(1, 7)]
    page = np.asarray(Image.open(Path("pages/reconstructions", names[2])))
    assert np.abs(page - reconstructed(trained, moving())[2]).max() <= 1


def test_videos_of_an_odd_size_are_doubled(vae: Vae) -> None:
    write_video(Path("clip.mp4"), flat(range(0, 250, 10)))
    tiny = ("epochs=1", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=2", "logger=none")
    done(vae("train", "data=folder", "data.root=clip.mp4", "data.size=[5,8]", "data.fit=stretch", *tiny, "out=run"))
    said = done(vae("apply", "run=run", "input=clip.mp4", "num=4", "out=results"))
    assert "input: 1 video" in said
    assert "25 of 25 images are scaled to 5x8 (one of them from 16x24)" in said
    assert "enlarged to twice the size" in said
    assert read("results/reconstructions/clip.mp4")[0].shape == (4, 10, 16)


def sound(path: str) -> None:
    pytest.importorskip("soundfile").write(path, np.zeros(500), 8000, format="WAV")


WRONG = {
    "junk": "clip.mp4: is not a video, or is damaged",
    "sound": "clip.mp4: has no frames, only sound",
    "half": "clip.mp4: is not a video, or is damaged",
    "missing": 'needs the package av; pip install "vae_train[video]"',
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("command", ["apply", "data"])
def test_a_video_that_cannot_be_read_is_one_line(
    vae: Vae, trained: Path, monkeypatch: pytest.MonkeyPatch, kind: str, command: str
) -> None:
    content = write_video(Path("clip.mp4")).read_bytes()
    if kind == "sound":
        sound("clip.mp4")
    elif kind != "missing":
        Path("clip.mp4").write_bytes(content[: len(content) // 2] if kind == "half" else b"no video\n" * 30)
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    words = (
        ["apply", f"run={trained}", "input=clip.mp4"]
        if command == "apply"
        else ["data", "data=folder", "data.root=clip.mp4"]
    )
    (line,) = vae(*words, "out=never").errors()
    assert WRONG[kind] in line
    assert not Path("never").exists()


def test_a_path_instead_of_a_data_set_is_answered_with_the_settings_that_read_it(vae: Vae) -> None:
    write_video(Path("clip.mp4"))
    (line,) = vae("data", "data=clip.mp4").errors()
    assert "did you mean data=folder data.root=clip.mp4?" in line


def test_unknown_frames_are_one_line(vae: Vae, trained: Path) -> None:
    write_video(Path("clip.mp4"))
    (line,) = vae("apply", f"run={trained}", "input=clip.mp4", "data.frames=every").errors()
    assert "data.frames=every  must be first, all or null" in line
