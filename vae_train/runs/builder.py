"""Nodes of a configuration -> objects. A configuration may come from other people, so only known classes are built."""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from vae_train.runs.config import Config
from vae_train.runs.schema import parameters, schema_errors, settings
from vae_train.util.errors import ErrorDetail, UsageError

CATALOGUE = (
    *("vae_train.data.sources", "vae_train.data.transforms", "vae_train.data.storage.loader"),
    *("vae_train.model", "vae_train.objective", "vae_train.evaluation.metrics", "torch.optim"),
    *(f"vae_train.training.{module}" for module in ("learner", "lr", "loggers", "trainer")),
)
"""Packages and modules whose classes a configuration may name."""


class Builder:
    """Locates and builds the classes that a configuration names.

    Args:
        allow: further packages whose classes may be built. They come from the command line or from Python, never from a
            saved run.
    """

    def __init__(self, allow: Sequence[str] = ()) -> None:
        self.allow = tuple(allow)

    def locate(self, target: str) -> type:
        """The class with a dotted name. The name is checked before anything is imported, then the class itself.

        Raises:
            UsageError: the class does not exist, or may not be built.
        """
        trusted = (*CATALOGUE, *self.allow)
        if not _inside(target, trusted):
            raise UsageError(
                f"{target or 'an empty name'} is not a component of vae_train; if you trust the class, add "
                f"allow={target.split('.')[0]} to the command line"
            )
        module, _, name = target.rpartition(".")
        try:
            located = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UsageError(f"there is no class {target} ({error})") from error
        is_class = inspect.isclass(located) and _inside(located.__module__, trusted)
        is_optimizer = is_class and any(base.__name__ == "Optimizer" for base in located.__mro__)
        if not is_class or (located.__module__.startswith("torch.optim") and not is_optimizer):
            raise UsageError(f"{target} is not a component of vae_train or an optimiser of torch.optim")
        return located

    def errors(self, config: Config) -> list[ErrorDetail]:
        """Everything that is wrong with the nodes of a configuration, each with its dotted path."""
        return schema_errors(config, self.locate)

    def build(self, node: Any, /, **known: Any) -> Any:
        """Calls the constructor of a node; nodes within it are built first.

        Args:
            node: a section with a `_target_`; `_partial_: true` returns a function that waits for more arguments. Other
                sections and lists become dictionaries and lists, and values remain.
            known: arguments that only the program knows; every constructor gets those that it names.

        Raises:
            UsageError: a constructor raised ValueError; the error names the path of its node.
        """
        if isinstance(node, Sequence) and not isinstance(node, str):
            return [self.build(item, **known) for item in node]
        if not isinstance(node, Mapping):
            return node
        arguments = {key: self.build(value, **known) for key, value in settings(node).items()}
        if "_target_" not in node:
            return arguments
        path = node.path if isinstance(node, Config) else ""
        part = Partial(self.locate(str(node["_target_"])), arguments, path)
        if node.get("_partial_"):
            return part
        return part(**{key: value for key, value in known.items() if key in parameters(part.target)})


class Partial:
    """A constructor with some of its arguments.

    Args:
        target: the class.
        arguments: arguments that the configuration sets.
        path: dotted path of the node, for error messages.
    """

    def __init__(self, target: type, arguments: dict[str, Any], path: str) -> None:
        self.target, self.arguments, self.path = target, arguments, path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the constructor; a ValueError becomes a UsageError with the path of the node."""
        try:
            return self.target(*args, **(kwargs | self.arguments))
        except ValueError as error:
            raise UsageError([ErrorDetail(self.path, str(error))]) from error


def _inside(name: str, packages: Sequence[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)
