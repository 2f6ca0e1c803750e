"""`vae sample show=`: image grids of trained models, and what has none."""

from __future__ import annotations

import html
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.commandline import Vae

SMALL = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "steps=4", "batch_size=16", "logger=none")


def made(answer: object) -> list[Path]:
    """The files that a command says it has written."""
    assert answer.code == 0, answer.err
    lines = [line for line in answer.out.splitlines() if not line.startswith("images show")]
    paths = [Path(name) for line in lines for name in line.rpartition(": ")[2].split(", ")]
    assert all(path.exists() for path in paths)
    return paths


def frames(path: Path) -> int:
    with Image.open(path) as image:
        return sum(1 for _ in ImageSequence.Iterator(image))


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_several_plots_at_once(vae: Vae, trained: Path) -> None:
    shows = "prior,interpolate,traverse,manifold,neighbours,extremes,progress"
    answer = vae("sample", f"run={trained}", f"show={shows}", "out=grids")
    assert {path.name for path in made(answer)} == {
        *("prior-seed0.png", "manifold.png", "neighbours-seed0.png", "extremes-seed0.png", "progress.gif"),
        *(f"{name}.{suffix}" for name in ("interpolate-seed0", "traverse") for suffix in ("png", "gif")),
    }
    assert len(answer.out.splitlines()) == 7
    assert frames(Path("grids/progress.gif")) == 2
    assert frames(Path("grids/traverse.gif")) > 20
    again = made(vae("sample", f"run={trained}", "show=traverse", "out=grids"))
    assert [path.name for path in again] == ["traverse-2.png", "traverse-2.gif"]
    assert Path("grids/traverse-2.png").read_bytes() == Path("grids/traverse.png").read_bytes()
    again = made(vae("sample", f"run={trained}", "show=traverse", "out=grids", "overwrite=true"))
    assert [path.name for path in again] == ["traverse.png", "traverse.gif"]


def test_formats_of_a_paper(vae: Vae, trained: Path) -> None:
    paths = made(vae("sample", f"run={trained}", "show=traverse", "format=pdf,svg", "num=1"))
    assert [path.suffix for path in paths] == [".pdf", ".svg", ".gif"]
    assert paths[0].read_bytes()[:4] == b"%PDF"
    text = paths[1].read_text()
    assert "nats</text>" in text
    assert text.count("nats</text>") == 1


def test_numbers_of_rows_and_frames(vae: Vae, trained: Path) -> None:
    few, many = (
        made(vae("sample", f"run={trained}", "show=interpolate", f"num={num}", f"frames={length}"))[0]
        for num, length in ((2, 3), (4, 6))
    )
    assert size(many)[1] - size(few)[1] == 2 * (80 + 2)
    assert size(many)[0] - size(few)[0] == 3 * (80 + 2)


def test_named_images(vae: Vae, trained: Path) -> None:
    answer = vae("sample", f"run={trained}", "show=interpolate", "images=[3,17,5]", "split=valid")
    assert "path through 3 valid images" in answer.out
    made(answer)
    assert "traverse-images3" in str(made(vae("sample", f"run={trained}", "show=traverse", "images=[3]"))[0])


def test_a_conditional_model_has_a_row_for_every_class(vae: Vae) -> None:
    vae("train", *SMALL, "latent_dim=2", "model.condition=label", "out=run")
    (path,) = made(vae("sample", "run=run", "npz=false"))
    assert size(path)[1] == 10 * 58 + 2
    made(vae("sample", "run=run", "show=prior,interpolate,traverse,neighbours,extremes,manifold", "label=3"))
    made(vae("sample", "run=run", "show=interpolate", "num=3"))
    (line,) = vae("sample", "run=run", "show=interpolate", "images=[0,1]").errors()
    assert "needs images of one class" in line
    (line,) = vae("sample", "run=run", "show=manifold").errors()
    assert line.endswith("add label=")
    (line,) = vae("sample", "run=run", "show=traverse", "label=cat").errors()
    assert "no such" in line


