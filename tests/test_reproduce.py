"""`scripts/reproduce`: what it trains, resumes, evaluates and leaves alone."""

from __future__ import annotations

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from tests.support import choices

SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    loader = SourceFileLoader("reproduce", str(SCRIPT))
    spec = spec_from_loader("reproduce", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return module


class Commands:
    """Replaces `vae`: records the commands and writes the files that they would write."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, *arguments: str) -> None:
        self.lines.append(" ".join(arguments))
        settings = dict(argument.split("=", 1) for argument in arguments[1:])
        run = Path(settings.get("out") or settings.get("resume") or settings["run"])
        if arguments[0] == "eval":
            (run / "eval").mkdir()
            (run / "eval" / "test.json").write_text(json.dumps({"nll": {"value": 90.0, "num_samples": 5000}}))
        else:
            run.mkdir(parents=True, exist_ok=True)
            (run / "config.yaml").write_text("")
            (run / "summary.json").write_text(json.dumps({"status": "done"}))


def test_every_target_is_an_experiment(script: ModuleType) -> None:
    assert set(script.TARGETS) <= set(choices("experiment"))


def test_an_experiment_is_trained_evaluated_and_then_left_alone(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = Commands()
    monkeypatch.setattr(script, "vae", vae)
    assert script.reproduce("burda2016_k1", 3, ["threads=1"]) == 90.0
    run = "outputs/reproduce/burda2016_k1-seed3"
    train = f"train experiment=burda2016_k1 seed=3 out={run} threads=1"
    assert vae.lines == [train, f"eval run={run} k=5000 latents=true"]
    assert script.reproduce("burda2016_k1", 3, ["threads=1"]) == 90.0
    assert len(vae.lines) == 2


@pytest.mark.parametrize("summary", [None, {"status": "stopped"}, {"status": "failed"}])
def test_an_interrupted_run_is_resumed(script: ModuleType, monkeypatch: pytest.MonkeyPatch, summary: object) -> None:
    vae, run = Commands(), Path("outputs/reproduce/burda2016_k1-seed0")
    monkeypatch.setattr(script, "vae", vae)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("")
    if summary:
        (run / "summary.json").write_text(json.dumps(summary))
    script.reproduce("burda2016_k1", 0, [])
    assert vae.lines[0] == f"train resume={run}"


def test_an_estimate_with_fewer_samples_does_not_count(script: ModuleType) -> None:
    run = Path("run")
    (run / "eval").mkdir(parents=True)
    (run / "eval" / "test.json").write_text(json.dumps({"nll": {"value": 90.0, "num_samples": 500}}))
    assert script.negative_log_likelihood(run) is None


def test_the_table_has_means_over_seeds_beside_the_published_values(script: ModuleType) -> None:
    table = script.table({"burda2016_k1": {0: 86.0, 1: 87.0}, "tomczak2018_vamp": {0: 82.5}})
    _, _, first, second = table.splitlines()
    assert "| 0, 1 | 86.50 ± 0.71 (sd) | 86.76" in first
    assert first.endswith("| -0.26 |")
    assert "| 0 | 82.50 | 82.43" in second


def test_an_unknown_experiment_is_a_usage_error(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["reproduce", "burda"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
