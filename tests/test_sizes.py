"""Files and functions stay small: lines of code are counted without docstrings, comments and blank lines."""

from __future__ import annotations

import ast
import io
import tokenize
from functools import cache

from tests.support import PACKAGE

MAX_FILE_LINES = 200
MAX_FUNCTION_LINES = 50
MAX_LEARNER_LINES = 200
MAX_ROOMS = 10
SINGLE_FILES = {"__init__", "__main__", "batch", "rng"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}

SOURCES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def code_lines(source: str) -> set[int]:
    """Numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, node.end_lineno + 1))
    return lines


def function_sizes(source: str) -> dict[str, int]:
    lines = code_lines(source)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return {f.name: len([line for line in lines if f.lineno <= line <= f.end_lineno]) for f in functions}


def test_code_is_counted_without_docstrings_comments_and_blanks():
    source = '"""A module."""\n\n# why\nx = [\n    1,\n]\n\n\ndef f():\n    """A function."""\n    return x  # here\n'
    assert code_lines(source) == {4, 5, 6, 9, 11}
    assert function_sizes(source) == {"f": 2}


def test_no_file_is_long():
    sizes = {file: len(code_lines(source)) for file, source in SOURCES.items()}
    assert {file: size for file, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_no_function_is_long():
    sizes = {f"{file}:{name}": n for file, source in SOURCES.items() for name, n in function_sizes(source).items()}
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def test_the_learner_is_read_in_one_go():
    assert len(SOURCES["training/learner.py"].splitlines()) <= MAX_LEARNER_LINES


def test_there_are_few_rooms():
    rooms = {file.partition("/")[0].removesuffix(".py") for file in SOURCES} - SINGLE_FILES
    assert len(rooms) <= MAX_ROOMS
