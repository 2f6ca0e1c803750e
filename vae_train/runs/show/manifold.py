"""The plane of two latents."""

import torch
from typing_extensions import override

from vae_train.evaluation.encodings import encode
from vae_train.evaluation.subject import Noise, Subset
from vae_train.plotting.sheet import plane_sheet
from vae_train.runs.show.base import Plot, PlotContents, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.training.previews import MANIFOLD_LIMIT, MANIFOLD_SIDE, manifold

MAX_IMAGES = 2_000
"""Number of images, evenly spaced within the split, that measure the aggregate posterior."""


class Manifold(Plot):
    """Images on a grid over two latents, which covers a normal prior, or else the aggregate posterior."""

    reads = ("checkpoint", "frames", "label", "factors")
    frames = MANIFOLD_SIDE

    @override
    def needs_data(self, opened: OpenedRun) -> bool:
        return not opened.has_normal_prior

    @override
    def problem(self, opened: OpenedRun) -> str | None:
        if opened.latent_shape != (2,) or opened.support != "real":
            shape = "x".join(map(str, opened.latent_shape))
            return opened.lacks_support("real") or f"needs two latents; those of this model are {shape}"
        if opened.conditions is not None and opened.options.label is None and opened.options.factors is None:
            return f"depends on the condition of this model; add {opened.conditions}="
        return None

    @override
    def count(self, opened: OpenedRun) -> int:
        return num_and_frames(self, opened)[1] ** 2

    @override
    @torch.no_grad()
    def __call__(self, opened: OpenedRun) -> PlotContents:
        _, side = num_and_frames(self, opened)
        low, high = self._range(opened)
        y = None if opened.condition is None else torch.tensor([opened.condition] * side**2, device=opened.device)
        pixels = opened.trained.transforms.to_pixels(manifold(opened.single_latent, low, high, side, y)).cpu()
        return PlotContents(f"{side} x {side} values of two latents", plane_sheet(pixels, side, low, high))

    @staticmethod
    def _range(opened: OpenedRun) -> tuple[list[float], list[float]]:
        if opened.has_normal_prior:
            mean, std = torch.zeros(2), torch.ones(2)
        else:
            images, noise = Subset(opened.images, MAX_IMAGES), Noise(0, "judge", opened.split)
            z = encode(opened.single_latent, images, noise=noise).z.cpu()
            mean, std = z.mean(0), z.std(0, unbiased=False)
        return (mean - MANIFOLD_LIMIT * std).tolist(), (mean + MANIFOLD_LIMIT * std).tolist()
