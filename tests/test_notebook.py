"""The notebook of docs/ runs, and shows the results of its own cells."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import PACKAGE

NOTEBOOK = PACKAGE.parent / "docs" / "notebook.ipynb"


def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]


def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for cell in cells():
        source = "".join(cell["source"]).replace("latent_dim=8", "latent_dim=8, steps=20")
        *statements, last = ast.parse(source).body
        exec(compile(ast.Module(statements, []), "cell", "exec"), namespace)
        kinds = {output["output_type"] for output in cell["outputs"]}
        if isinstance(last, ast.Expr):
            result = eval(compile(ast.Expression(last.value), "cell", "eval"), namespace)
            assert (result is not None) == ("execute_result" in kinds), source
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), namespace)
        assert "error" not in kinds


def test_results_are_stored_in_order() -> None:
    assert [cell["execution_count"] for cell in cells()] == list(range(1, len(cells()) + 1))
    assert all(cell["outputs"] for cell in cells())
