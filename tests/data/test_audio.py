"""Folders of audio files as signals of the same length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.data.sounds import RATE, fill, tone, write
from vae_train.batch import SPLITS
from vae_train.data.dataset import Dataset
from vae_train.data.session import DataSession
from vae_train.data.sources.audio import AudioFolder

pytest.importorskip("soundfile")
pytest.importorskip("soxr")

DEFAULTS: dict[str, Any] = {
    "seconds": None, "rate": None, "channels": None, "scaling": "standard", "units": None, "valid": 0.1, "test": 0.1,
    "split_seed": 0, "max_bad": 0.01, "cache": None,
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("caches")


def source(root: Path, **settings: Any) -> AudioFolder:
    return AudioFolder(str(root), **{**DEFAULTS, **settings})


def load(root: Path, **settings: Any) -> Dataset:
    return DataSession().load(source(root, **settings))


def samples(data: Dataset) -> dict[str, np.ndarray]:
    """The samples of every split in the units of the files, `(N, C, T)`."""
    splits = {name: images for name in SPLITS if (images := data.split(name)) is not None}
    fetched = {name: images.fetch(torch.arange(len(images))).x for name, images in splits.items()}
    return {name: data.stored_facts.units.to_file(x).numpy()[:, :, 0] for name, x in fetched.items()}


def everything(root: Path, **settings: Any) -> np.ndarray:
    return samples(load(root, valid=0, test=0, **settings))["train"]


def test_integers_become_numbers_from_minus_one_to_one(photos: Path) -> None:
    integers = np.array([[-32768, 0, 16384, 32767], [1, -1, 2, -2]], np.int16)
    for number, row in enumerate(integers):
        write(photos / f"{number}.wav", row)
    assert np.allclose(everything(photos)[:, 0], integers / 32768, atol=1e-7)
    facts = source(photos).inspect()
    assert (facts.data_shape, facts.levels, facts.sample_rate, facts.layout) == ((1, 1, 4), None, RATE, "NCT")
    assert facts.description == "signals of 1 channel and 4 steps at 1,000 Hz with continuous values"


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_tone_is_read_from_every_format(photos: Path, suffix: str) -> None:
    write(photos / f"a.{suffix}", tone(1, 440, 16_000), 16_000)
    (found,) = everything(photos)
    spectrum = np.abs(np.fft.rfft(found[0]))
    assert spectrum.argmax() == 440
    assert np.abs(found).max() == pytest.approx(0.5, abs=0.1)


def test_long_files_are_cut_and_short_ones_padded(photos: Path) -> None:
    long, short = tone(0.55, 7), tone(0.05, 3)
    write(photos / "long.wav", long, subtype="DOUBLE")
    write(photos / "short.wav", short, subtype="DOUBLE")
    data = load(photos, seconds=0.2, valid=0, test=0)
    found = samples(data)["train"][:, 0]
    assert np.allclose(found, [long[:200], long[200:400], [*short, *np.zeros(150)]], atol=1e-6)
    assert data.notes == (
        "1 of 2 files are shorter than 0.2 s and are padded with silence",
        "1 of 2 files are longer than 0.2 s and are cut into clips; 0.15 s at their ends are left out",
    )


def test_other_sample_rates_are_resampled(photos: Path) -> None:
    write(photos / "a.wav", tone(1, 20, 1000), 1000)
    write(photos / "b.wav", tone(1, 20, 4410), 4410)
    data = load(photos, rate=1000, valid=0, test=0)
    first, second = samples(data)["train"][:, 0]
    assert np.abs(first - second)[50:-50].max() < 1e-3
    assert data.notes == ("1 of 2 files are resampled to 1,000 Hz (one from 4,410 Hz)",)


def test_frequencies_above_the_new_rate_do_not_alias(photos: Path) -> None:
    write(photos / "a.wav", tone(1, 900, 4000), 4000)
    assert np.abs(everything(photos, rate=1000)[0, 0, 50:-50]).max() < 1e-2


def test_channels_are_averaged_or_repeated(photos: Path) -> None:
    left, right = tone(0.1, 10), tone(0.1, 30)
    write(photos / "stereo.wav", np.stack([left, right], 1), subtype="FLOAT")
    write(photos / "tone.wav", left, subtype="FLOAT")
    stereo, repeated = everything(photos)
    assert np.allclose(stereo, [left, right], atol=1e-6)
    assert np.allclose(repeated, [left, left], atol=1e-6)
    mono = load(photos, channels=1, valid=0, test=0)
    assert np.allclose(samples(mono)["train"][0, 0], (left + right) / 2, atol=1e-6)
    assert mono.notes == ("1 of 2 files have several channels, which are averaged; data.channels=2 keeps two",)


def test_folders_are_classes_and_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for kind in ("hum", "hiss"):
            fill(tmp_path / split / kind, count)
    data = load(tmp_path, valid=0)
    (factor,) = data.stored_facts.factors
    assert (factor.size, factor.values) == (2, ("hiss", "hum"))
    assert {name: len(own) for name, own in samples(data).items()} == {"train": 6, "test": 4}
    assert data.labels("train")[:, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_clips_of_a_file_stay_in_one_split(photos: Path) -> None:
    for number in range(20):
        write(photos / f"{number:02d}.wav", np.full(1000, (number + 1) / 32), subtype="FLOAT")
    files = {
        name: set(np.round(32 * own[:, 0, 0]).astype(int)) for name, own in samples(load(photos, seconds=0.1)).items()
    }
    assert {name: len(own) for name, own in files.items()} == {"train": 16, "valid": 2, "test": 2}
    assert len(set.union(*files.values())) == 20


def test_numbers_beyond_one_are_clipped_and_counted(photos: Path) -> None:
    write(photos / "loud.wav", np.array([0.5, -2.0, 3.0, 0.25]), subtype="FLOAT")
    data = load(photos, valid=0, test=0)
    assert np.allclose(samples(data)["train"], [[[0.5, -1, 1, 0.25]]])
    assert data.notes == ("1 file has samples beyond [-1, 1], which are clipped (for instance loud.wav)",)


def test_a_bounded_likelihood_sees_numbers_from_zero_to_one(photos: Path) -> None:
    write(photos / "a.wav", np.array([-1.0, 0.0, 0.5, 0.75]), subtype="FLOAT")
    images = load(photos, scaling="range", valid=0, test=0).split("train")
    assert images.fetch(torch.tensor([0])).x.flatten().tolist() == pytest.approx([0, 0.5, 0.75, 0.875])


def test_a_file_is_a_folder_with_one_file(photos: Path) -> None:
    path = write(photos / "song.wav", tone(1))
    assert everything(path, seconds=0.25).shape == (4, 1, 250)


def test_bad_files_are_skipped_and_named(photos: Path) -> None:
    fill(photos)
    write(photos / "nan.wav", np.array([0.5, np.nan]), subtype="FLOAT")
    write(photos / "silent.wav", np.zeros(0))
    (photos / "text.wav").write_text("no audio at all\n")
    cut = write(photos / "cut.flac", np.random.default_rng(0).normal(0, 0.1, 200)).read_bytes()
    (photos / "cut.flac").write_bytes(cut[: len(cut) // 2])
    (photos / "readme.txt").write_text("")
    data = load(photos, seconds=0.2)
    reasons = dict(data.bad_files)
    assert reasons.pop("cut.flac")
    assert reasons == {
        "nan.wav": "has samples that are not finite (NaN or infinity)",
        "silent.wav": "has no samples",
        "text.wav": "is not an audio file",
    }
    assert sum(map(len, samples(data).values())) == 10
    assert "files that are not audio files: 1 .txt" in data.notes
    assert load(photos, seconds=0.2).bad_files == data.bad_files  # also from the cache


def test_audio_is_decoded_once(photos: Path, caches: Path) -> None:
    path = write(photos / "a.wav", np.array([0.5, 0.25]), subtype="FLOAT")
    first, (place,) = everything(photos), caches.glob("clips-*/clips.npy")
    before = place.stat()
    assert np.array_equal(everything(photos), first)
    assert (place.stat().st_ino, place.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write(path, np.array([0.125, 0.25, 0.375]), subtype="FLOAT")
    assert np.allclose(everything(photos), [[[0.125, 0.25, 0.375]]])
