"""Who may import what: section 3 of the architecture."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import CATALOGUES, PACKAGE, SHARED_FILES

LAYERS = {
    **dict.fromkeys(
        ("draws", "distributions", "divergences", "flows", "schedules", "errors", "ranges", "hardware", "words"), 0
    ),
    **dict.fromkeys(("bounds", "aggregate", "discrepancies", "critics"), 0),
    "model": 1,
    "data": 1,
    "objective": 2,
    "training": 3,
    "evaluation": 3,
}
INTERFACES = ("base", "trace", "family")
FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))


def imported(tree: ast.AST, *, nested: bool = True) -> list[str]:
    """Dotted names that the code imports, but for those that only type checkers see."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif nested or not isinstance(node, ast.FunctionDef):
            found += imported(node, nested=nested)
    return found


def within(name: str) -> list[str]:
    """["model", "base"] for vae_train.model.base.Prior; [] for the package's own names."""
    parts = name.split(".")[1:]
    while parts and not PACKAGE.joinpath(*parts).is_dir() and not PACKAGE.joinpath(*parts).with_suffix(".py").exists():
        parts.pop()
    return parts


def violations(file: str, tree: ast.AST) -> list[str]:
    """Imports of a file that the layers forbid."""
    here = file.removesuffix(".py").split("/")
    layer = LAYERS.get(here[0], 4)
    return [name for name in imported(tree) if not _allowed(here, layer, name)]


def _allowed(here: list[str], layer: int, name: str) -> bool:
    top = name.split(".")[0]
    if top != "vae_train":
        allowed_below = top in (*sys.stdlib_module_names, "torch") or (top == "zuko" and here == ["flows"])
        return allowed_below if layer == 0 else layer == 4 or top not in ("hydra", "omegaconf")
    there = within(name)
    other = LAYERS.get(there[0], 4) if there else 4
    folder = "/".join(here[:-1])
    if folder in CATALOGUES and there[:-1] == here[:-1] and here[-1] not in SHARED_FILES:
        return there[-1] in (*SHARED_FILES, here[-1])
    if layer == 4 or other == 0:
        return True
    if there[:1] == here[:1]:
        return True
    downward = {2: there[:1] == ["model"], 3: other in (1, 2)}.get(layer, False)
    return bool(there) and there[-1] in INTERFACES and downward


@pytest.mark.parametrize("file", FILES)
def test_imports_go_downward_only(file):
    assert violations(file, ast.parse((PACKAGE / file).read_text())) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("draws.py", "import numpy"),
        ("schedules.py", "from vae_train.config import build"),
        ("model/vae.py", "from vae_train.data.base import Batch"),
        ("model/vae.py", "def f():\n    from vae_train.objective.base import Objective"),
        ("model/likelihood/gaussian.py", "from vae_train.model.likelihood.bernoulli import Bernoulli"),
        ("data/mnist.py", "from vae_train.data import digits"),
        ("data/base.py", "import omegaconf"),
        ("objective/elbo.py", "from vae_train.model.vae import VAE"),
        ("training/trainer.py", "from vae_train.evaluation.evidence import evidence"),
        ("training/trainer.py", "from vae_train.data.digits import Digits"),
        ("evaluation/evidence.py", "from vae_train import load"),
        ("training/learner.py", "from hydra import compose"),
    ],
)
def test_forbidden_imports_are_seen(file, line):
    assert violations(file, ast.parse(line)) != []


@pytest.mark.parametrize("file", [f for f in FILES if f.startswith("commands/") or f == "cli.py"])
def test_commands_import_no_torch_at_module_level(file):
    names = imported(ast.parse((PACKAGE / file).read_text()), nested=False)
    assert [name for name in names if name.split(".")[0] in ("torch", "torchvision")] == []


def test_importing_every_command_loads_no_torch():
    modules = ["vae_train.cli", *(f"vae_train.commands.{Path(f).stem}" for f in FILES if f.startswith("commands/"))]
    code = f"import sys, {', '.join(m for m in modules if '__' not in m)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
