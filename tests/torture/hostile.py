"""Configurations that a stranger's run may have."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import yaml

TARGETS = (
    "os.system",
    "builtins.eval",
    "builtins.exec",
    "subprocess.Popen",
    "subprocess.check_output",
    "torch.load",
    "torch.hub.load",
    "pickle.loads",
    "shutil.rmtree",
    "pathlib.Path.write_text",
    "importlib.import_module",
    "vae_train.__main__.main",
    "vae_train.cli.main.run",
    "vae_train.cli.main.main",
    "vae_train.runs.train.train",
    "vae_train.util.errors.os.system",
    "vae_train.load",
    "torch.optim.Adam.step",
    "torch.optim.os.system",
    "antigravity.fly",
    "this.s",
)
VALUES = (
    "${oc.env:HOME}",
    "${oc.env:SECRET,none}",
    "${oc.decode:'1'}",
    "${beta}",
    "../../../tmp/escaped",
    "/tmp/escaped",
    10**12,
    -1,
    1e308,
    float("nan"),
    [1] * 20_000,
    "x" * 100_000,
    {"_target_": "os.system", "command": "touch escaped"},
    None,
    True,
    [],
    {},
    "\x1b[31mred",
)


def hostile_configs(text: str, rng: random.Random, rounds: int) -> Iterator[tuple[str, str]]:
    """Names and texts of configurations, made from the text of an honest one.

    Args:
        text: an honest config.yaml.
        rng: chooses where foreign values are put.
        rounds: how many places every foreign value is put at.
    """
    config = yaml.safe_load(text)
    nodes = [path for path, value in _walk(config) if isinstance(value, dict) and "_target_" in value]
    leaves = [path for path, value in _walk(config) if not isinstance(value, dict)]
    for target in TARGETS:
        for path in rng.sample(nodes, min(rounds, len(nodes))):
            arguments = {"_target_": target, "_args_": ["touch escaped"], "command": "touch escaped"}
            yield f"{target} at {'.'.join(path)}", yaml.safe_dump(_replaced(config, path, arguments))
            kept = _at(config, path) | {"_target_": target}
            yield f"{target} for {'.'.join(path)}", yaml.safe_dump(_replaced(config, path, kept))
    for value in VALUES:
        for path in rng.sample(leaves, min(rounds, len(leaves))):
            yield f"{str(value)[:30]!r} for {'.'.join(path)}", yaml.safe_dump(_replaced(config, path, value))
    yield "alias bomb", _alias_bomb() + text
    yield "object tag", text + "\nx: !!python/object/apply:os.system ['touch escaped']\n"
    yield "deep nesting", text + "\nx: " + "[" * 5_000 + "]" * 5_000 + "\n"
    yield "not text", "\x00\x01\x02"
    yield "not a mapping", "- 1\n- 2\n"
    yield "empty", ""


def _alias_bomb() -> str:
    lines = ["b0: &b0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "\n".join(lines) + "\n"


def _walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if path:
        yield path, node
    for key, value in node.items() if isinstance(node, dict) else ():
        yield from _walk(value, (*path, str(key)))


def _at(config: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def _replaced(config: Any, path: tuple[str, ...], value: Any) -> Any:
    changed = copy.deepcopy(config)
    _at(changed, path[:-1])[path[-1]] = value
    return changed
