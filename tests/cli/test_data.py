"""Other people's data on the command line: folders, arrays, what `vae data` shows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commandline import BRIEF, TINY, Vae, rows, start
from tests.data.pictures import damaged, fill
from tests.support import OPEN, choices


@pytest.fixture(autouse=True)
def _caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VAE_DATA", str(tmp_path / "nowhere"))


def saved(run: str) -> dict:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(OmegaConf.load(Path(run) / "config.yaml"))  # type: ignore[return-value]


def signals(count: int = 200) -> np.ndarray:
    """(N, 2, 32) float32 between -5 and 5."""
    rng = np.random.RandomState(0)
    time, phase = np.linspace(0, 6, 32), rng.rand(count, 2, 1) * 6
    return (5 * np.sin(time * (1 + rng.rand(count, 1, 1)) + phase)).astype(np.float32)


@pytest.mark.parametrize("data", choices("data"))
def test_a_configuration_can_be_shown_without_its_data(vae: Vae, data: str) -> None:
    answer = vae("train", "--cfg", "job", f"data={data}")
    assert answer.code == 0, answer.err
    assert "_target_: vae_train.data." in answer.out


STATED = [d for d in choices("data") if d not in OPEN]


@pytest.mark.parametrize("data", [d for d in STATED if d not in ("digits", "celeba", "dsprites")])
def test_a_training_can_be_planned_without_its_data(vae: Vae, data: str) -> None:
    answer = vae.train(f"data={data}", "plan=true", "batch_size=4")
    assert answer.code == 0, answer.err
    assert "parameters" in answer.out


def test_a_folder_is_trained_on_with_one_override(vae: Vae) -> None:
    fill(Path("photos"), 60, classes=2)
    answer = vae("train", "data=folder", "data.root=photos", "batch_size=16", "out=run", "epochs=1", "logger=none",
                 "model=conv", "model.encoder.channels=4", "model.decoder.channels=4")  # fmt: skip
    assert answer.code == 0, answer.err
    assert "12x16x3 · 48 train / 6 valid / 6 test" in answer.out
    assert saved("run")["data"]["size"] == [12, 16]
    assert saved("run")["data"]["channels"] == 3
    assert Path("run/samples/final.png").exists()
    assert not Path("run/bad_files.txt").exists()
    assert vae("eval", "run=run", "k=5").code == 0


def test_files_that_are_bad_are_listed_in_the_run(vae: Vae) -> None:
    fill(Path("photos"), 40)
    Path("photos/0007.png").write_bytes(b"broken")
    Path("photos/0008.png").write_bytes(b"")
    answer = vae.train("data=folder", "data.root=photos", "batch_size=8", "out=run")
    assert "2 unreadable files skipped, see run/bad_files.txt" in answer.out
    assert Path("run/bad_files.txt").read_text() == "0007.png\tis not an image\n0008.png\tis not an image\n"


def test_a_run_is_sampled_where_its_data_is_gone(vae: Vae) -> None:
    fill(Path("photos"), 30)
    assert vae.train("data=folder", "data.root=photos", "batch_size=8", "out=run").code == 0
    Path("photos").rename("elsewhere")
    assert vae("sample", "run=run", "num=4").code == 0
    (line,) = vae("eval", "run=run").errors()
    assert f"data.root={Path('photos').absolute()}  no such folder; if it moved, add data.root=" in line
    for command in (["eval", "run=run", *BRIEF], ["reproduce", "run=run"], ["train", "resume=run", "epochs=3"]):
        assert vae(*command).code == 2
        answer = vae(*command, "data.root=elsewhere")
        assert answer.code == 0, answer.err
    Path("elsewhere/0000.png").write_bytes(Path("elsewhere/0001.png").read_bytes())
    for command in (["eval", "run=run"], ["reproduce", "run=run"], ["fit-prior", "run=run"], ["train", "resume=run"]):
        (line,) = vae(*command, "data.root=elsewhere").errors()
        assert "is not the data that run was trained on" in line
    (line,) = vae("eval", "run=run", "data.path=elsewhere").errors()
    assert "data.path" in line
    assert "no such parameter" in line


@pytest.mark.parametrize(("arguments", "why"), [
    (["data=folder"], "data.root="),
    (["data=folder", "data.root=nowhere"], "no such folder"),
    (["data=folder", "data.root=photos", "data.fit=squeeze"], "must be one of crop, pad, stretch"),
    (["data=folder", "data.root=photos", "data.size=0"], "at least 1"),
    (["data=folder", "data.root=photos", "data.size=[4,4]", "data.valid=0.6", "data.test=0.6"], "leave no images"),
    (["data=folder", "data.root=photos", "batch_size=500"], "exceeds the 16 training images"),
    (["data=folder", "data.root=photos", "model/likelihood=bernoulli"], "256 levels"),
    (["data=folder", "data.root=photos", "preprocessing.logit=0.1"], "use preprocessing.dequantize=true"),
    (["data=folder", "data.root=photos", "preprocessing.logit=0.7"], "in (0, 0.5)"),
    (["data=folder", "data.root=photos", "corruption.mask=2"], "in [0, 1]"),
    (["data=folder", "data.root=photos", "augmentation.flipp=true"], "did you mean augmentation.flip?"),
    (["data=folder", "data.root=photos", "loader.storage=disk"], "must be one of auto, device, host"),
    (["data=arrays"], "data.path="),
    (["data=arrays", "data.path=nowhere.npy"], "no such file"),
    (["data=arrays", "data.path=photos"], "use data=folder"),
])  # fmt: skip
def test_errors_are_one_line(vae: Vae, arguments: list[str], why: str) -> None:
    fill(Path("photos"), 20)
    size = [] if any("batch_size" in argument for argument in arguments) else ["batch_size=8"]
    lines = vae.train(*arguments, *size, "out=run").errors()
    assert len(lines) == 1, lines
    assert why in lines[0]
    assert not Path("run").exists()


def test_a_layout_that_was_inferred_is_said_once_before_an_error(vae: Vae) -> None:
    """Although several checks inspect the file."""
    array = signals()
    array[3, 1, 2] = np.nan
    np.save("x.npy", array)
    answer = vae("train", "data=arrays", "data.path=x.npy", "batch_size=9999")
    assert len(answer.errors()) == 1
    assert answer.out.count("taken as signals") == 1


def test_signals_are_plotted_as_lines_and_sampled_in_their_own_units(vae: Vae) -> None:
    np.save("signals.npy", signals())
    answer = vae.train("data=arrays", "data.path=signals.npy", "batch_size=20", "out=run")
    assert answer.code == 0, answer.err
    found = saved("run")["data"]
    assert (found["layout"], found["shape"]) == ("NCT", [2, 1, 32])
    assert (found["range"], found["scaling"]) == (None, "standard")
    image = np.array(Image.open("run/samples/final.png"))
    assert image.shape == (8 * 100, 8 * 130, 3)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10
    assert vae("sample", "run=run", "num=20", "npz=true", "save_each=true").code == 0
    array = np.load("run/samples/prior-seed0-num20.npz")["images"]
    assert array.shape == (20, 2, 32)
    assert -5.5 < array.min() < -0.5 < 0.5 < array.max() < 5.5
    assert np.array(Image.open("run/samples/prior-seed0-num20/00000.png")).shape == (100, 130, 3)


def test_the_elbo_of_numbers_is_that_of_the_numbers_in_the_file(vae: Vae) -> None:
    """Twice the numbers have log 2 nats less of density per dimension."""
    elbos = []
    for factor in (1, 2):
        np.save(f"x{factor}.npy", factor * signals())
        vae.train("data=arrays", f"data.path=x{factor}.npy", "batch_size=20", f"out=run{factor}")
        elbos.append([row["elbo"] for row in rows(Path(f"run{factor}")) if row["split"] == "valid"][-1])
    assert elbos[0] - elbos[1] == pytest.approx(64 * np.log(2), abs=1e-2)


@pytest.mark.parametrize("arguments", [
    ["augmentation.flip=true", "augmentation.crop=1", "augmentation.rotation=10"],
    ["corruption.noise=0.2", "corruption.mask=0.3"],
    ["corruption.mask=0.3", "corruption.score=all"],
    ["data.binarize=none", "model/likelihood=gaussian", "preprocessing.dequantize=true", "preprocessing.logit=0.05"],
])  # fmt: skip
def test_what_happens_on_the_way_is_a_setting(vae: Vae, arguments: list[str]) -> None:
    answer = vae.train(*arguments, "out=run")
    assert answer.code == 0, answer.err
    assert vae("eval", "run=run", "k=5").code == 0
    assert vae("sample", "run=run", "num=4").code == 0
    assert vae("reproduce", "run=run").code == 0
    grid = np.array(Image.open("run/reconstructions/final.png"))
    between = 3 if arguments[0].startswith("corruption") else 2
    assert grid.shape[0] == 4 * between * 58 + 2


def test_a_dequantised_run_says_bits_per_dimension(vae: Vae) -> None:
    common = ("data.binarize=none", "model/likelihood=gaussian")
    for name, arguments in (("closed", ()), ("drawn", ("preprocessing.dequantize=true",))):
        assert vae("train", *TINY[1:], *common, *arguments, f"out={name}", "epochs=8").code == 0
    closed, drawn = (rows(Path(name))[-1]["bits_per_dim"] for name in ("closed", "drawn"))
    assert drawn == pytest.approx(closed, abs=0.15)


@pytest.mark.slow
def test_streaming_is_resumed_exactly_within_an_epoch(vae: Vae, tmp_path: Path) -> None:
    np.save("x.npy", np.random.RandomState(0).randint(0, 256, (3000, 8, 8), np.uint8))
    arguments = ["data=arrays", "data.path=x.npy", "loader.storage=host", "loader.workers=1", "batch_size=10"]
    assert vae.train(*arguments, "out=whole", "trainer.log_every=7").code == 0
    process = start("train", *TINY, *arguments, "out=stopped", "trainer.log_every=7", folder=tmp_path)
    while len(list(Path().glob("stopped/metrics.jsonl"))) == 0 or len(rows(Path("stopped"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert vae("train", "resume=stopped").code == 0
    assert rows(Path("stopped")) == rows(Path("whole"))
    waits = [json.loads(line).get("data_wait") for line in Path("whole/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= wait <= 1 for wait in waits if wait is not None)
    assert any(wait for wait in waits)
    assert "in host memory" not in Path("whole/train.log").read_text()
    assert "in a mapped file, prefetched by 1 workers" in Path("whole/train.log").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_worker_that_dies_ends_the_run_with_one_line(tmp_path: Path) -> None:
    np.save("x.npy", np.random.RandomState(0).randint(0, 256, (3000, 8, 8), np.uint8))
    arguments = ["data=arrays", "data.path=x.npy", "loader.storage=host", "loader.workers=1", "batch_size=10"]
    process = start("train", *TINY[1:], *arguments, "epochs=1000", "out=run", "trainer.log_every=7", folder=tmp_path)
    while not Path("run/metrics.jsonl").exists() or len(rows(Path("run"))) < 50:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"could not be read: worker process \d+ was killed by SIGKILL, possibly because memory", err), err
    assert "Traceback" not in err.split("vae train:")[1]


PEAK = """
import sys, threading, time
from vae_train.cli.main import run
peak = 0
def watch():
    global peak
    while True:
        line = next(l for l in open("/proc/self/status") if l.startswith("RssAnon"))
        peak = max(peak, int(line.split()[1]))
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
code = run(sys.argv[1:])
print("peak", peak)
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_a_file_larger_than_its_budget_takes_up_no_memory(tmp_path: Path) -> None:
    shape = (2**33 // (64 * 64 * 3) + 1, 64, 64, 3)
    with Path("large.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + np.prod(shape))  # a sparse file
    assert Path("large.npy").stat().st_size >= 2**33
    arguments = ["data=arrays", "data.path=large.npy", "batch_size=64", "trainer.log_every=5", "out=run", "logger=none",
             "latent_dim=2", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "data.valid=1e-5", "data.test=0",
             "data.levels=256", "epochs=1"]  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", PEAK, "train", *arguments], stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (Path("run/metrics.jsonl").exists() and len(rows(Path("run"))) >= 4):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 130, out
    assert "in a mapped file, prefetched by 2 workers" in out
    assert int(out.split()[-1]) < 2 * 2**20  # KiB
    os.remove("large.npy")


def test_a_run_does_not_go_on_with_other_data(vae: Vae) -> None:
    fill(Path("photos"), 30)
    arguments = ("data=folder", "data.root=photos", "batch_size=8")
    assert vae.train(*arguments, "out=run").code == 0
    fill(Path("photos"), 1, start=30)
    (line,) = vae("train", "resume=run", "epochs=3").errors()
    assert "is not the data that run was trained on; restore it or start a new run" in line
    Path("photos/0030.png").unlink()
    assert vae("train", "resume=run", "epochs=3").code == 0


# vae data


def test_data_shows_what_a_source_holds(vae: Vae) -> None:
    answer = vae("data")
    assert answer.code == 0, answer.err
    assert "digits · 8x8x1 · 17 levels · 1,257 train / 180 valid / 360 test" in answer.out
    facts = json.loads(Path("outputs/data/digits/data.json").read_text())
    assert facts["splits"] == {"train": 1257, "valid": 180, "test": 360}
    assert facts["measured_on"] == 1257
    assert facts["entropy_floor"] is None
    assert {split: sum(counts) for split, counts in facts["class_counts"].items()} == facts["splits"]
    assert len(facts["class_counts"]["test"]) == 10
    for name in ("contact", "mean", "class-means", "histogram", "classes"):
        assert np.array(Image.open(f"outputs/data/digits/{name}.png")).std() > 1
    vae("data", "data.binarize=dynamic")
    assert json.loads(Path("outputs/data/digits-2/data.json").read_text())["entropy_floor"] > 1


def test_data_shows_a_folder_with_its_classes_and_bad_files(vae: Vae) -> None:
    fill(Path("photos"), 40, classes=2)
    damaged(Path("photos/class0"))
    answer = vae("data", "data=folder", "data.root=photos", "data.size=12", "data.max_bad=0.9", "out=there", "num=10")
    assert answer.code == 0, answer.err
    assert "class     2 values: class0, class1" in answer.out
    assert answer.out.count("  bad file  ") == 5
    assert "24 in total; see bad_files.txt" in answer.out
    assert len(Path("there/bad_files.txt").read_text().splitlines()) == 24
    facts = json.loads(Path("there/data.json").read_text())
    assert facts["entropy_floor"] is None
    assert facts["factors"] == [{"name": "class", "size": 2}]


def test_data_shows_signals_and_factors(vae: Vae) -> None:
    np.savez("x.npz", images=signals(), factors=np.indices((20, 10)).reshape(2, -1).T * 3)
    answer = vae("data", "data=arrays", "data.path=x.npz", "num=6")
    assert answer.code == 0, answer.err
    assert "continuous" in answer.out
    assert "factor 0  20 values: 0, 3, 6" in answer.out
    assert "range " in answer.out


def test_data_shows_what_a_model_sees(vae: Vae) -> None:
    for name, arguments in (("plain", ()), ("hidden", ("corruption.mask=0.5", "corruption.patch=4"))):
        assert vae("data", "data=shapes", "data.size=16", "data.num_train=100", f"out={name}", *arguments).code == 0
    plain, hidden = (np.array(Image.open(f"{n}/contact.png")).astype(int) for n in ("plain", "hidden"))
    assert (hidden == 128).mean() > (plain == 128).mean() + 0.2  # what is hidden is grey, which is no value of shapes
    assert np.array_equal(*(np.array(Image.open(f"{n}/mean.png")) for n in ("plain", "hidden")))


def test_data_refuses_what_is_not_there(vae: Vae) -> None:
    (line,) = vae("data", "data=folder", "data.root=nowhere").errors()
    assert "no such folder" in line
    (line,) = vae("data", "data=digit").errors()
    assert "did you mean digits?" in line
    Path("there").mkdir()
    Path("there/notes.txt").touch()
    (line,) = vae("data", "out=there").errors()
    assert "already exists" in line
    assert not Path("outputs").exists()


def test_data_writes_into_an_empty_folder(vae: Vae) -> None:
    Path("there").mkdir()
    assert vae("data", "out=there").code == 0
    assert not Path("there-2").exists()
    assert Path("there/contact.png").exists()


def test_what_images_lose_is_said_once(vae: Vae) -> None:
    fill(Path("images"), 10)
    frames = [Image.new("RGB", (16, 12), color) for color in ("red", "green", "blue")]
    frames[0].save("images/a.tif", save_all=True, append_images=frames[1:])
    answer = vae.train("data=folder", "data.root=images", "batch_size=4", "out=run")
    assert answer.code == 0, answer.err
    assert answer.out.count("a.tif has further frames or pages (2 in total)") == 1
    assert vae("data", "data=folder", "data.root=images", "out=there").out.count("data.frames=all") == 1
    assert "data.frames=all" in json.loads(Path("there/data.json").read_text())["notes"][0]
