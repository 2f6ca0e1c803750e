"""An untrusted run: it is opened without harm, or rejected in a line."""

from __future__ import annotations

import os
import re
import time
import zipfile
from pathlib import Path

import pytest

from tests.commandline import BRIEF, Vae
from tests.data.pictures import fill


def edit(run: Path, before: str, after: str) -> None:
    text = (run / "config.yaml").read_text()
    assert before in text
    (run / "config.yaml").write_text(text.replace(before, after, 1))


def refused(vae: Vae, *arguments: str) -> str:
    begin = time.monotonic()
    (line,) = vae(*arguments).errors()
    assert time.monotonic() - begin < 20  # a second on an idle machine
    return line


@pytest.mark.parametrize("name", ["eval", "samples", "checkpoints", "tb", "priors", "reconstructions", "wandb"])
def test_a_folder_of_a_run_that_is_a_link_is_refused(vae: Vae, trained: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    if (trained / name).exists():
        (trained / name).rename(tmp_path / "old")
    (trained / name).symlink_to(outside)
    for arguments in (("eval", f"run={trained}", *BRIEF), ("sample", f"run={trained}"), ("train", f"resume={trained}")):
        assert "is a symbolic link, and vae does not write through links" in refused(vae, *arguments)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["train.log", ".lock", "eval/.lock", "tb/train", "tb/best/test", "tb/train/events"])
