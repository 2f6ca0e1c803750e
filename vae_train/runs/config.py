"""A configuration below the command line: a plain, frozen and fully resolved tree."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override

from vae_train.util.errors import UsageError
from vae_train.util.files import replacing
from vae_train.util.text import first_line

VERSION = 3
"""Version of the format of config.yaml. It is incremented when older runs can no longer be opened."""

ADDED: dict[str, dict[str, Any]] = {"learner": {"skip_norm": None, "shards": None}}
"""Settings that later programs of this version added, by section, with the values that do what a run did without."""

MAX_CHARACTERS, MAX_NODES, MAX_DEPTH = 500_000, 10_000, 50
"""Limits of an untrusted config.yaml, which are checked before it is expanded."""

RESUMABLE = (
    *("epochs", "steps", "device", "threads", "execution", "keep"),
    *("trainer.eval_every", "trainer.sample_every", "trainer.checkpoint_every", "trainer.checkpoint_seconds"),
    *("trainer.log_every", "trainer.patience", "trainer.eval_batch_size", "data.root", "data.path", "data.cache"),
)
"""Settings that may change when a run is resumed. Except for rounding, none of them affects what a step computes."""

UNBOUND = (
    *RESUMABLE,
    "trainer.epochs",
    "trainer.steps",
    "trainer.execution",
    "data.units",
    "objective.perceptual.weights",  # the run records their digest
    "name",
    "init_from",
    "logger.",
    "loader.",
)
"""Prefixes of the settings that a checkpoint does not depend on."""

PLACES = ("root", "path")
"""Settings of data that locate it."""

WRITTEN_PLACES = ("root", "cache")
"""Settings of data that name folders for downloads or decoded images."""


class Config(Mapping[str, Any]):
    """A tree of settings. Sections are `Config`s themselves, lists are tuples.

    Args:
        tree: nested mappings, lists and scalars.
        path: dotted path of this section within the whole configuration, for error messages.

    Example:
        >>> config = Config({"model": {"latent_dim": 2}, "lr": 0.001})
        >>> config["model"]["latent_dim"], config.at("model.prior", None)
        (2, None)
        >>> config.with_values({"model.latent_dim": 3}).to_dict()
        {'model': {'latent_dim': 3}, 'lr': 0.001}
    """

    def __init__(self, tree: Mapping[str, Any], path: str = "") -> None:
        self.path = path
        prefix = f"{path}." if path else ""
        self._tree = {str(key): _frozen(value, f"{prefix}{key}") for key, value in tree.items()}

    @override
    def __getitem__(self, key: str) -> Any:
        return self._tree[key]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._tree)

    @override
    def __len__(self) -> int:
        return len(self._tree)

    @override
    def __repr__(self) -> str:
        return f"Config({self.to_dict()})"

    def at(self, path: str, default: Any = None) -> Any:
        """The value at a dotted path, or `default` if there is none."""
        node: Any = self
        for key in path.split("."):
            if not isinstance(node, Mapping) or key not in node:
                return default
            node = node[key]
        return node

    def with_values(self, values: Mapping[str, Any]) -> Config:
        """A copy with other values at dotted paths. Sections that do not exist yet are added."""
        tree = self.to_dict()
        for path, value in values.items():
            *sections, key = path.split(".")
            node = tree
            for section in sections:
                node = node.setdefault(section, {})
            node[key] = _thawed(value)
        return Config(tree, self.path)

    def without(self, keys: Sequence[str]) -> Config:
        """A copy without some keys of the top level."""
        return Config({key: value for key, value in self.items() if key not in keys}, self.path)

    def leaves(self) -> dict[str, Any]:
        """All values that are not sections, by dotted path."""
        deeper = {
            f"{k}.{path}": leaf for k, v in self.items() if isinstance(v, Config) for path, leaf in v.leaves().items()
        }
        return deeper | {key: value for key, value in self.items() if not isinstance(value, Config)}

    def digest(self, without: tuple[str, ...]) -> str:
        """A digest of all values.

        Settings that were added later only count if they change something, so that older configurations keep theirs.

        Args:
            without: beginnings of the dotted paths that do not count.
        """
        later = {f"{section}.{key}": value for section, values in ADDED.items() for key, value in values.items()}
        leaves = {path: leaf for path, leaf in self.leaves().items() if path not in later or leaf != later[path]}
        counted = [(path, leaf) for path, leaf in sorted(leaves.items()) if not path.startswith(without)]
        return hashlib.blake2b(json.dumps(counted, default=str).encode(), digest_size=8).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The tree as nested dictionaries and lists."""
        return {key: _thawed(value) for key, value in self.items()}

    def write(self, path: Path) -> None:
        """Writes the tree as YAML, atomically."""
        text = yaml.dump({"version": VERSION} | self.to_dict(), None, _Dumper, sort_keys=False, allow_unicode=True)
        with replacing(path) as file:
            file.write(text.encode())

    @classmethod
    def read(cls, path: Path) -> Config:
        """Reads a file that `write` wrote.

        Raises:
            UsageError: the file cannot be read, or another version of this program wrote it.
        """
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(MAX_CHARACTERS + 1)
            if len(text) > MAX_CHARACTERS:
                raise UsageError(f"{path} is not the configuration of a run: it has over {MAX_CHARACTERS:,} characters")
            tree = yaml.load(text, _Loader)  # a SafeLoader
        except (OSError, yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
            raise UsageError(f"cannot read {path}: {first_line(error)}") from error
        if not isinstance(tree, dict) or "model" not in tree or "data" not in tree:
            raise UsageError(f"{path} is not the configuration of a run")
        version = tree.pop("version", 1)
        if version != VERSION:
            writer = "an older" if isinstance(version, int) and version < VERSION else "a newer"
            raise UsageError(f"{path} was written by {writer} version of vae_train and cannot be opened by this one")
        for section, settings in ADDED.items():
            if isinstance(tree.get(section), dict):
                tree[section] = settings | tree[section]
        return cls(tree)


def _frozen(value: Any, path: str) -> Any:
    if isinstance(value, Mapping):
        return Config(value, path)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_frozen(item, f"{path}[{i}]") for i, item in enumerate(value))
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_thawed(item) for item in value]
    return value


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2 numbers such as 1e-3, a string in YAML 1.1. Rejects aliases and too many nodes."""

    nodes, depth = 0, 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes, self.depth = self.nodes + 1, self.depth + 1
        if self.check_event(yaml.AliasEvent) or self.nodes > MAX_NODES or self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"it has aliases, over {MAX_NODES:,} values or over {MAX_DEPTH} nested levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Writes YAML for `_Loader`: strings that look like numbers are quoted."""

    def float_as_python_writes_it(self, value: float) -> yaml.Node:
        """Writes 1e-05 instead of 1.0e-05."""
        if math.isfinite(value):
            return self.represent_scalar("tag:yaml.org,2002:float", repr(value))
        return self.represent_float(value)


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    """Escapes Unicode line breaks, which YAML would read as spaces."""
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_FLOAT = re.compile(
    r"""^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
for _kind in (_Loader, _Dumper):
    _kind.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in _kind.yaml_implicit_resolvers.items()
    }
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
_Dumper.add_representer(float, _Dumper.float_as_python_writes_it)
_Dumper.add_representer(str, _represent_text)
_Dumper.add_multi_representer(str, _represent_text)


def weight_of_rate(config: Mapping[str, Any]) -> float | None:
    """The beta that a model is trained with; None if its objective has none, or adapts it."""
    return config["objective"].get("beta") if "beta_schedule" in config["objective"] else None


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """A saved configuration with changes of top-level knobs and of settings below them."""
    values = dict(changes)
    if "epochs" in values:
        values |= {"trainer.epochs": values["epochs"], "steps": None, "trainer.steps": None}
    elif "steps" in values:
        values["trainer.steps"] = values["steps"]
    if "device" in values or "execution" in values:
        # Another device may need another mode of execution.
        values["execution"] = values["trainer.execution"] = values.get("execution", "auto")
    return config.with_values(values)