def test_names_of_classes_stand_on_one_short_line(vae: Vae) -> None:
    names = ["$x^2$ & <b>", "two\nlines", "x" * 100]
    np.savez("x.npz", x=np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8), y=np.array(names * 20))
    vae("train", *SMALL, "data=arrays", "data.path=x.npz", "latent_dim=2", "model.condition=label", "out=run")
    paths = made(vae("sample", "run=run", "format=png,svg", "columns=3"))
    assert size(paths[0])[0] < 500
    text = html.unescape(paths[1].read_text())
    assert all(f">{name}</text>" in text for name in ("$x^2$ & <b>", "two lines", "x" * 23 + "…"))
    (path,) = made(vae("sample", "run=run", "label=$x^2$ & <b>", "num=2", "out=named"))
    assert path.parent == Path("named")


@pytest.mark.parametrize(
    "arguments",
    [
        ("data=arrays", "data.path=signals.npy", "latent_dim=3"),
        pytest.param(("data=arrays", "data.path=table.csv", "latent_dim=2"), marks=pytest.mark.slow),
        pytest.param(("data=arrays", "data.path=channels.npy", "latent_dim=3", "preprocessing=logit"),
                     marks=pytest.mark.slow),
        ("data=shapes", "data.size=8", "data.channels=3", "data.num_train=60", "data.num_valid=20", "data.num_test=20",
         "latent_dim=3", "model.condition=factors"),
        ("model=conv_spatial", "latent_shape=[2,2,2]"),
        pytest.param(("data.binarize=dynamic", "model/likelihood=bernoulli", "latent_dim=2"), marks=pytest.mark.slow),
        ("model/posterior=deterministic", "objective=rae", "latent_dim=2"),
    ],
    ids=["signals", "table", "channels", "factors", "spatial", "binary", "deterministic"],
)  # fmt: skip
def test_image_grids_of_all_kinds_of_models(vae: Vae, arguments: tuple[str, ...]) -> None:
    noise = np.random.default_rng(0)
    np.save("signals.npy", noise.normal(size=(60, 2, 16)).astype(np.float32))
    np.save("channels.npy", noise.integers(0, 256, (60, 8, 8, 4)).astype(np.uint8))
    np.savetxt("table.csv", noise.normal(size=(60, 5)), delimiter=",")
    small = [a for a in SMALL if "hidden" not in a or "model=conv_spatial" not in arguments]
    answer = vae("train", *small, *arguments, "out=run")
    assert answer.code == 0, answer.err
    shows = ["prior", "interpolate", "traverse", "neighbours", "extremes"]
    shows += ["manifold"] if "latent_dim=2" in arguments else []
    answer = vae("sample", "run=run", f"show={','.join(shows)}", "format=png,svg", "num=3", "frames=5")
    assert len(made(answer)) == 2 * len(shows) + 2
    assert "nan" not in answer.out


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("model/posterior=von_mises_fisher", "model/prior=uniform_sphere"), {"traverse": "on a sphere"}),
        (
            ("model/posterior=categorical", "model/prior=categorical", "latent_dim=20"),
            {
                "traverse": "that are categories",
                "interpolate": "that are categories",
                "manifold": "that are categories",
            },
        ),
    ],
    ids=["sphere", "categories"],
)
def test_what_latents_do_not_have_is_refused_at_once(vae: Vae, arguments: tuple[str, ...], wrong: dict) -> None:
    assert vae("train", *SMALL, *arguments, "out=run").code == 0
    before = sorted(Path("run").rglob("*"))
    lines = vae("sample", "run=run", f"show=prior,{','.join(wrong)}").errors()
    assert [line.split()[0] for line in lines] == [f"show={name}" for name in wrong]
    assert all(text in line for line, text in zip(lines, wrong.values(), strict=True))
    assert sorted(Path("run").rglob("*")) == before
    made(vae("sample", "run=run", "show=prior,neighbours,extremes", "num=2"))
    if "interpolate" not in wrong:
        assert "spherical" in vae("sample", "run=run", "show=interpolate", "num=2").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show=travers"], "did you mean traverse?"),
        (["show=prior,prior"], "names prior twice"),
        (["manifold=true"], "did you mean show=manifold?"),
        (["show=traverse", "images=[1,2]"], "names 2 images; name 1"),
        (["show=interpolate", "images=[1]"], "name at least 2"),
        (["show=interpolate", "images=[1,5000]"], "it has no 5000"),
        (["show=interpolate", "images=[1,2,3]", "frames=2"], "is too short for a path through 3 images"),
        (["show=neighbours", "columns=1"], "at least one training image"),
        (["show=traverse", "frames=99999999999"], "GiB of memory"),
        (["show=manifold", "frames=9999999"], "GiB of memory"),
        (["show=traverse", "label=3"], "has no condition"),
        (["show=traverse", "temperature=0.5"], "has no effect with show=traverse"),
        (["show=traverse", "npz=true"], "has no effect with show=traverse"),
        (["show=progress", "format=pdf"], "has no effect with show=progress"),
        (["split=valid"], "has no effect with show=prior"),
        (["show=interpolate", "frames=1"], "at least 2"),
        (["format=jpg"], "png, pdf, svg"),
        (["prior=gmm", "show=extremes"], "has no fitted prior"),
        (["out=file.txt"], "is a file"),
        (["out=file.txt/below"], "is a file"),
    ],
    ids=" ".join,
)
def test_wrong_requests_are_one_line(vae: Vae, trained: Path, arguments: list[str], message: str) -> None:
    Path("file.txt").touch()
    before = sorted(path for path in Path().rglob("*"))
    (line,) = vae("sample", f"run={trained}", *arguments).errors()
    assert message in line
    assert sorted(path for path in Path().rglob("*")) == before


