"""Weights & Biases, Trackio and MLflow: what arrives there, and when nothing does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.commandline import BRIEF, TINY, Vae
from tests.trackers import installed
from vae_train.training.loggers.tracker import Tracker

NETS = TINY[:-1]
KINDS = ("wandb", "trackio", "mlflow")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    with installed(tmp_path / "packages", monkeypatch) as packages:
        yield packages


def metrics(module: ModuleType) -> list[tuple[int, str, float]]:
    """What the runs of a stand-in got, as (step, name, value)."""
    if module.__name__ == "mlflow":
        return [row for run in module.runs for row in run.rows]
    rows = [(step, *item) for run in module.runs for step, values in run.rows for item in values.items()]
    return [row for row in rows if isinstance(row[2], float)]


def images(module: ModuleType) -> set[str]:
    if module.__name__ == "mlflow":
        return {name for run in module.runs for _, name, _ in run.images}
    values = [values for run in module.runs for _, values in run.rows]
    return {name for each in values for name, value in each.items() if isinstance(value, module.Image)}


def saved(run: str) -> list[tuple[int, str, float]]:
    """The rows of metrics.jsonl as (step, split/name, value)."""
    rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    prefixes = ["train_steps" if row["scope"] == "step" else row["split"] for row in rows]
    return [
        (row["step"], f"{prefix}/{name}", value)
        for row, prefix in zip(rows, prefixes, strict=True)
        for name, value in row.items()
        if isinstance(value, float)
    ]


@pytest.fixture(scope="module")
def _tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, ModuleType]]]:
    from vae_train.cli.main import run

    folder = tmp_path_factory.mktemp("tracked")
    words = ("trainer.log_every=5", "trainer.sample_every=1", "beta=0.5", "out=run", "logger.wandb.tags=[first]")
    with pytest.MonkeyPatch.context() as patch, installed(folder / "packages", patch) as packages:
        patch.setenv("XDG_CACHE_HOME", str(folder / "home"))
        patch.delenv("WANDB_MODE", raising=False)
        patch.chdir(folder)
        assert run(["train", *NETS, *words, "logger=[tensorboard,wandb,trackio,mlflow]"]) == 0
        yield folder, packages


@pytest.fixture
def tracked(_tracked: tuple[Path, dict[str, ModuleType]], tmp_path: Path) -> Iterator[dict[str, ModuleType]]:
    """The stand-ins after a run of two epochs, in the folder `run`, with all of them."""
    folder, packages = _tracked
    for name in ("run", "home"):
        shutil.copytree(folder / name, tmp_path / name)
    before = {kind: deepcopy(module.runs) for kind, module in packages.items()}
    yield packages
    for kind, module in packages.items():
        module.runs = before[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_gets_the_metrics_of_the_files(tracked: dict[str, ModuleType], kind: str) -> None:
    rows = metrics(tracked[kind])
    best = [row for row in rows if row[1].startswith("best/")]
    assert [row for row in rows if row not in best] == saved("run")
    assert {"train/elbo", "valid/rate", "valid/bits_per_dim", "train_steps/loss"} <= {name for _, name, _ in rows}
    assert {f"best/{name}" for name in ("elbo", "rate", "distortion")} <= {name for _, name, _ in best}
    assert {"images/samples", "images/reconstructions", "images/manifold"} == images(tracked[kind])
    assert Path("run/tb/valid").is_dir()


def test_a_tracker_gets_name_group_and_settings(tracked: dict[str, ModuleType]) -> None:
    number = json.loads(Path("run/tracker.json").read_text())["id"]
    ((wandb,), (trackio,), (mlflow,)) = (tracked[kind].runs for kind in KINDS)
    for run in (wandb, trackio):
        assert run.arguments["config"] | {"beta": 0.5, "objective": "ELBO", "model": "VAE"} == run.arguments["config"]
        assert (run.arguments["project"], run.arguments["group"], len(run.finished)) == ("vae_train", None, 1)
    assert {"id": number, "name": "run", "tags": ["first"], "dir": "run"}.items() <= wandb.arguments.items()
    assert (wandb.axis, wandb.finished) == (("*", "step"), [{"exit_code": 0}])
    assert trackio.arguments["name"] == f"run-{number}"
    assert (mlflow.info.experiment, mlflow.info.name, mlflow.info.status) == ("vae_train", "run", "FINISHED")
    assert mlflow.params["beta"] == "0.5"


def test_resume_and_eval_go_on_with_the_same_run(vae: Vae, tracked: dict[str, ModuleType]) -> None:
    assert vae("eval", "run=run", *BRIEF).code == 0
    assert vae("train", "resume=run", "epochs=3").code == 0
    for module in tracked.values():
        rows = metrics(module)
        assert {"best/test/elbo", "best/test/nll"} <= {name for _, name, _ in rows}
        assert [row for row in rows if not row[1].startswith("best/")] == saved("run")
    assert len(tracked["mlflow"].runs) == 1
    for kind, name in (("wandb", "id"), ("trackio", "name")):
        arguments = [run.arguments for run in tracked[kind].runs]
        assert [each["resume"] for each in arguments] == ["allow", "must", "allow"]
        assert len({each[name] for each in arguments}) == 1


@pytest.mark.slow
def test_jobs_of_a_sweep_are_a_group(vae: Vae, modules: dict[str, ModuleType]) -> None:
    assert vae("train", *NETS, "-m", "logger=wandb", "beta=1,2", "sweep=pair").code == 0
    arguments = [run.arguments for run in modules["wandb"].runs]
    assert [(each["group"], each["name"]) for each in arguments] == [("pair", "0-beta=1"), ("pair", "1-beta=2")]
    assert vae("train", *NETS, "-m", "logger=[tensorboard,mlflow],none", "sweep=loggers").code == 0
    assert [run.tags["group"] for run in modules["mlflow"].runs] == ["loggers"]


def test_a_failing_tracker_does_not_end_the_run(vae: Vae, modules: dict[str, ModuleType]) -> None:
    modules["wandb"].down = "https://me:secret@example.org/ refused"
    answer = vae("train", *NETS, "logger=[wandb,trackio]", "out=run")
    assert answer.code == 0
    text = answer.out + answer.err
    assert text.count("logger.wandb failed; continuing without it: https://example.org/ refused") == 1
    assert "secret" not in text + Path("run/train.log").read_text()
    assert saved("run") == [row for row in metrics(modules["trackio"]) if not row[1].startswith("best/")]


def test_an_interrupted_run_is_not_a_finished_one(vae: Vae, modules: dict[str, ModuleType]) -> None:
    answer = vae("train", *NETS, "logger=[wandb,mlflow]", "lr=1e8", "optimizer=sgd", "out=run")
    assert answer.code == 1
    assert modules["wandb"].runs[0].finished == [{"exit_code": 1}]
    assert modules["mlflow"].runs[0].info.status == "KILLED"


def test_missing_packages_are_errors_before_anything_is_written(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in KINDS:
        monkeypatch.setitem(sys.modules, kind, None)
    lines = vae("train", *NETS, "logger=[wandb,trackio,mlflow]", "beta=-1", "out=run").errors()
    assert len(lines) == 1  # values first
    lines = vae("train", *NETS, "logger=[wandb,trackio,mlflow]", "out=run").errors()
    for kind, line in zip(KINDS, lines, strict=True):
        assert f"logger={kind} " in line
        assert f"needs the package {kind}; pip install {kind}" in line
    assert not Path("run").exists()


def test_a_folder_named_like_a_package_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Empty(Tracker):
        package = "no_package_but_a_folder"

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / Empty.package).mkdir()
    assert "needs the package" in str(Empty(tmp_path, 0, "vae_train", None, None).error())


def test_nobody_is_logged_in(vae: Vae, modules: dict[str, ModuleType]) -> None:
    modules["wandb"].login_error = modules["wandb"].UsageError("no key")
    (line,) = vae("train", *NETS, "logger=wandb", "out=run").errors()
    assert "is not logged in; wandb login, or logger.wandb.mode=offline" in line
    assert vae("train", *NETS, "logger=wandb", "logger.wandb.mode=offline", "out=run").code == 0
    assert modules["wandb"].runs[0].arguments["mode"] == "offline"
    modules["wandb"].login_error = modules["wandb"].Error("no network")
    assert vae("train", *NETS, "logger=wandb", "out=unchecked").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("logger=[tensorboard,wandbb]",), "no such logger; did you mean wandb?"),
        (("logger=[]",), "cannot be empty; choose from mlflow, none, tensorboard, trackio, wandb"),
        (("logger.wandb.project=x",), "no such setting; add logger=wandb"),
        (("logger=wandb", "logger.project=x"), "did you mean logger.wandb.project?"),
        (("logger=wandb", "logger.wandb.mode=on"), "must be one of online, offline, disabled"),
        (("logger=mlflow", "logger.mlflow.project=null"), "is null, expected"),
        (("logger=wandb", "+logger.wandb.base_url=x"), "has no such parameter"),
    ],
)
@pytest.mark.usefixtures("modules")
def test_misspelt_loggers(vae: Vae, words: tuple[str, ...], message: str) -> None:
    (line,) = vae("train", *NETS, *words).errors()
    assert message in line


def test_a_logger_of_ones_own_says_what_it_is_called(vae: Vae) -> None:
    Path("yaml/logger").mkdir(parents=True)
    Path("yaml/logger/base.yaml").write_text("_target_: vae_train.training.loggers.base.Logger\n")
    words = ("train", *NETS, "--config-dir", "yaml", "logger=[tensorboard,base]")
    (line,) = vae(*words, "out=run").errors()
    assert "logger=base  its YAML file needs the first line: # @package logger.base" in line
    text = Path("yaml/logger/base.yaml").read_text()
    Path("yaml/logger/base.yaml").write_text(f"# @package logger.base\n{text}")
    assert vae(*words, "out=run").code == 0
    assert list(yaml.safe_load(Path("run/config.yaml").read_text())["logger"]) == ["tensorboard", "base"]


def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the run `run` is one of somebody else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(Path("another").absolute()))


@pytest.mark.parametrize(
    "words",
    [("eval", "run=run", *BRIEF), ("train", "resume=run", "epochs=3"), ("reproduce", "run=run"), ("sample", "run=run")],
    ids=lambda words: words[0],
)
def test_a_run_of_somebody_else_sends_nothing(
    vae: Vae, tracked: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    foreign(monkeypatch)
    before = {kind: metrics(tracked[kind]) for kind in KINDS}
    answer = vae(*words)
    assert answer.code == 0, answer.err
    assert {kind: metrics(tracked[kind]) for kind in KINDS} == before
    assert [len(tracked[kind].runs) for kind in KINDS] == [1, 1, 1]
    lines = [line for line in answer.out.splitlines() if "not used, since this run was not started here" in line]
    assert len(lines) == (3 if words[0] in ("eval", "train") else 0)


def test_allow_sends_a_run_of_somebody_else(
    vae: Vae, tracked: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(monkeypatch)
    assert vae("eval", "run=run", *BRIEF, "allow=wandb").code == 0
    assert [len(tracked[kind].runs) for kind in KINDS] == [2, 1, 1]
    assert vae("train", "resume=run", "epochs=3", "allow=trackio").code == 0
    assert [len(tracked[kind].runs) for kind in KINDS] == [2, 2, 1]
    assert vae("eval", "run=run", *BRIEF).code == 0  # it was trained here, and sent to Trackio alone
    assert [len(tracked[kind].runs) for kind in KINDS] == [2, 3, 1]


@pytest.mark.parametrize(
    ("before", "after"),
    [("entity: null", "entity: stranger"), ("mode: null", "mode: online")],
)
def test_a_tracker_whose_settings_changed_gets_nothing(
    vae: Vae, tracked: dict[str, ModuleType], before: str, after: str
) -> None:
    text = Path("run/config.yaml").read_text()
    assert before in text
    Path("run/config.yaml").write_text(text.replace(before, after, 1))
    assert vae("eval", "run=run", *BRIEF).code == 0
    assert [len(tracked[kind].runs) for kind in KINDS] == [1, 2, 1]


@pytest.mark.parametrize("number", ["' or tags.a = 'b", 3])
def test_an_id_that_is_none_is_not_used(vae: Vae, tracked: dict[str, ModuleType], number: object) -> None:
    Path("run/tracker.json").write_text(json.dumps({"id": number}))
    assert vae("eval", "run=run", *BRIEF, "allow=mlflow").code == 0
    assert [len(tracked[kind].runs) for kind in KINDS] == [1, 1, 1]


@pytest.mark.parametrize("line", ["tracking_uri: http://a.b", "settings: {base_url: http://a.b}", "space_id: a/b"])
def test_a_run_names_no_host(vae: Vae, tracked: dict[str, ModuleType], line: str) -> None:
    text = Path("run/config.yaml").read_text()
    for kind in KINDS:
        Path("run/config.yaml").write_text(text.replace(f"  {kind}:\n", f"  {kind}:\n    {line}\n"))
        (error,) = vae("eval", "run=run", *BRIEF, f"allow={kind}").errors()
        assert "has no such parameter" in error


def test_a_run_whose_logger_has_no_name_is_opened(vae: Vae, trained: Path) -> None:
    text = (trained / "config.yaml").read_text()
    target = "vae_train.training.loggers.tensorboard.TensorBoard"
    assert "logger: {}" in text
    (trained / "config.yaml").write_text(text.replace("logger: {}", f"logger:\n  _target_: {target}\n  flush_secs: 10"))
    assert vae("eval", f"run={trained}", *BRIEF).code == 0
    assert (trained / "tb/best/test").is_dir()
    assert vae("reproduce", f"run={trained}").code == 0


STORES = {
    "wandb": lambda folder: b"".join(path.read_bytes() for path in sorted(folder.glob("run/wandb/*/*.wandb"))),
    "trackio": lambda folder: b"".join(path.read_bytes() for path in sorted(folder.glob("store/*.db*"))),
    "mlflow": lambda folder: (folder / "mlflow.db").read_bytes(),
}
"""What a tracker wrote on this computer."""

NAMES = (b"valid/elbo", b"train/rate", b"best/elbo", b"best/test/elbo")
CONTENTS = {"wandb": (*NAMES, b"images/samples"), "trackio": (*NAMES, b"images/samples"), "mlflow": NAMES}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_real_package_without_a_network(tmp_path: Path, kind: str) -> None:
    if not any(distributions(name=kind)):  # the stand-ins of other tests may still be imported
        pytest.skip(f"needs {kind}")
    environment = {
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": str(tmp_path / "store"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "HOME": str(tmp_path),
    }
    for words in (
        ("train", *NETS, f"logger=[tensorboard,{kind}]", "out=run", "trainer.sample_every=1"),
        ("train", "resume=run", "epochs=3"),
        ("eval", "run=run", *BRIEF),
    ):
        command = [sys.executable, "-m", "vae_train", *words]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f"logger.{kind}" not in done.stdout, done.stdout
    for text in CONTENTS[kind]:
        assert text in STORES[kind](tmp_path)
