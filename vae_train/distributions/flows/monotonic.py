"""Monotonic maps of one number, with parameters for every element. They are Zuko's (Rozet et al., 2022)."""

from typing import Any

from torch import Tensor

INITIAL_FACTOR = 0.01
"""Factor on the initial weights of the last layer of a network, so that maps start near the identity."""


def monotonic_family(bins: int | None) -> tuple[Any, tuple[int, ...]]:
    """Zuko's class of a family of maps, and how many parameters of each kind it has per element.

    Args:
        bins: bins of rational-quadratic splines on [-5, 5]; None for y = shift + scale · z.

    Raises:
        ValueError: splines have one bin.
    """
    from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

    if bins == 1:
        raise ValueError("bins=1: a spline with one bin is the identity; use at least 2")
    if bins is None:
        return MonotonicAffineTransform, (1, 1)
    return MonotonicRQSTransform, (bins, bins, bins - 1)


def monotonic(family: Any, sizes: tuple[int, ...], parameters: Tensor) -> Any:
    """The map of every element.

    Args:
        family: class of the maps, see `monotonic_family`.
        sizes: number of parameters of each kind per element; if all are 1, they have no dimension.
        parameters: tensor with shape `(*N, P)`.
    """
    kinds = parameters.split(sizes, -1)
    if all(size == 1 for size in sizes):
        kinds = tuple(kind.squeeze(-1) for kind in kinds)
    return family(*kinds)
