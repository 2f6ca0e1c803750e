"""`vae apply task=inpaint`: hidden pixels of splits, image files and arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vae_train
from tests.commandline import Vae
from tests.support import BINARY

GENERATOR = np.random.default_rng(0)
QUICK = ("task=inpaint", "steps=4")


def write_png(path: str, pixels: np.ndarray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def read_png(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def levels(*shape: int) -> np.ndarray:
    """Pixels of the 17 levels of the digits, as bytes."""
    return np.rint(GENERATOR.integers(0, 17, shape) * 255 / 16)


def apply(vae: Vae, *words: str) -> str:
    answer = vae("apply", *words)
    assert answer.code == 0, answer.err
    return answer.out + answer.err


def test_seen_pixels_are_kept_and_hidden_ones_are_drawn(vae: Vae, trained: Path) -> None:
    pixels = {name: levels(8, 8) for name in ("a", "sub/b")}
    for name, image in pixels.items():
        write_png(f"photos/{name}.png", image)
    said = apply(vae, f"run={trained}", *QUICK, "input=photos", "mask=centre", "completions=3", "out=results")
    assert "z by Metropolis within Gibbs" in said
    assert "% of the proposals were accepted" in said
    names = [
        f"{folder}/{name}.png" for folder in ("completed-1", "completed-2", "completed-3", "std") for name in pixels
    ]
    found = sorted(str(path.relative_to("results")) for path in Path("results").rglob("*") if path.is_file())
    assert found == sorted([*names, "apply.json", "sheet.png"])
    centre = np.zeros((8, 8), bool)
    centre[2:6, 2:6] = True
    for name, image in pixels.items():
        done = np.stack([read_png(f"results/completed-{k}/{name}.png") for k in (1, 2, 3)]).astype(float)
        assert (done[:, ~centre] == image[~centre]).all()
        assert (done[0] != done[1]).any()
        assert (done != done[0]).any(0)[centre].mean() > 0.5
        std = np.minimum(255, 2 * done.std(0, ddof=1))
        assert np.abs(read_png(f"results/std/{name}.png") - std).max() <= 1
    said = apply(vae, f"run={trained}", *QUICK, "input=photos", "method=importance", "out=other")
    assert "z by importance resampling" in said
    settings = json.loads(Path("results/apply.json").read_text())["settings"]
    assert settings == {"mask": "centre", "completions": 3, "steps": 4, "method": "auto"}


def test_draws_are_a_function_of_seed_and_position(vae: Vae, trained: Path) -> None:
    for name in ("a", "b", "c"):
        write_png(f"photos/{name}.png", levels(8, 8))
    for out, words in {"one": (), "two": ("batch_size=1",), "other": ("seed=1",)}.items():
        apply(vae, f"run={trained}", *QUICK, "input=photos", "mask=random", f"out={out}", *words)
    one, two, other = (
        np.stack([read_png(f"{folder}/completed/{name}.png") for name in "abc"]) for folder in ("one", "two", "other")
    )
    assert (one == two).all()
    assert (one != other).any()


@pytest.mark.parametrize("mask", ["random", "half", "centre", "patch"])
def test_every_mask_hides_a_part(vae: Vae, trained: Path, mask: str) -> None:
    np.save("images.npy", levels(40, 8, 8).astype(np.uint8))
    apply(vae, f"run={trained}", *QUICK, "input=images.npy", f"mask={mask}", "out=results")
    changed = np.load("results/completed.npy") != np.load("images.npy")
    assert 0.1 < changed.mean() < 0.6
    where = changed.any(0)
    if mask == "half":
        assert (where[4:].all(), where[:4].any()) == (True, False)
    elif mask == "centre":
        assert (where[2:6, 2:6].all(), where.sum()) == (True, 16)
    else:
        assert where.all()


def test_masks_are_image_files_that_are_matched_by_name(vae: Vae, trained: Path) -> None:
    masks = {"a": GENERATOR.random((8, 8)) < 0.5, "b": np.arange(64).reshape(8, 8) < 32}
    for name, mask in masks.items():
        write_png(f"photos/{name}.png", levels(8, 8))
        write_png(f"masks/{name}.jpeg.png", 255 * mask)
        write_png(f"named/{name}.bmp", np.kron(mask, np.ones((5, 5))))  # 0 and 1, 40x40
    write_png("single/any.png", 255 * masks["b"])

    def changed(mask: str) -> dict[str, np.ndarray]:
        apply(
            vae, f"run={trained}", *QUICK, "input=photos", f"mask={mask}", f"out=of-{Path(mask).name}", "completions=4"
        )
        done = {
            name: [read_png(f"of-{Path(mask).name}/completed-{k}/{name}.png") for k in range(1, 5)] for name in "ab"
        }
        return {name: (np.stack(images) != read_png(f"photos/{name}.png")).any(0) for name, images in done.items()}

    for name, where in changed("named").items():
        assert not where[masks[name]].any()
        assert where[~masks[name]].mean() > 0.5
    for folder in ("single", "single/any.png"):
        assert not any(where[masks["b"]].any() for where in changed(folder).values())
    (line,) = vae("apply", f"run={trained}", *QUICK, "input=photos", "mask=masks").errors()
    assert "has no mask for 2 of 2 images (for instance a.png); name masks like the images" in line


@pytest.mark.slow
def test_missing_numbers_of_a_table_are_filled_in_its_units(vae: Vae) -> None:
    generator = np.random.default_rng(1)
    table = 100 + 10 * generator.random((200, 3))
    table[generator.random(table.shape) < 0.2] = np.nan
    np.save("table.npy", table)
    assert vae.train("data=arrays", "data.path=table.npy", "data.missing=mask", "out=run").code == 0
    said = apply(vae, "run=run", *QUICK, "input=table.npy", "mask=null", "completions=2", "out=results")
    assert "z by importance resampling" in said
    done, seen = [np.load(f"results/completed-{k}.npy") for k in (1, 2)], ~np.isnan(table)
    assert done[0].shape == table.shape
    assert all(np.allclose(values[seen], table[seen], rtol=1e-5) for values in done)
    assert all((values > 80).all() and (values < 130).all() for values in done)
    std = np.load("results/std.npy")
    assert np.allclose(std, np.std(done, 0, ddof=1), atol=1e-3)
    assert (std[~seen] > 0).all()
    apply(vae, "run=run", *QUICK, "input=table.npy", "mask=half", "out=half")
    kept = seen & (np.arange(3) < 2)
    same = np.isclose(np.load("half/completed.npy"), table, rtol=1e-6)
    assert np.argwhere(same != kept).tolist() == []


def test_bits_stay_bits_and_conditions_count(vae: Vae) -> None:
    assert vae.train(*BINARY, "model.condition=label", "out=run").code == 0
    write_png("photos/3/a.png", levels(8, 8))
    apply(vae, "run=run", *QUICK, "input=photos", "mask=half", "out=results")
    assert set(np.unique(read_png("results/completed/3/a.png"))) <= {0, 255}
    apply(vae, "run=run", *QUICK, "input=test", "num=5", "mask=half", "completions=2", "out=test")
    model, (images, labels) = vae_train.load("run"), vae_train.open_data("run", "test")
    with pytest.raises(ValueError, match="pass label="):
        model.inpaint(images[:5], np.arange(64).reshape(8, 8) < 32)
    assert model.inpaint(images[:5], np.arange(64).reshape(8, 8) < 32, labels[:5], steps=4).shape == (1, 5, 1, 8, 8)


WRONG = {
    "mask=center": "no such mask; did you mean centre? (use random, half, centre, patch, a file or a folder)",
    "mask=empty": "has no image",
    "mask=notes.txt": "is not an image file",
    "mask=broken.png": "broken.png: is not an image",
    "mask=null": "hides missing values alone, and this model was trained without any",
    "completions=0": "must be in [1, 256]",
    "method=best": "must be one of auto, gibbs, importance",
    "steps=0": "must be at least 1",
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_setting_is_one_line_and_leaves_nothing(vae: Vae, trained: Path, word: str) -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("nothing")
    Path("broken.png").write_bytes(b"nothing")
    answer = vae("apply", f"run={trained}", "task=inpaint", "input=test", "num=3", word, "out=results")
    (line,) = answer.errors()
    assert WRONG[word] in line
    assert answer.code == 2
    assert not Path("results").exists()


def test_a_point_mass_has_nothing_to_draw_from(vae: Vae) -> None:
    assert vae.train("model/posterior=deterministic", "objective=rae", "out=run").code == 0
    (line,) = vae("apply", "run=run", *QUICK, "input=test", "num=3", "out=results").errors()
    assert "the posterior is a point mass" in line