def test_image_grids_without_data_or_checkpoint(vae: Vae, trained: Path) -> None:
    """`prior` needs no data, and `progress` needs neither data nor checkpoint."""
    shutil.rmtree(trained / "checkpoints")
    (path,) = made(vae("sample", f"run={trained}", "show=progress"))
    assert frames(path) == 2
    (line,) = vae("sample", f"run={trained}", "show=progress,prior").errors()
    assert "has no checkpoint yet" in line
    for grid in (trained / "samples").glob("epoch-*"):
        grid.unlink()
    (line,) = vae("sample", f"run={trained}", "show=progress").errors()
    assert "image grids of at least two epochs" in line


def test_damaged_grids_are_left_out_of_the_progress(vae: Vae, trained: Path) -> None:
    samples = trained / "samples"
    good = (samples / "final.png").read_bytes()
    for number in (3, 4, 5):
        (samples / f"epoch-000{number}.png").write_bytes(good)
    (samples / "epoch-0004.png").write_bytes(good[:300])
    Image.new("L", (30, 30)).save(samples / "epoch-0005.png")
    os.mkfifo(samples / "epoch-0006.png")
    answer = vae("sample", f"run={trained}", "show=progress", "out=out")
    assert "3 damaged or of another size left out" in answer.out
    made(answer)
    for path in samples.glob("epoch-*"):
        path.unlink()
    (samples / "epoch-0001.png").write_text("no image")
    answer = vae("sample", f"run={trained}", "show=progress", "out=out")
    assert (answer.code, "are damaged, or differ in size" in answer.err) == (1, True)


@pytest.mark.slow
def test_moved_data_is_found_again(vae: Vae) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(60, 5)))
    assert vae("train", *SMALL, "data=arrays", "data.path=x.npy", "latent_dim=2", "out=run").code == 0
    Path("x.npy").rename("y.npy")
    made(vae("sample", "run=run", "show=prior,manifold"))
    (line,) = vae("sample", "run=run", "show=prior,traverse").errors()
    assert "if it moved, add data.path=" in line
    made(vae("sample", "run=run", "show=prior,traverse", "data.path=y.npy"))
    (line,) = vae("sample", "run=run", "data.path=y.npy").errors()
    assert "has no effect with show=prior" in line
