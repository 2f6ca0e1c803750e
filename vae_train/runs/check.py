"""Which parts of a model and which objective go together: each part says so itself, and here they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vae_train.model.base import USUAL_PRIOR
from vae_train.runs.schema import locate
from vae_train.util.errors import ErrorDetail

PARTS = ("posterior", "prior", "likelihood")

Node = Mapping[str, Any]


def refusals(parts: Mapping[str, Node], objective: Node, allow: Sequence[str] = ()) -> list[ErrorDetail]:
    """What refuses what, and why.

    Args:
        parts: the `_target_` nodes of posterior, prior and likelihood.
        objective: that of the objective.
        allow: see `vae_train.runs.schema.locate`.
    """
    kinds: dict[str, Any] = {place: locate(str(node["_target_"]), allow) for place, node in parts.items()}
    found = []
    why = kinds["prior"].refusal(kinds["posterior"], **knobs(parts["prior"]))
    if why:
        found.append(ErrorDetail(f"model/prior={stem(kinds['prior'])}", why))
    own, other = (parts[place].get("categories") for place in ("prior", "posterior"))
    if not why and own is not None and other is not None and own != other:
        found.append(
            ErrorDetail(f"model.prior.categories={own}", f"must be those of the posterior, {other}: use the same")
        )
    aim: Any = locate(str(objective["_target_"]), allow)
    why = aim.refusal(**kinds, **knobs(objective))
    if why:
        found.append(ErrorDetail(f"objective={stem(aim)}", why))
    return found


def condition_refusal(condition: str | None, parts: Mapping[str, Node], allow: Sequence[str] = ()) -> list[ErrorDetail]:
    """Why p(z | y) cannot be made of the prior.

    Args:
        condition: what the model is conditioned on, if anything.
        parts: see `refusals`.
        allow: see `vae_train.runs.schema.locate`.
    """
    prior: Any = locate(str(parts["prior"]["_target_"]), allow)
    posterior: Any = locate(str(parts["posterior"]["_target_"]), allow)
    if condition is None or not prior.uses_encoder:
        return []
    why = (
        f"model/prior={stem(prior)} cannot be another one for every y: its components are posteriors of images without "
        f"one. Use model/prior={USUAL_PRIOR[posterior.support]}"
    )
    return [ErrorDetail(f"model.condition={condition}", why)]


def pieces_refusal(
    grad_accumulation: int, objective: Node, likelihood: Node, allow: Sequence[str] = ()
) -> list[ErrorDetail]:
    """Why a batch cannot be cut into `grad_accumulation` pieces."""
    found = []
    for place, node in (("objective", objective), ("model/likelihood", likelihood)):
        part: Any = locate(str(node["_target_"]), allow)
        if grad_accumulation > 1 and part.couples_batch(**knobs(node)):
            why = f"{place}={stem(part)} compares the images of a batch, which then cannot be cut into pieces"
            found.append(
                ErrorDetail(f"learner.grad_accumulation={grad_accumulation}", f"{why}: use learner.grad_accumulation=1")
            )
    return found


def support_refusals(
    asked: Mapping[str, str], nodes: Mapping[str, Node], allow: Sequence[str] = ()
) -> list[ErrorDetail]:
    """Ways of computing that a part states it cannot be computed in.

    Args:
        asked: what has to be supported (see `vae_train.model.family.CAPABILITIES`), and the setting that asks for it.
        nodes: the `_target_` nodes of all parts by place.
        allow: see `vae_train.runs.schema.locate`.
    """
    instead = {"compile": "execution=eager", "bf16": "precision=float32"}
    found = []
    for what, where in asked.items():
        for place, node in nodes.items():
            part: Any = locate(str(node["_target_"]), allow)
            if what not in part.capabilities:
                found.append(ErrorDetail(where, f"{place}={stem(part)} does not support it; use {instead[what]}"))
    return found


def knobs(node: Node) -> dict[str, Any]:
    """The settings of a node."""
    return {str(k): v for k, v in node.items() if not str(k).startswith("_")}


def stem(part: type) -> str:
    """The name by which a class is chosen: that of its file."""
    return part.__module__.rpartition(".")[2]
