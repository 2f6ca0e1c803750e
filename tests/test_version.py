from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import vae_train

ROOT = Path(vae_train.__file__).parents[1]


def python(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | environment).stdout


def test_the_version_is_that_of_the_installed_package():
    assert vae_train.__version__ == version("vae_train")


def test_the_command_line_prints_it():
    line = python("-c", "import sys; sys.argv = ['vae', '--version']; from vae_train.cli.main import main; main()")
    assert line == f"vae_train {vae_train.__version__}\n"


def test_a_checkout_that_is_not_installed_has_the_version_of_pyproject():
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import vae_train; print(vae_train.__version__)"
    assert python("-S", "-c", code) == f"{declared}\n"  # -S: without site-packages


def test_other_attributes_do_not_exist():
    with pytest.raises(AttributeError, match="versions"):
        vae_train.versions  # noqa: B018
