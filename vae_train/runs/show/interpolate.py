"""Paths between the latents of images."""

from collections import defaultdict
from itertools import zip_longest

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.interpolation import interpolate
from vae_train.plotting.sheet import Sheet, centered
from vae_train.rng import generator
from vae_train.runs.schema import yaml_text
from vae_train.runs.show.base import ANIMATION_FRAMES, LABELED_SIDE, Plot, PlotContents, animation, num_and_frames
from vae_train.runs.show.opened import OpenedRun
from vae_train.util.errors import ErrorDetail
from vae_train.util.text import counted


class Interpolation(Plot):
    """Paths between the latents of images, in all layers, with the images at both ends.

    A conditional model interpolates between images of the same class, or decodes with the factors of the first image.
    """

    reads = ("checkpoint", "num", "frames", "label", "split", "images", "interpolation", "seed")
    num, frames = 6, 8

    @override
    def problem(self, opened: OpenedRun) -> str | None:
        return opened.lacks_support("real", "sphere") if opened.latent_shape else None

    @override
    def errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        frames, named = opened.options.frames, opened.options.images or []
        if frames is None or frames >= len(named):
            return super().errors(opened)
        message = f"is too short for a path through {len(named)} images"
        return [*super().errors(opened), ErrorDetail(f"frames={frames}", message)]

    @override
    def data_errors(self, opened: OpenedRun) -> list[ErrorDetail]:
        if errors := opened.image_errors(2):
            return errors
        if opened.options.images is None:
            error = ErrorDetail(f"split={opened.split}", "has no two images of one class")
            return [] if _pairs(opened, 1) else [error]
        if opened.conditions == "label":
            classes = [opened.class_name(number) for number in _classes(opened, torch.tensor(opened.options.images))]
            if len(set(classes)) > 1:
                message = f"are of the classes {', '.join(classes)}; a conditional model needs images of one class"
                return [ErrorDetail(f"images={yaml_text(opened.options.images)}", message)]
        return []

    @override
    @torch.no_grad()
    def __call__(self, opened: OpenedRun) -> PlotContents:
        num, frames = num_and_frames(self, opened)
        named = opened.options.images
        paths = _pairs(opened, num) if named is None else [torch.tensor(named)]
        how = "spherical" if opened.support == "sphere" else opened.options.interpolation
        rows, moving = [], []
        for path in paths:
            layers, y = opened.encoded(path), opened.labels(path[:1])
            decoded = opened.decoded([interpolate(z, max(frames, len(path)), how) for z in layers], y)
            rows.append(torch.cat([opened.originals(path[:1]), decoded, opened.originals(path[-1:])]))
            steps = (len(path) - 1) * ANIMATION_FRAMES
            moving.append(opened.decoded([interpolate(z, steps, how) for z in layers], y))
        width, texts = len(rows[0]), [" – ".join(map(str, path.tolist())) for path in paths]
        above = [("original", 0.5), ("original", width - 0.5)]
        sheet = Sheet(torch.cat(rows), width, centered(texts), above, min_side=LABELED_SIDE)
        which = f"path through {len(paths[0])}" if named else f"paths between {counted(len(paths), 'pair')} of"
        about = f"{how} {which} {opened.split} images"
        about += ", with the factors of the first image" if opened.conditions == "factors" else ""
        return PlotContents(about, sheet, animation(moving))


def _classes(opened: OpenedRun, index: Tensor) -> list[int]:
    """The class of every image."""
    labels = opened.labels(index)
    assert labels is not None
    return labels[:, 0].tolist()


def _pairs(opened: OpenedRun, num: int) -> list[Tensor]:
    """At most `num` random pairs of images, each of one class if the model is conditional on the label."""
    index = opened.candidates
    index = index[torch.randperm(len(index), generator=generator(opened.options.seed, "pairs"))]
    groups = defaultdict[int, list[int]](list)
    classes = _classes(opened, index) if opened.conditions == "label" else [0] * len(index)
    for number, label in zip(index.tolist(), classes, strict=True):
        groups[label].append(number)
    pairs = [list(zip(group[::2], group[1::2], strict=False)) for group in groups.values()]
    rounds = [pair for each in zip_longest(*pairs) for pair in each if pair is not None]
    return [torch.tensor(pair) for pair in rounds[:num]]
