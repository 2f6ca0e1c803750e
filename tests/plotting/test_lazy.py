"""matplotlib is imported late, and by one thread at a time: image grids are plotted in the background."""

from __future__ import annotations

import ast

from tests.support import PACKAGE


def first_call_and_import(function: ast.FunctionDef) -> tuple[int | None, int | None]:
    """Lines of the first call of `load_matplotlib` and of the first import of matplotlib in a function."""
    nodes = list(ast.walk(function))
    calls = [n.lineno for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "load_matplotlib"]
    imports = [n.lineno for n in nodes if isinstance(n, ast.ImportFrom) and str(n.module).startswith("matplotlib")]
    return min(calls, default=None), min(imports, default=None)


def test_every_function_that_imports_matplotlib_loads_it_first():
    trees = {path.name: ast.parse(path.read_text()) for path in (PACKAGE / "plotting").glob("*.py")}
    functions = [(file, n) for file, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    found = {f"{file}:{function.name}": first_call_and_import(function) for file, function in functions}
    late = {name: (call, line) for name, (call, line) in found.items() if line is not None}
    assert late
    assert {name for name, (call, line) in late.items() if call is None or call > line} == set()
