"""Audio on the command line."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import vae_train
from tests.commandline import Answer, Vae
from tests.data.sounds import fill, tone, write
from vae_train.cli import main

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "sounds").mkdir()
    return tmp_path / "sounds"


TINY = ("epochs=1", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=2", "logger=none")


@pytest.fixture(scope="module")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audio")
    fill(folder / "sounds", 12)
    words = ("data=audio", f"data.root={folder}/sounds", "data.seconds=0.1", f"data.cache={folder}/cache")
    assert main.run(["train", *TINY, *words, f"out={folder}/run"]) == 0
    return folder / "run"


@pytest.fixture
def run(_run: Path, tmp_path: Path) -> Path:
    """A run that was trained on clips of 0.1 s at 1 kHz, the test's own copy."""
    shutil.copytree(_run, tmp_path / "run")
    return Path("run")


def done(answer: Answer) -> Answer:
    assert answer.code == 0, answer.err
    return answer


def test_a_run_is_evaluated_sampled_and_compared_with_other_audio(run: Path, vae: Vae) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert (config["seconds"], config["rate"], config["channels"]) == (0.1, 1000, 1)
    write(Path("other/a.wav"), tone(0.3, 100, rate=2000), 2000)
    done(vae("eval", f"run={run}", "k=2", "latents=false", "ood=other"))
    assert "auroc" in json.loads((run / "eval" / "test.json").read_text())
    before = set((run / "samples").iterdir())
    done(vae("sample", f"run={run}", "num=4"))
    (plot,) = set((run / "samples").iterdir()) - before
    assert plot.suffix == ".png"


def read(path: Path | str) -> np.ndarray:
    """The samples of a WAV file that was written at 1 kHz, `(T,)`."""
    values, rate = soundfile.read(path)
    assert rate == 1000
    return values


def reconstructed(run: Path, samples: np.ndarray) -> np.ndarray:
    """What the model makes of samples, in clips of 100 of which the last is padded."""
    clips = np.pad(samples, (0, -len(samples) % 100)).reshape(-1, 1, 100).astype(np.float32)
    return np.asarray(vae_train.load(run).reconstruct(clips)).ravel()[: len(samples)]


def test_reconstructions_are_wav_files_of_the_same_rate_and_length(run: Path, vae: Vae) -> None:
    long, short, fast = tone(0.25, 12), tone(0.03, 40), tone(0.2, 20, rate=2000)
    write(Path("clips/long.flac"), long, subtype="PCM_24")
    write(Path("clips/sub/short.wav"), short, subtype="FLOAT")
    write(Path("clips/fast.wav"), fast, 2000)
    Path("clips/broken.wav").write_text("no audio\n")
    answer = done(vae("apply", f"run={run}", "input=clips", "out=results"))
    said = answer.out + answer.err
    assert "input: the folder clips" in said
    assert "1 of 3 files are resampled to 1,000 Hz (one from 2,000 Hz)" in said
    assert "(broken.wav: is not an audio file)" in said
    written = sorted(str(path.relative_to("results")) for path in Path("results").rglob("*") if path.is_file())
    assert written == ["apply.json", "bad_files.txt", "reconstructions/fast.wav", "reconstructions/long.wav",
                       "reconstructions/sub/short.wav", "sheet.png"]  # fmt: skip
    assert read("results/reconstructions/fast.wav").shape == (200,)
    assert np.allclose(read("results/reconstructions/long.wav"), reconstructed(run, long), atol=1e-5)
    assert np.allclose(read("results/reconstructions/sub/short.wav"), reconstructed(run, short), atol=1e-5)


def test_latents_of_clips_decode_to_their_reconstructions(run: Path, vae: Vae) -> None:
    write(Path("a.wav"), tone(0.25, 12))
    done(vae("apply", f"run={run}", "task=encode", "input=a.wav", "out=latents"))
    done(vae("apply", f"run={run}", "input=a.wav", "out=whole"))
    done(vae("apply", f"run={run}", "task=decode", "input=latents/latents.npz", "out=decoded"))
    with np.load("latents/latents.npz") as file:
        assert file["files"].tolist() == ["a.wav (clip 1)", "a.wav (clip 2)", "a.wav (clip 3)"]
    parts = [read(path) for path in sorted(Path("decoded/images").iterdir())]
    assert np.allclose(np.concatenate(parts)[:250], read("whole/reconstructions/a.wav"), atol=1e-6)


def test_clips_of_a_split_are_one_file_each(run: Path, vae: Vae) -> None:
    done(vae("apply", f"run={run}", "input=test", "num=1", "out=results"))
    (path,) = Path("results/reconstructions").iterdir()
    images = vae_train.open_data(run, "test").images[0]
    assert path.name == "00000.wav"
    assert np.allclose(read(path), reconstructed(run, np.ravel(images)), atol=1e-5)


