"""Facts about a run's data as a file, with which its model can be opened without the data."""

import hashlib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_train.batch import DataFacts, Factor, Units
from vae_train.runs.schema import value_error


def facts_to_dict(facts: DataFacts) -> dict[str, Any]:
    """Facts as plain data with their checksum; numbers are exact."""
    factors = [factor._asdict() for factor in facts.factors]
    units = None if facts.units is None else facts.units._asdict()
    tree = facts._asdict() | {"factors": factors, "units": units}
    return tree | {"checksum": _checksum(tree)}


def read_facts(path: Path) -> DataFacts:
    """Reads what `facts_to_dict` returned.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is damaged.
    """
    tree = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(tree, dict) or tree.pop("checksum", None) != _checksum(tree):
        raise ValueError("its checksum does not match")
    try:
        factors = tuple(Factor(**{**f, "values": f["values"] and tuple(f["values"])}) for f in tree["factors"])
        units = None if tree["units"] is None else Units.parse(tree["units"])
        facts = DataFacts(**(tree | {"data_shape": tuple(tree["data_shape"]), "factors": factors, "units": units}))
    except (KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    for name, hint in typing.get_type_hints(DataFacts).items():
        if wrong := value_error(getattr(facts, name), hint):
            raise ValueError(f"{name} {wrong}")
    return facts


def _checksum(tree: Mapping[str, Any]) -> str:
    return "sha256:" + hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
