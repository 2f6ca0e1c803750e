"""Components from a package in the current folder: what makes it importable, and what commands say without it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commandline import BRIEF, TINY, Vae
from vae_train import load
from vae_train.runs.packages import make_importable
from vae_train.util.errors import UsageError

PRIOR = """
import torch
from vae_train.distributions.normal import Normal
from vae_train.model.base import Prior

class {name}(Prior):
    def __init__(self, event_shape, data_shape, scale: float):
        super().__init__(event_shape, data_shape)
        self.scale = scale

    def forward(self, encode):
        zero = torch.zeros(self.event_shape)
        return Normal(zero, zero + torch.tensor(self.scale).log())
"""

WORDS = ("--config-dir", "mine", "model/prior=wide")


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("minepkg", "other")]:
        del sys.modules[name]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package in the current folder, with a YAML file for its prior."""
    folder = tmp_path / "minepkg"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "wide.py").write_text(PRIOR.format(name="Wide"))
    (tmp_path / "mine" / "model" / "prior").mkdir(parents=True)
    text = "# A wide prior.\n_target_: minepkg.wide.Wide\n_partial_: true\nscale: 2.0\n"
    (tmp_path / "mine" / "model" / "prior" / "wide.yaml").write_text(text)
    return folder


@pytest.fixture
def run(package: Path, vae: Vae) -> str:
    answer = vae.train(*WORDS, "allow=minepkg", "out=my run")
    assert answer.code == 0, answer.err
    return "my run"


def suggestion(vae: Vae, *arguments: str) -> list[str]:
    """The command at the end of the only error of a command line."""
    (line,) = vae(*arguments).errors()
    assert "if you trust the package minepkg" in line
    program, *suggested = shlex.split(line.partition(", add allow=minepkg: ")[2])
    assert program == "vae"
    return suggested


def test_a_package_in_the_current_folder_is_found(vae: Vae, package: Path) -> None:
    suggested = suggestion(vae, "train", *TINY, *WORDS, "out=run")
    assert suggested == ["train", *TINY, *WORDS, "out=run", "allow=minepkg"]
    assert vae(*suggested).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("eval", *BRIEF),
        ("sample", "num=2"),
        ("report", "examples=0"),
        ("fit-prior", "prior=gmm", "prior.components=2"),
        ("reproduce", "out=again"),
        ("train", "epochs=3"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_later_commands_say_what_to_type(vae: Vae, run: str, arguments: tuple[str, ...]) -> None:
    command, *others = arguments
    suggested = suggestion(vae, command, f"{'resume' if command == 'train' else 'run'}={run}", *others)
    answer = vae(*suggested)
    assert answer.code == 0, answer.err
    for named in re.findall(r"vae (\w+ (?:run|resume)=.*?)(?: · |, |$)", answer.out, re.M):
        assert "allow=minepkg" in shlex.split(named)


def test_several_runs_are_one_error(vae: Vae, run: str) -> None:
    assert vae.train(*WORDS, "allow=minepkg", "out=other").code == 0
    suggested = suggestion(vae, "eval", f"run=[{run},other]", *BRIEF)
    assert vae(*suggested).code == 0


def test_a_sweep_trains_every_job(vae: Vae, package: Path) -> None:
    answer = vae("train", "-m", *TINY, *WORDS, "allow=minepkg", "model.prior.scale=1.0,2.0", "sweep=s")
    assert answer.code == 0, answer.err
    *_, page = re.findall(r"vae (report .*)$", answer.out, re.M)
    assert shlex.split(page) == ["report", "run=outputs/sweeps/s", "allow=minepkg"]
    assert "allow=minepkg" in vae("report", "run=outputs/sweeps/s").err


def test_python_says_what_to_pass(run: str) -> None:
    with pytest.raises(UsageError, match=r"if you trust it: vae_train\.load") as caught:
        load(run)
    call = str(caught.value).partition("trust it: ")[2]
    model = eval(call, {"vae_train": sys.modules["vae_train"]})
    assert model.sample(2).shape == (2, 1, 8, 8)


def test_two_packages_are_allowed_as_a_list(vae: Vae, package: Path) -> None:
    Path("other.py").write_text(PRIOR.format(name="Other").replace("Prior):", "Prior):  # another"))
    changed = "model.prior._target_=other.Other"
    assert vae.train(*WORDS, "allow=[minepkg,other]", changed, "out=run").code == 0
    suggested = suggestion_of(vae, "eval", "run=run", "allow=minepkg", *BRIEF)
    assert suggested == ["eval", "run=run", *BRIEF, "allow=[minepkg,other]"]
    assert vae(*suggested).code == 0


def suggestion_of(vae: Vae, *arguments: str) -> list[str]:
    (line,) = vae(*arguments).errors()
    return shlex.split(line.rpartition(": vae ")[2])


def test_a_package_that_does_not_exist_is_one_line(vae: Vae, package: Path, tmp_path: Path) -> None:
    (line,) = vae.train(*WORDS, "allow=minepgk").errors()
    assert line.strip().startswith("allow=minepgk")
    assert f"is not installed, and {tmp_path} has no folder minepgk" in line


def test_an_error_in_the_package_is_one_line(vae: Vae, package: Path) -> None:
    (package / "wide.py").write_text("class Wide(:\n")
    (line,) = vae.train(*WORDS, "allow=minepkg").errors()
    assert "minepkg.wide" in line
    assert "SyntaxError" in line


@pytest.mark.parametrize("target", ["subprocess.Popen", "torch.nn.Linear", "vae_train.cli.main.run", "builtins.eval"])
def test_no_message_suggests_to_allow_what_is_no_component(vae: Vae, trained: Path, target: str) -> None:
    config = trained / "config.yaml"
    config.write_text(config.read_text().replace("vae_train.model.vae.VAE", target))
    (line,) = vae("eval", f"run={trained}").errors()
    assert f"{target} is not a component of vae_train" in line
    assert "allow=" not in line


def test_the_current_folder_is_searched_last_and_only_for_a_package_in_it(package: Path, tmp_path: Path) -> None:
    before = list(sys.path)
    make_importable(["yaml"])
    assert sys.path == before
    make_importable(["minepkg", "minepkg.wide"])
    assert sys.path == [*before, str(tmp_path)]


def test_an_installed_package_is_not_replaced(tmp_path: Path) -> None:
    before = list(sys.path)
    for name in ("yaml.py", "torch.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit(3)\n")
    make_importable(["yaml", "torch", "random"])
    assert sys.path == before