def test_a_file_of_a_run_that_would_be_written_through_a_link_is_refused(
    vae: Vae, trained: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    path = trained / name
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(outside)
    for arguments in (("eval", f"run={trained}"), ("train", f"resume={trained}", "epochs=3")):
        message = f"{path}: is a symbolic link, and vae does not write through links; remove it"
        assert refused(vae, *arguments).strip().replace("  ", ": ", 1) == message
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["test.json", "test.md", ".lock", "test-map.png"])
def test_no_report_is_written_through_a_link(vae: Vae, trained: Path, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (trained / "eval").mkdir()
    (trained / "eval" / name).symlink_to(outside)
    answer = vae("eval", f"run={trained}", "k=0")
    assert "Traceback" not in answer.err
    assert outside.read_text() == "mine"


def test_samples_are_not_written_through_a_link(vae: Vae, trained: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    name = trained / "samples/prior-seed0-num2"
    for suffix in (".png", ".npz", ""):
        name.with_name(f"{name.name}{suffix}").symlink_to(tmp_path if suffix == "" else outside)
    for overwrite in ("false", "true"):
        answer = vae("sample", f"run={trained}", "num=2", "npz=true", "save_each=true", f"overwrite={overwrite}")
        assert answer.code == 0, answer.err
        assert (outside.read_text(), (tmp_path / "00000.png").exists()) == ("mine", False)
        written = name if overwrite == "true" else name.with_name(f"{name.name}-2")
        assert (written / "00001.png").exists()


def test_the_folder_of_a_run_may_be_a_link(vae: Vae, trained: Path) -> None:
    Path("link").symlink_to(trained)
    assert vae("eval", "run=link", *BRIEF).code == 0
    assert vae("train", "resume=link", "epochs=3").code == 0


@pytest.mark.parametrize("name", ["../../../outside", "/tmp/outside", "a/b", "'\"\\e[31mred\"'"])
def test_a_name_does_not_lead_out_of_outputs(vae: Vae, trained: Path, name: str) -> None:
    edit(trained, "name: digits-mlp", f"name: {name.strip(chr(39))}")
    line = refused(vae, "reproduce", f"run={trained}")
    assert "is not a valid folder name" in line
    assert "\x1b" not in line


def test_a_saved_run_does_not_say_where_it_writes(vae: Vae, trained: Path, tmp_path: Path) -> None:
    base = "logger:\n  base:\n    _target_: vae_train.training.loggers.base.Logger\n"
    edit(trained, "logger: {}\n", f"{base}    folder: {tmp_path}/elsewhere\n")
    assert "is filled in by vae and cannot be set" in refused(vae, "reproduce", f"run={trained}")
    text = "  _target_: vae_train.training.loggers.files.Files\n"
    edit(trained, f"    folder: {tmp_path}/elsewhere\n", "")
    edit(trained, "data:\n", f"data:\n  folder: {tmp_path}\n{text}  was:\n")
    (tmp_path / "metrics.jsonl").write_text("mine")
    assert vae("eval", f"run={trained}").code == 2
    assert (tmp_path / "metrics.jsonl").read_text() == "mine"


@pytest.mark.parametrize("target", ["vae_train.__main__.main", "vae_train.cli.main.run", "vae_train.runs.train.train"])
def test_only_components_are_built(vae: Vae, trained: Path, target: str) -> None:
    edit(trained, "vae_train.model.vae.VAE", target)
    for command in ("eval", "sample", "reproduce"):
        assert "is not a component of vae_train" in refused(vae, command, f"run={trained}")


def test_interpolations_of_a_saved_run_are_text(vae: Vae, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "mine")
    edit(trained, "name: digits-mlp", "name: ${oc.env:SECRET}")
    assert vae("eval", f"run={trained}", *BRIEF).code == 0
    assert "mine" not in vae("reproduce", f"run={trained}", "tolerance=1e9").out
    edit(trained, "binarize: none", "binarize: ${oc.env:SECRET}")
    assert "'${oc.env:SECRET}'" in refused(vae, "eval", f"run={trained}")


BOMBS = {
    "aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)),
    "nesting": "x: " + "[" * 5_000 + "]" * 5_000 + "\n",
    "many values": "x: [" + "1, " * 100_000 + "1]\n",
    "long": "x: " + "y" * 10_000_000 + "\n",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_configuration_is_bounded_before_it_is_expanded(vae: Vae, trained: Path, bomb: str) -> None:
    path = trained / "config.yaml"
    path.write_text(path.read_text() + bomb)
    assert "config.yaml" in refused(vae, "eval", f"run={trained}")


@pytest.mark.parametrize("hidden", ["[16, 1000000000000]", "[" + "16, " * 20_000 + "16]", "[100000, 100000, 100000]"])
def test_a_model_that_is_not_that_of_the_checkpoint_is_refused_before_it_is_made(
    vae: Vae, trained: Path, hidden: str
) -> None:
    text = (trained / "config.yaml").read_text()
    head, _, tail = text.partition("hidden:\n    - 16\n")
    assert tail
    (trained / "config.yaml").write_text(f"{head}hidden: {hidden}\n{tail}")
    refused(vae, "sample", f"run={trained}")


def test_a_compressed_checkpoint_is_refused(vae: Vae, trained: Path) -> None:
    for path in (trained / "checkpoints").iterdir():
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("last/data.pkl", bytes(50_000_000))
    begin = time.monotonic()
    answer = vae("eval", f"run={trained}")
    assert (answer.code, "compressed, unlike checkpoints" in answer.err) == (1, True)
    assert time.monotonic() - begin < 20


def test_names_of_files_do_not_steer_the_terminal(vae: Vae) -> None:
    fill(Path("photos"), 30)
    Path("photos/\x1b[31mred\n\u202e.png").write_bytes(b"broken")
    answer = vae.train("data=folder", "data.root=photos", "batch_size=8", "out=run")
    data = vae("data", "data=folder", "data.root=photos")
    listed = Path("run/bad_files.txt").read_text()
    assert listed == "\\x1b[31mred\\n\\u202e.png\tis not an image\n"
    for text in (answer.out, answer.err, data.out, Path("run/train.log").read_text()):
        assert not {"\x1b", "\u202e"} & set(text)
    os.mkdir("\x1b[2J")
    assert "\x1b" not in vae("eval", "run=\x1b[2J").err


@pytest.fixture
def photos_run(vae: Vae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a folder of images whose cache is in `caches`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    fill(Path("photos"), 40)
    arguments = ("data=folder", "data.root=photos", f"data.cache={tmp_path}/caches", "batch_size=8", "out=photos-run")
    answer = vae.train(*arguments)
    assert answer.code == 0, answer.err
    return Path("photos-run")


COMMANDS = (
    ("eval", "run=photos-run", *BRIEF),
    ("fit-prior", "run=photos-run", "prior=gmm", "prior.components=2"),
    ("reproduce", "run=photos-run"),
    ("train", "resume=photos-run", "epochs=3"),
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: arguments[0])
def test_images_are_not_decoded_to_a_folder_that_only_the_run_names(
    vae: Vae, photos_run: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    outside = tmp_path / "outside"
    edit(photos_run, f"cache: {tmp_path}/caches", f"cache: {outside}")
    answer = vae(*arguments)
    assert answer.code == 0, answer.err
    assert f"data.cache={outside} uses the folder that the run names" in answer.out + answer.err
    assert not outside.exists()
    assert len(list((tmp_path / "home/vae_train").glob("images-*"))) == 1
    assert vae(*arguments[:-1], arguments[-1].replace("=3", "=4"), f"data.cache={tmp_path}/typed").code == 0
    assert len(list((tmp_path / "typed").glob("images-*"))) == 1


def test_the_complete_cache_of_a_run_is_read(vae: Vae, photos_run: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "caches").rglob("*")}
    assert before
    assert vae("eval", f"run={photos_run}", *BRIEF).code == 0
    assert not (tmp_path / "home").exists()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "caches").rglob("*")} == before


@pytest.mark.parametrize("source", ["mnist.MNIST", "dsprites.DSprites"])
def test_nothing_is_downloaded_to_a_folder_that_only_the_run_names(
    vae: Vae, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "own"))
    settings = {
        "mnist.MNIST": "protocol: vamp\n  binarize: dynamic",
        "dsprites.DSprites": "num_valid: 10\n  num_test: 10\n  cache: null",
    }
    head, _, rest = (trained / "config.yaml").read_text().partition("data:\n")
    tail = rest[rest.index("\n", rest.rindex("\n  ", 0, re.search(r"\n(?! )", rest).start() + 1) + 1) :]
    node = f"data:\n  _target_: vae_train.data.sources.{source}\n  root: {tmp_path}/outside\n  {settings[source]}"
    (trained / "config.yaml").write_text(f"{head}{node}{tail}")
    for arguments in (("eval", f"run={trained}", *BRIEF), ("reproduce", f"run={trained}")):
        line = refused(vae, *arguments)
        assert "vae does not download to a folder that only the run names" in line
        assert f"data.root={tmp_path}/own for your own data" in line
    assert not (tmp_path / "outside").exists()
