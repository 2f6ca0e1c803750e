"""Skips updates whose gradient is far larger than usual.

Very deep ladders have rare batches with enormous gradients (Child, 2021, Very Deep VAEs, arXiv:2011.10650). The
paper skips updates above a constant norm. If the usual norm grows to that constant, training stands still from then on
without a message; therefore the threshold here follows the norm, and many skipped updates in a row are an error.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_train.util.errors import TrainingError

WARMUP_UPDATES = 20
"""Updates before the first one that may be skipped because of its size."""
WINDOW_UPDATES = 100
"""Window of the running mean of the logarithm of the norm."""
MAX_SKIPPED = 100
"""Skipped updates in a row that are an error."""


class NormGuard:
    """Compares the norm of every gradient with its running geometric mean, and skips updates above a multiple of it.

    A skipped update counts with the norm at the threshold, so that the threshold rises if larger gradients remain. A
    small norm counts in the same way.

    Args:
        factor: multiple of the usual norm above which an update is skipped.
        device: where norms are computed.
    """

    def __init__(self, factor: float, device: torch.device) -> None:
        self.factor = factor
        self.log_factor = torch.tensor(factor, device=device).log()
        self.state = {name: torch.zeros((), device=device) for name in ("log_mean", "updates", "skipped", "in_a_row")}
        """The running mean; the number of updates, of skipped ones, and of skipped ones in a row."""

    @torch.no_grad()
    def observe(self, norm: Tensor) -> Tensor:
        """Whether to skip the update of a gradient with this norm: a bool tensor with shape `()`."""
        log_mean, updates, skipped, in_a_row = self.state.values()
        log_norm, limit, warm = norm.log(), log_mean + self.log_factor, updates >= WARMUP_UPDATES
        skip = ~norm.isfinite() | (warm & (log_norm > limit))
        counted = torch.where(warm, log_norm.clamp(log_mean - self.log_factor, limit), log_norm)
        counted = torch.where(log_norm.isfinite(), counted, log_mean)
        log_mean.add_((counted - log_mean) / (updates + 1).clamp_max(WINDOW_UPDATES))
        updates.add_(1)
        skipped.add_(skip)
        in_a_row.add_(1).mul_(skip)
        return skip

    @torch.no_grad()
    def apply(self, skip: Tensor, update: Callable[[], None], changed: Callable[[], Sequence[Tensor]]) -> None:
        """Calls `update`, and restores all that it changed if it is skipped.

        Reading the norm first would wait for the device, which a captured step cannot do.

        Args:
            skip: the result of `observe`.
            update: changes tensors in place.
            changed: returns all tensors on the device that it changes; those that it creates start at 0.
        """
        before = {id(tensor): tensor.clone() for tensor in changed()}
        update()
        for tensor in changed():
            old = before.get(id(tensor))
            tensor.copy_(torch.where(skip, torch.zeros_like(tensor) if old is None else old, tensor))

    def usual_norm(self) -> Tensor:
        """The running geometric mean of the norm, with shape `()`."""
        return self.state["log_mean"].exp()

    def check(self) -> None:
        """Raises an error if the last `MAX_SKIPPED` updates were skipped. Waits for the device.

        Raises:
            TrainingError: says how large gradients are and what to try.
        """
        if self.state["in_a_row"] < MAX_SKIPPED:
            return
        raise TrainingError(
            f"the last {int(self.state['in_a_row'])} updates were skipped, since the norm of their gradients is not "
            f"finite, or over learner.skip_norm={self.factor:g} times the usual {self.usual_norm():.3g}. Resume from "
            "the last checkpoint with a lower lr=, or try a larger learner.skip_norm or learner.clip_norm=1"
        )

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors."""
        return dict(self.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state."""
        for name, value in self.state.items():
            value.copy_(state[name])
