"""The import graph: layers point downward, there are no cycles, and Hydra stays in the command line.

Every import counts: those inside functions and those for type checkers alone, too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import CATALOGUES, PACKAGE, SHARED_FILES

LAYERS = {
    "util": 0,
    "rng": 1,
    "batch": 2,
    "distributions": 2,
    "plotting": 2,
    "model": 3,
    "data": 3,
    "objective": 4,
    "training": 5,
    "evaluation": 5,
    "runs": 6,
    "cli": 7,
    "__init__": 8,
    "__main__": 8,
}
"""A room may import from itself and from lower layers; rooms of one layer do not know each other."""

OWNERS = {"hydra": "cli", "omegaconf": "cli", "matplotlib": "plotting", "zuko": "distributions", "jinja2": "runs"}
OWNERS |= {"optuna": "runs"}
"""Libraries that a single room imports."""


def module_of(path: Path) -> str:
    """vae_train/model/vae.py -> model.vae; a package is its __init__."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that the code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def internal(name: str) -> str | None:
    """The module of this package that an imported name belongs to; None for other packages."""
    top, *parts = name.split(".")
    if top != "vae_train":
        return None
    while parts and ".".join(parts) not in MODULES:
        parts.pop()
    return ".".join(parts) or "__init__"


def graph() -> dict[str, set[str]]:
    """For every module the modules that it imports."""
    trees = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
    return {m: {n for name in imported(tree) if (n := internal(name)) and n != m} for m, tree in trees.items()}


def room(module: str) -> str:
    return module.partition(".")[0]


def layer_errors(module: str, targets: set[str]) -> list[str]:
    """Imports that the layers forbid."""
    found = []
    for target in targets:
        here, there = room(module), room(target)
        if here != there and LAYERS[there] >= LAYERS[here]:
            found.append(f"{module} -> {target}")
        folder, _, name = module.rpartition(".")
        other_folder, _, other = target.rpartition(".")
        siblings = folder == other_folder and folder.replace(".", "/") in CATALOGUES
        if siblings and name not in SHARED_FILES and other not in SHARED_FILES:
            found.append(f"{module} -> {target} (files of a catalogue)")
    return found


def library_errors(module: str, tree: ast.AST) -> list[str]:
    tops = {name.partition(".")[0] for name in imported(tree)}
    return [f"{module} -> {top}" for top in tops if top in OWNERS and OWNERS[top] != room(module)]


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            component = [stack.pop()]
            while component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1:
                found.append(sorted(component))

    for node in edges:
        if node not in index:
            visit(node)
    return found


def test_every_room_has_a_layer():
    assert {room(module) for module in MODULES} <= set(LAYERS)


def test_imports_point_downward():
    assert [error for module, targets in graph().items() for error in layer_errors(module, targets)] == []


def test_there_are_no_cycles():
    assert cycles(graph()) == []


def test_libraries_stay_in_their_rooms():
    trees = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}
    assert [error for module, tree in trees.items() for error in library_errors(module, tree)] == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("rng", "model.base"),
        ("model.vae", "data.dataset"),
        ("data.dataset", "model.base"),
        ("model.likelihood.gaussian", "model.likelihood.bernoulli"),
        ("data.sources.mnist", "data.sources.digits"),
        ("objective.elbo", "training.learner"),
        ("training.trainer", "evaluation.evidence"),
        ("training.learner", "runs.build"),
        ("runs.build", "cli.main"),
    ],
)
def test_forbidden_imports_are_noticed(module, target):
    assert layer_errors(module, {target})


def test_cycles_are_noticed():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == [["b", "c"]]


def test_imports_for_type_checkers_and_inside_functions_count():
    code = "if TYPE_CHECKING:\n    from vae_train.runs import run\ndef f():\n    import hydra"
    assert list(imported(ast.parse(code))) == ["vae_train.runs.run", "hydra"]
    assert library_errors("runs.run", ast.parse(code)) == ["runs.run -> hydra"]


def test_the_command_line_starts_without_torch():
    modules = ["vae_train", "vae_train.cli.main", "vae_train.cli.hydra_compat"]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
