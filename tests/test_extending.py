"""docs/extending.md: the files that it shows are written to a folder, and its commands are run there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PACKAGE

PAGE = (PACKAGE.parent / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = re.findall(r"^vae (\w+ .*)$", PAGE, re.M)
SHOWN = re.search(r"^\$ vae (.*)\n((?:.+\n)+)```$", PAGE, re.M)


def vae(root: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs `vae` in a folder, which Python itself does not search for modules, as where `vae` is installed."""
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "import sys; sys.path.pop(0); import vae_train.__main__", *words]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, in which its commands have been run."""
    root = tmp_path_factory.mktemp("extending")
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    for name in ("torch.py", "random.py", "numpy.py"):  # files beside the package replace no module
        (root / name).write_text("raise SystemExit(3)\n")
    for command in COMMANDS:
        done = vae(root, command.split())
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def test_the_page_shows_two_files_for_each_addition():
    assert len(FILES) == 10
    assert {Path(name).parts[0] for name in FILES} == {"mine", "yaml"}


def test_every_part_of_the_page_is_used(folder):
    config = (folder / "run" / "config.yaml").read_text()
    for module in ("student.Student", "sech.Sech", "stripes.Stripes", "lines.Lines"):
        assert f"mine.{module}" in config


def test_the_logger_has_written_a_line_per_validation(folder):
    assert re.fullmatch(r"(epoch \d: ELBO -?[\d.]+ nats\n){2}", (folder / "run" / "lines.txt").read_text())


def test_the_metric_is_in_the_report(folder):
    report = json.loads((folder / "run" / "eval" / "test.json").read_text())
    assert 0 <= report["sharpness"]["value"] < 2
    assert "sharpness of reconstructions" in (folder / "run" / "eval" / "test.md").read_text()


@pytest.mark.slow
def test_a_later_command_says_what_to_add(folder):
    typed, answer = SHOWN.groups()
    done = vae(folder, typed.split())
    assert (done.returncode, done.stderr) == (2, answer)
    program, *words = shlex.split(done.stderr.strip().rpartition("add allow=mine: ")[2])
    assert program == "vae"
    assert vae(folder, words).returncode == 0


@pytest.mark.slow
def test_a_misspelt_setting_of_an_addition_is_an_error(folder):
    done = vae(folder, ["train", "--config-dir", "yaml", "allow=mine", "model/prior=student", "model.prior.dff=3"])
    assert done.returncode == 2
    assert "did you mean model.prior.df?" in done.stderr


def test_the_table_counts_the_lines():
    rows = re.findall(r"^\| (\w[\w, ]*) \| (\d+) \| (\d+) \| 2 \|$", PAGE, re.M)
    python = sorted(len(text.splitlines()) for name, text in FILES.items() if name.endswith(".py"))
    yaml = sorted(len(text.splitlines()) for name, text in FILES.items() if name.endswith(".yaml"))
    assert sorted(int(row[1]) for row in rows) == python
    assert sorted(int(row[2]) for row in rows) == yaml
