"""`vae apply`: a trained model applied to splits, image files and arrays."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vae_train
from tests.commandline import Answer, Vae
from vae_train.evaluation.bounds import image_bounds
from vae_train.evaluation.subject import Noise

GENERATOR = np.random.default_rng(0)


def write_png(path: str, shape: tuple[int, ...] = (8, 8)) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GENERATOR.integers(0, 256, shape, np.uint8)).save(path)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def done(answer: Answer) -> Answer:
    assert answer.code == 0, answer.err
    return answer


def files_below(folder: str) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_latents_of_a_split_decode_to_the_reconstructions(vae: Vae, trained: Path) -> None:
    answer = done(vae("apply", f"run={trained}", "task=encode", "input=test", "out=latents", "sample=true"))
    assert "input: the test split of the run's data" in answer.out + answer.err
    done(vae("apply", f"run={trained}", "task=reconstruct", "input=test", "out=made-images"))
    done(vae("apply", f"run={trained}", "task=decode", "input=latents/latents.npz", "out=decoded"))
    with np.load("latents/latents.npz") as file:
        arrays = dict(file)
    count = len(arrays["mean"])
    assert {name: array.shape for name, array in arrays.items()} == {
        "mean": (count, 2), "std": (count, 2), "sample": (count, 2), "files": (count,), "labels": (count,), "model": (),
    }  # fmt: skip
    for number in (0, count - 1):
        decoded, reconstructed = (
            Path(name, f"{number:05d}.png").read_bytes() for name in ("decoded/images", "made-images/reconstructions")
        )
        assert decoded == reconstructed
    rows = table(Path("latents/latents.csv"))
    assert [row["file"] for row in rows] == arrays["files"].tolist()
    assert [float(row["mean_1"]) for row in rows] == pytest.approx(arrays["mean"][:, 1].tolist(), rel=1e-5)
    assert json.loads(Path("latents/apply.json").read_text())["images"] == count
    model = vae_train.load(trained)
    assert np.allclose(model.encode(vae_train.open_data(trained, "test").images).mean, arrays["mean"], atol=1e-5)


def test_scores_of_a_split_are_those_of_eval_in_any_batch_size(vae: Vae, trained: Path) -> None:
    done(vae("eval", f"run={trained}", "k=5", "latents=false"))
    report = json.loads((trained / "eval" / "test.json").read_text())
    for batch_size, folder in ((512, "scores"), (33, "again")):
        options = (f"batch_size={batch_size}", f"out={folder}", "k=5")
        done(vae("apply", f"run={trained}", "task=score", "input=test", *options))
    rows, again = table(Path("scores/scores.csv")), {row["file"]: row for row in table(Path("again/scores.csv"))}
    for key in ("elbo", "rate", "distortion", "nll", "nll_bits_per_dim", "bits_per_dim"):
        values = [float(row[key]) for row in rows]
        assert np.mean(values) == pytest.approx(report[key]["value"], abs=1e-4)
        assert [float(again[row["file"]][key]) for row in rows] == pytest.approx(values, abs=1e-4)
    assert [float(row["nll"]) for row in rows] == sorted((float(row["nll"]) for row in rows), reverse=True)
    assert Path("scores/least_likely.png").exists()


def test_a_folder_of_images_is_brought_to_the_model(vae: Vae, trained: Path) -> None:
    for name, shape in (("a.png", (8, 8)), ("b.jpg", (20, 30)), ("sub/c.png", (16, 16, 3)), ("sub/c.bmp", (8, 8))):
        write_png(f"photos/{name}", shape)
    Path("photos/broken.png").write_bytes(b"no image")
    Path("photos/notes.txt").write_text("not an image")
    answer = done(vae("apply", f"run={trained}", "input=photos", "out=results"))
    said = answer.out + answer.err
    assert "input: the folder photos" in said
    assert "2 of 5 images are scaled to 8x8" in said
    assert "sub/c.png has colours, which are converted to grey\n" in said
    assert "b.jpg has another aspect ratio than 8x8" in said
    assert "files that are not images: 1 .txt" in said
    assert "1 file cannot be read and left out (broken.png: is not an image)" in said
    assert files_below("results") == [
        "apply.json", "bad_files.txt", "reconstructions/a.png", "reconstructions/b.png",
        "reconstructions/sub/c.bmp.png", "reconstructions/sub/c.png.png", "sheet.png",
    ]  # fmt: skip
    model, pixels = vae_train.load(trained), np.asarray(Image.open("photos/a.png"))
    expected = (255 * model.reconstruct(pixels[None])[0, 0]).round()
    assert np.array_equal(np.asarray(Image.open("results/reconstructions/a.png")), expected.numpy())


def test_a_split_is_not_a_folder_of_the_same_name(vae: Vae, trained: Path) -> None:
    write_png("test/a.png")
    assert "input: the test split" in done(vae("apply", f"run={trained}", "input=test", "task=encode")).out
    assert "input: the folder ./test" in done(vae("apply", f"run={trained}", "input=./test", "task=encode")).out
    folders = sorted(path.name for path in (trained / "apply").iterdir())
    assert folders == ["encode-test", "encode-test-2"]


def test_images_are_keyed_by_their_position(vae: Vae, trained: Path) -> None:
    for name in ("a", "b", "c"):
        write_png(f"photos/{name}.png")
    done(vae("apply", f"run={trained}", "task=score", "input=photos", "out=folder"))
    done(vae("apply", f"run={trained}", "task=score", "input=[photos/a.png,photos/b.png]", "out=two"))
    folder, two = ({Path(r["file"]).name: r for r in table(Path(n, "scores.csv"))} for n in ("folder", "two"))
    assert {name: folder[name] for name in two} == two


def test_the_first_images_have_the_same_scores_as_among_all(vae: Vae, trained: Path) -> None:
    for name, words in (("all", ()), ("few", ("num=5",))):
        done(vae("apply", f"run={trained}", "task=score", "input=test", f"out={name}", *words))
    every, few = ({row["file"]: row for row in table(Path(name, "scores.csv"))} for name in ("all", "few"))
    assert sorted(few) == [f"{number:05d}" for number in range(5)]
    for name, row in few.items():
        assert float(row["elbo"]) == pytest.approx(float(every[name]["elbo"]), abs=1e-4)


def test_a_path_between_images(vae: Vae, trained: Path) -> None:
    for name in ("a", "b", "c"):
        write_png(f"{name}.png")
    words = ("task=interpolate", "input=[a.png,b.png,c.png]", "frames=7", "interpolation=spherical", "out=path")
    done(vae("apply", f"run={trained}", *words))
    assert files_below("path") == ["apply.json", "path.gif", "strip.png"]
    with Image.open("path/path.gif") as gif:
        assert gif.n_frames == 7
    (line,) = vae("apply", f"run={trained}", "task=interpolate", "input=a.png").errors()
    assert "has 1 image, but this task needs at least 2" in line
    (line,) = vae("apply", f"run={trained}", *words[:2], "frames=2").errors()
    assert "a path through 3 images needs more" in line


def test_noise_is_added_on_request_only(vae: Vae, trained: Path) -> None:
    write_png("a.png")
    done(vae("apply", f"run={trained}", "task=denoise", "input=a.png", "out=clean"))
    done(vae("apply", f"run={trained}", "task=denoise", "input=a.png", "noise=0.5", "out=noisy"))
    done(vae("apply", f"run={trained}", "task=reconstruct", "input=a.png", "out=plain"))
    clean, noisy, plain = (
        Path(name).read_bytes()
        for name in ("clean/denoised/a.png", "noisy/denoised/a.png", "plain/reconstructions/a.png")
    )
    assert clean == plain != noisy


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool", "uint16"])
def test_an_array_becomes_an_array_in_its_own_units_and_layout(vae: Vae, trained: Path, dtype: str) -> None:
    unit = GENERATOR.integers(0, 2 if dtype == "bool" else 17, (5, 8, 8)) / (1 if dtype == "bool" else 16)
    top = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    array = (np.rint(top * unit) if top > 1 else unit).astype(dtype)
    np.savez("images.npz", x=array, y=np.arange(5))
    done(vae("apply", f"run={trained}", "input=images.npz", "out=results"))
    results = np.load("results/reconstructions.npy")
    assert (results.dtype, results.shape) == (array.dtype, array.shape)
    expected = vae_train.load(trained).reconstruct(unit.astype(np.float32))[:, 0].numpy()
    assert np.abs(results.astype(float) / top - expected).max() <= (0.51 / top if dtype != "float32" else 1e-6)
    done(vae("apply", f"run={trained}", "task=encode", "input=images.npz", "out=latents"))
    with np.load("latents/latents.npz") as file:
        assert file["labels"].tolist() == [str(n) for n in range(5)]


def test_vectors_come_back_in_the_units_of_the_table(vae: Vae) -> None:
    values = 100 + 10 * GENERATOR.random((200, 3))
    np.save("table.npy", values)
    assert vae.train("data=arrays", "data.path=table.npy", "out=run").code == 0
    done(vae("apply", "run=run", "input=table.npy", "out=all"))
    results = np.load("all/reconstructions.npy")
    assert results.shape == (200, 3)
    assert 95 < results.min() <= results.max() < 115
    assert np.allclose(results, vae_train.load("run").reconstruct(values), atol=1e-3)
    done(vae("apply", "run=run", "input=test", "out=test"))
    assert np.load("test/reconstructions.npy").shape == (20, 3)
    (line,) = vae("apply", "run=run", "input=../table.npy").errors()
    assert "no such file" in line
    np.save("wide.npy", np.zeros((5, 4)))
    (line,) = vae("apply", "run=run", "input=wide.npy").errors()
    assert line.endswith("has shape (5, 4), but this model takes (N, 3)")
    write_png("a.png")
    (line,) = vae("apply", "run=run", "input=a.png").errors()
    assert "this model was trained on the numbers of an array file" in line


def test_a_conditional_model_takes_classes_of_sub_folders(vae: Vae) -> None:
    for label in ("cat", "dog"):
        for number in range(12):
            write_png(f"pets/{label}/{number}.png")
    folder = ("data=folder", "data.root=pets", "data.cache=cache", "model.condition=label")
    assert vae.train(*folder, "out=run", "model/likelihood=gaussian").code == 0
    write_png("new/dog/a.png")
    write_png("loose/a.png")
    done(vae("apply", "run=run", "task=encode", "input=new", "out=by-folder", "data.cache=cache"))
    done(vae("apply", "run=run", "task=encode", "input=new/dog/a.png", "label=dog", "out=named", "data.cache=cache"))
    by_folder, named = (dict(np.load(f"{name}/latents.npz")) for name in ("by-folder", "named"))
    assert np.array_equal(by_folder["mean"], named["mean"])
    assert by_folder["labels"].tolist() == named["labels"].tolist() == ["dog"]
    (line,) = vae("apply", "run=run", "input=loose", "data.cache=cache").errors()
    assert line.endswith("this model is conditional, and the input has no labels; use one of 0 to 1, or cat, dog")
    (line,) = vae("apply", "run=run", "input=loose", "label=eel", "data.cache=cache").errors()
    assert "no such class; use 0 to 1, or cat, dog" in line


def test_bits_are_sampled_the_same_way_every_time(vae: Vae) -> None:
    assert vae.train("data.binarize=dynamic", "model/likelihood=bernoulli", "out=run").code == 0
    write_png("photos/a.png")
    write_png("photos/b.png")
    for name in ("first", "second"):
        answer = done(vae("apply", "run=run", "task=score", "input=photos", f"out={name}", "batch_size=1"))
        assert "pixels become bits at random" in answer.out
    assert Path("first/scores.csv").read_bytes() == Path("second/scores.csv").read_bytes()


def test_a_fitted_prior_changes_rates_only(vae: Vae, trained: Path) -> None:
    done(vae("fit-prior", f"run={trained}", "prior.components=2"))
    for prior in ("null", "gmm"):
        done(vae("apply", f"run={trained}", "task=score", "input=test", f"prior={prior}", f"out=scores-{prior}"))
    own, fitted = ({r["file"]: r for r in table(Path(f"scores-{name}/scores.csv"))} for name in ("null", "gmm"))
    assert all(own[name]["distortion"] == fitted[name]["distortion"] for name in own)
    assert any(own[name]["rate"] != fitted[name]["rate"] for name in own)


def test_an_existing_folder_is_only_replaced_on_request(vae: Vae, trained: Path) -> None:
    words = ("apply", f"run={trained}", "task=encode", "input=test", "out=mine")
    done(vae(*words))
    Path("mine/notes").touch()
    (line,) = vae(*words).errors()
    assert line.endswith("exists and is not empty; choose another folder, or add overwrite=true")
    done(vae(*words, "overwrite=true"))
    assert not Path("mine/notes").exists()
    (line,) = vae(*words[:-1], f"out={trained}", "overwrite=true").errors()
    assert "has files other than such results" in line
    assert (trained / "config.yaml").exists()


def test_spatial_latents_are_a_cache_with_moments_of_channels(vae: Vae) -> None:
    words = ("model=conv_spatial", "latent_shape=[2,4,4]", "epochs=1", "logger=none", "out=run")
    assert vae("train", *words).code == 0
    done(vae("apply", "run=run", "task=encode", "input=test", "out=cache"))
    assert files_below("cache") == ["apply.json", "latents.npz"]
    with np.load("cache/latents.npz") as file:
        mean = file["mean"].astype(np.float64)
        assert mean.shape[1:] == (2, 4, 4)
        assert np.allclose(file["channel_mean"], mean.mean((0, 2, 3)))
        assert np.allclose(file["channel_std"], mean.std((0, 2, 3)))
    done(vae("apply", "run=run", "task=decode", "input=cache/latents.npz", "out=decoded"))


@pytest.mark.parametrize(
    ("posterior", "arrays", "note"),
    [
        ("iaf", {"mean", "std"}, "std is estimated from 64 samples"),
        ("von_mises_fisher", {"mean", "std", "direction", "concentration"}, "direction and concentration"),
        ("categorical", {"mean", "std", "codes"}, "codes are the most likely categories"),
    ],
)
def test_latents_have_what_a_posterior_has(vae: Vae, posterior: str, arrays: set[str], note: str) -> None:
    priors = {"von_mises_fisher": "uniform_sphere", "categorical": "categorical", "iaf": "standard_normal"}
    words = (f"model/posterior={posterior}", f"model/prior={priors[posterior]}", "latent_dim=20", "out=run")
    assert vae("train", "steps=5", "model.encoder.hidden=[16]", "logger=none", *words).code == 0
    answer = done(vae("apply", "run=run", "task=encode", "input=test", "out=latents", "num=70"))
    assert note in answer.out
    with np.load("latents/latents.npz") as file:
        assert set(file) == arrays | {"files", "labels", "model"}
    done(vae("apply", "run=run", "task=decode", "input=latents/latents.npz", "out=decoded"))
    (line,) = vae("apply", "run=run", "task=decode", "input=latents/latents.npz", "key=files").errors()
    assert "files has shape (70,), but latents are (N, 20)" in line


def test_latents_keep_the_factors_of_a_conditional_model(vae: Vae) -> None:
    data = ("data=shapes", "data.size=8", "data.num_train=200", "data.num_valid=20", "data.num_test=20")
    assert vae.train(*data, "model.condition=factors", "out=run").code == 0
    done(vae("apply", "run=run", "task=encode", "input=test", "out=latents"))
    done(vae("apply", "run=run", "task=decode", "input=latents/latents.npz", "out=decoded"))
    done(vae("apply", "run=run", "input=test", "out=same"))
    decoded, same = (Path(name, "00007.png").read_bytes() for name in ("decoded/images", "same/reconstructions"))
    assert decoded == same
    write_png("a.png")
    (line,) = vae("apply", "run=run", "input=a.png", "factors=[9,0,0,0,0]").errors()
    assert line.startswith("  factors=[9, 0, 0, 0, 0]  no such shape; use 0 to 2")


def test_the_same_image_twice_has_two_results(vae: Vae, trained: Path) -> None:
    write_png("a.png")
    done(vae("apply", f"run={trained}", "input=[a.png,a.png]", "out=two"))
    assert files_below("two/reconstructions") == ["a.png-2.png", "a.png.png"]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:evil", "", "a//b"])
def test_latents_cannot_name_files_elsewhere(vae: Vae, trained: Path, name: str) -> None:
    done(vae("apply", f"run={trained}", "task=encode", "input=test", "num=1", "out=latents"))
    with np.load("latents/latents.npz") as file:
        np.savez("hostile.npz", **{**file, "files": np.array([name])})
    before = files_below("..")
    (line,) = vae("apply", f"run={trained}", "task=decode", "input=hostile.npz", "out=new").errors()
    assert "is not below the folder of the results" in line
    assert files_below("..") == before


WRONG = {
    "input=nowhere": "no such file or folder, and no split (train, valid, test)",
    "input=empty": "has no image",
    "input=notes.txt": "is not a folder or a file that ends in",
    "input=[a.png,empty]": "several inputs must all be image files",
    "input=small.npy": "has shape (5, 7, 8), but this model takes (N, 1, 8, 8) or (N, 8, 8, 1) or (N, 8, 8)",
    "input=large.npy": "has values from 0 to 3, but this model takes 0 to 1",
    "input=nan.npy": "has missing numbers (NaN)",
    "input=pickle.npz": "has Python objects, which are not unpickled",
    "input=two.npz": "is needed: the file has several arrays of images; use key=x_train or key=x_test",
    "input=[]": "input=[]  is empty",
    "input=a.png key=x": "has no effect with input=a.png, which is not an array file",
    "input=a.png factors=[1]": "factors=[1]  this run's model has no condition",
    "input=a.png label=3": "this run's model has no condition; train one with model.condition=label",
    "input=a.png task=decode": "is no file of latents",
    "input=small.npy task=decode": "is not a file of latents; vae apply task=encode writes one",
    "input=other.npz task=decode": "has latents of another model, or of other weights",
    "input=a.png task=paint": "no such task",
    "input=a.png task=score k=-1": "k=-1  is -1, must be at least 0",
    "input=a.png task=encode k=3": "no such setting",
    "input=a.png checkpoint=first": "must be one of best, last",
    "input=a.png prior=gmm": "has no fitted prior",
    "input=a.png out=notes.txt": "is a file; choose a folder",
    "input=a.png batch_size=0": "must be at least 1",
    "": "is required",
}


@pytest.fixture
def wrong_files() -> None:
    write_png("a.png")
    Path("empty").mkdir()
    Path("notes.txt").touch()
    np.save("small.npy", np.zeros((5, 7, 8)))
    np.save("large.npy", np.full((5, 8, 8), 3.0) * (np.arange(5) > 0)[:, None, None])
    np.save("nan.npy", np.full((5, 8, 8), np.nan) * (np.arange(5) > 0)[:, None, None] + 0.0)
    np.savez("pickle.npz", x=np.array([{}], dtype=object))
    np.savez("two.npz", x_train=np.zeros((5, 8, 8)), x_test=np.zeros((5, 8, 8)))
    np.savez("other.npz", mean=np.zeros((5, 2), np.float32), files=np.array(["a"] * 5), model=np.array("0123"))


@pytest.mark.usefixtures("wrong_files")
def test_wrong_inputs_are_one_line_and_leave_nothing(vae: Vae, trained: Path) -> None:
    before = files_below(".")
    for words, message in WRONG.items():
        lines = vae("apply", f"run={trained}", *words.split()).errors()
        assert len(lines) == 1, (words, lines)
        assert message in lines[0], (words, lines)
    assert files_below(".") == before


def test_a_run_without_a_checkpoint_is_refused(vae: Vae, trained: Path) -> None:
    for file in (trained / "checkpoints").iterdir():
        file.unlink()
    (line,) = vae("apply", f"run={trained}", "input=test").errors()
    assert line.endswith("has no checkpoint yet")


def test_scores_of_a_library_call_equal_those_of_the_command(vae: Vae, trained: Path) -> None:
    done(vae("apply", f"run={trained}", "task=score", "input=test", "out=scores"))
    images, _ = vae_train.open_data(trained, "test")
    model = vae_train.load(trained)
    bounds = image_bounds(model.model, model.given(images), noise=Noise(0, "judge", "test"))
    rows = {row["file"]: float(row["elbo"]) for row in table(Path("scores/scores.csv"))}
    assert list(rows.values()) == sorted(rows.values())
    assert [rows[name] for name in sorted(rows)] == pytest.approx(bounds["elbo"].tolist(), abs=1e-3)
    assert torch.isfinite(bounds["elbo"]).all()
