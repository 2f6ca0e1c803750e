"""Paths between latents, linear and on great circles."""

from typing import Literal

import torch
from torch import Tensor

NO_PATH = "z consists of codes, between which there is no path"

Interpolation = Literal["linear", "spherical"]
"""Kinds of paths between latents."""

PARALLEL_SINE = 1e-6
"""Sine of the angle below which two latents have no unique great circle."""


def interpolate(ends: Tensor, frames: int, how: Interpolation) -> Tensor:
    """Computes a path from the first of several latents through all others to the last.

    The frames between two latents are equally spaced. On a spherical path the direction follows the great circle and
    the norm changes linearly, so that latents in high dimensions do not pass through a region near 0 that has no
    mass under a normal prior. Between parallel or opposite latents, or if one is 0, it is the straight line.

    Source: White, "Sampling Generative Networks" (arXiv:1609.04468), section 2.1.

    Args:
        ends: `(M, *latent_shape)` with M at least 2.
        frames: length of the path, at least M.
        how: "linear" or "spherical", with the latent flattened.

    Returns:
        `(frames, *latent_shape)`. All M latents are frames, the first and the last one at the ends.

    Raises:
        ValueError: there is only one latent, or there are fewer frames than latents.
    """
    if len(ends) < 2:
        raise ValueError(f"a path needs at least two latents, not {len(ends)}")
    if frames < len(ends):
        raise ValueError(f"frames={frames}: a path through {len(ends)} latents needs at least {len(ends)} frames")
    places = torch.linspace(0, frames - 1, len(ends), dtype=torch.float64).round().long().tolist()
    path = ends.new_empty(frames, *ends.shape[1:])
    for start, stop, first, last in zip(places, places[1:], ends, ends[1:], strict=False):
        t = torch.linspace(0, 1, stop - start + 1, dtype=torch.float64, device=ends.device)[:, None]
        segment = _segment(first.flatten().double(), last.flatten().double(), t, how)
        path[start : stop + 1] = segment.to(path).view(-1, *ends.shape[1:])
    path[places] = ends  # exactly
    return path


def _segment(first: Tensor, last: Tensor, t: Tensor, how: Interpolation) -> Tensor:
    """Positions `t`, `(T, 1)`, of a path between two latents `(D,)`: `(T, D)`."""
    straight = torch.lerp(first, last, t)
    lengths = first.norm(), last.norm()
    if how == "linear" or not all(lengths):
        return straight
    a, b = first / lengths[0], last / lengths[1]
    cosine = (a @ b).clamp(-1, 1)
    tangent = b - cosine * a
    sine = tangent.norm()
    if sine < PARALLEL_SINE:
        return straight
    angle = torch.atan2(sine, cosine) * t
    return torch.lerp(*lengths, t) * (angle.cos() * a + angle.sin() * tangent / sine)
