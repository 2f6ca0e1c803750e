"""What the shell offers to complete a command line with."""

import os
from pathlib import Path

import pytest

from tests.commandline import Vae


@pytest.fixture
def offered(vae: Vae, monkeypatch: pytest.MonkeyPatch):
    def complete(line: str, after: str = "") -> list[str]:
        monkeypatch.setenv("COMP_LINE", line + after)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        return vae("-sc", "query=bash").out.split()

    return complete


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("vae tr", ["train"]),
        ("vae foo x", []),
        ("vae train data=m", ["data=mnist"]),
        ("vae train lat", ["latent_dim=", "latent_shape="]),
        ("vae train obj", ["objective.", "objective/beta_schedule=", "objective="]),
        ("vae train trainer.eval", ["trainer.eval_batch_size=", "trainer.eval_every="]),
        ("vae train model=conv model.decoder.up", ["model.decoder.upsample="]),
        ("vae train model.decoder.up", []),
        ("vae train plan=", ["plan=false", "plan=true"]),
        ("vae train device=c", ["device=cpu", "device=cuda", "device=cuda:0"]),
        ("vae train --c", ["--cfg", "--config-dir"]),
        ("vae fit-prior prior=", [f"prior={name}" for name in ("autoregressive", "flow", "gmm", "kde", "pixelcnn")]),
        ("vae eval split=", ["split=train", "split=valid", "split=test"]),
        ("vae sample show=pr", ["show=prior", "show=progress"]),
        ("vae sample show=prior,tr", ["show=prior,traverse"]),
        ("vae sample num=", []),
        ("vae export format=onnx,p", ["format=onnx,pt2"]),
        ("vae eval beta", []),
        ("vae", []),
        ("", []),
    ],
)
def test_names_and_choices(offered, line, answer):
    assert sorted(offered(line)) == sorted(answer)


def test_all_commands_come_first(offered):
    assert {"train", "eval", "sample", "report"} <= set(offered("vae "))


def test_what_stands_after_the_cursor_does_not_matter(offered):
    assert offered("vae train data=mn", "zzz beta=3") == ["data=mnist"]


def test_runs_are_offered_by_their_path(offered):
    for number, name in enumerate(("2026-01-01/a", "2026-01-02/b", "sweeps/s/0")):
        path = Path("outputs") / name / "config.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("")
        os.utime(path, (number, number))
    runs = {"run=outputs/2026-01-01/a", "run=outputs/2026-01-02/b", "run=outputs/sweeps/s/0"}
    assert set(offered("vae eval run=")) == {"run=last", "run=outputs/", *runs}
    assert offered("vae eval run=outputs/2026-01-02") == ["run=outputs/2026-01-02/", "run=outputs/2026-01-02/b"]
    assert "resume=last" in offered("vae train resume=l")


def test_sweeps_are_offered_by_their_name(offered):
    for name in ("first", "second"):
        (Path("outputs/sweeps") / name).mkdir(parents=True)
        (Path("outputs/sweeps") / name / "sweep.json").write_text("")
    (Path("outputs/sweeps/other")).mkdir()
    assert set(offered("vae sweep sweep=")) == {"sweep=first", "sweep=second"}
    assert offered("vae train -m sweep=f") == ["sweep=first"]


def test_files_are_offered_for_settings_that_are_files(offered, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "x[1].npy").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert offered("vae train data=folder data.root=ph") == ["data.root=photos/"]
    assert offered("vae train data=arrays data.path=x[") == ["data.path=x[1].npy"]
    assert offered("vae train data.root=~/ph") == ["data.root=~/photos/"]


def test_a_further_folder_of_yaml_files_counts(offered, tmp_path):
    (tmp_path / "mine/data").mkdir(parents=True)
    (tmp_path / "mine/data/moons.yaml").write_text("# Two moons.\n_target_: mine.Moons\n")
    assert offered("vae train --config-dir mine data=mo") == ["data=moons"]