def test_other_tasks_take_audio(run: Path, vae: Vae) -> None:
    write(Path("a.wav"), tone(0.1, 12))
    write(Path("b.wav"), tone(0.1, 30))
    done(vae("apply", f"run={run}", "task=interpolate", "input=[a.wav,b.wav]", "frames=5", "out=path"))
    assert read("path/path.wav").shape == (500,)
    done(vae("apply", f"run={run}", "task=score", "input=[a.wav,b.wav]", "out=scores"))
    with Path("scores/scores.csv").open() as file:
        assert sorted(row["file"] for row in csv.DictReader(file)) == ["a.wav", "b.wav"]
    done(vae("apply", f"run={run}", "task=inpaint", "mask=half", "steps=3", "completions=2", "input=a.wav", "out=fill"))
    assert np.allclose(read("fill/completed-1/a.wav")[:50], tone(0.1, 12)[:50], atol=1e-3)  # the seen half
    assert np.load("fill/std.npy").shape == (1, 1, 100)


def test_audio_and_other_models_do_not_mix(run: Path, vae: Vae, trained: Path) -> None:
    write(Path("a.wav"), tone(0.1))
    Image.new("L", (8, 8)).save("a.png")
    (line,) = vae("apply", f"run={trained}", "input=a.wav").errors()
    assert "input=a.wav  this model was not trained on audio; give images or an array file" in line
    (line,) = vae("apply", f"run={run}", "input=a.png").errors()
    assert "this model was trained on signals of 1 channel and 100 steps at 1,000 Hz with continuous values" in line
    (line,) = vae("apply", f"run={run}", "input=[a.wav,a.png]").errors()
    assert "several inputs must all be image files, or all audio files" in line
    assert not (run / "apply").exists()


def rejected(vae: Vae, *words: str) -> str:
    (line,) = vae("data", "data=audio", "out=never", *words).errors()
    assert not Path("never").exists()
    return line


def test_settings_that_are_needed_are_named(vae: Vae, sounds: Path) -> None:
    assert "data.root=  is needed" in rejected(vae)
    fill(sounds)
    write(sounds / "long.wav", tone(0.5))
    line = rejected(vae, f"data.root={sounds}")
    assert "data.seconds=" in line
    assert "the files are 0.2 to 0.5 s long; for instance 0.2" in line
    write(sounds / "fast.wav", tone(0.5, rate=2000), 2000)
    line = rejected(vae, f"data.root={sounds}", "data.seconds=0.1")
    assert "data.rate=" in line
    assert "the files have 1,000 to 2,000 samples per second; for instance 1000" in line


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        ("tone", ["data.seconds=0"], "data.seconds"),
        ("tone", ["data.seconds=0.0001"], "has less than 2 samples at 1,000 Hz"),
        ("tone", ["data.rate=0"], "data.rate"),
        ("text", [], "has no audio file (files that end in wav flac ogg mp3, also in sub-folders)"),
        ("nan", [], "none of its 1 files is readable audio (a.wav: has samples that are not finite (NaN or infinity))"),
        ("empty", [], "none of its 1 files is readable audio (a.wav: has no samples)"),
        ("junk", [], "none of its 1 files is readable audio (a.wav: is not an audio file)"),
        ("nothing", [], "no such folder"),
    ],
)
def test_wrong_input_is_one_line(vae: Vae, tmp_path: Path, content: str, words: list[str], expected: str) -> None:
    root = tmp_path / "sounds"
    if content != "nothing":
        root.mkdir()
    path = root / ("a.txt" if content == "text" else "a.wav")
    if content in ("text", "junk"):
        path.write_text("no audio at all\n")
    elif content != "nothing":
        contents = {"tone": tone(0.1), "nan": np.full(9, np.nan), "empty": np.zeros(0)}
        write(path, contents[content], subtype="FLOAT")
    assert expected in rejected(vae, f"data.root={root}", *words)


def test_a_missing_package_is_one_line(vae: Vae, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sounds, 1)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    line = rejected(vae, f"data.root={sounds}")
    assert 'needs the package soundfile; pip install "vae_train[audio]"' in line


def test_other_sources_name_the_one_that_reads_audio(vae: Vae, sounds: Path) -> None:
    fill(sounds, 2)
    (line,) = vae("data", "data=folder", f"data.root={sounds}").errors()
    assert "has no image or video" in line
    assert "for audio files use data=audio" in line
    (line,) = vae("data", "data=folder", f"data.root={sounds}/00.wav").errors()
    assert "is a file, and no image or video; use data=audio" in line
    (line,) = vae("data", f"data={sounds}/00.wav").errors()
    assert f"did you mean data=audio data.root={sounds}/00.wav?" in line
