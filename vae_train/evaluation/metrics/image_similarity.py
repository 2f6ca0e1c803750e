"""Similarity of reconstructions to the original images: PSNR, SSIM and MS-SSIM."""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.distributions import similarity
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Requirement, Results
from vae_train.evaluation.samples import image_data, reconstruction_pairs
from vae_train.evaluation.subject import Subject
from vae_train.util.numbers import to_float64

MS_SSIM_MIN_SIDE = 16 * similarity.WINDOW
"""Least side of an image in pixels; at the last of five scales it equals the window."""

CHUNK_ELEMENTS = 2**20
"""Pixels compared per pass; their convolutions take 400 MB."""


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Computes -10 log10(mean (x - y)²) in dB, `(N,)`; infinite for equal images.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: images with the same shape.
    """
    return -10 * (x - y).square().flatten(1).mean(1).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Computes the structural similarity, the mean over windows and channels: `(N,)`, 1 for equal images.

    As in the paper and its code, the window is a Gaussian with standard deviation 1.5 and 11 x 11 pixels that lies
    within the image; 28 x 28 pixels have 18 x 18 windows. Images smaller than a window have no SSIM.

    Args:
        x: images `(N, C, H, W)` in [0, 1], H and W at least 11.
        y: images with the same shape.
    """
    return _in_chunks(similarity.ssim, x, y)


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Computes the structural similarity at five scales: `(N,)`, 1 for equal images.

    The window is that of SSIM, and the weights of the scales are those of the paper; negative terms count as 0. Fewer
    scales would be a different metric.

    Args:
        x: images `(N, C, H, W)` in [0, 1], H and W at least `MS_SSIM_MIN_SIDE`.
        y: images with the same shape.
    """
    return _in_chunks(lambda x, y: similarity.ms_ssim(x, y, 0.0), x, y)


def _in_chunks(compare: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Compares images in chunks, in float64, in which variances of flat images do not round to 0."""
    pairs = zip(*(images.split(max(1, CHUNK_ELEMENTS // x[0].numel())) for images in (x, y)), strict=True)
    return torch.cat([compare(to_float64(a), to_float64(b)) for a, b in pairs])


def min_side(pixels: int) -> Requirement:
    """Requires images with at least `pixels` pixels on both sides."""

    def large_images(subject: Subject) -> str | None:
        side = min(subject.data.facts.data_shape[1:])
        reason = f"needs images with at least {pixels} pixels per side; these have {side}"
        return None if side >= pixels else reason

    return large_images


class _ReconstructionMetric(Metric):
    """A comparison of reconstructions with originals. Subclasses define `outputs` and `compare`."""

    requires: ClassVar[tuple[Requirement, ...]] = (image_data,)
    compare: Callable[[Tensor, Tensor], Tensor]
    """Compares pairs of images `(N, C, H, W)` in [0, 1]; returns `(N,)`."""

    @override
    def __call__(self, subject: Subject) -> Results:
        values = [self.compare(rebuilt, real) for real, rebuilt in reconstruction_pairs(subject)]
        return {self.outputs[0].name: Estimate.mean_of(torch.cat(values))}


class PSNR(_ReconstructionMetric):
    """Peak signal-to-noise ratio of reconstructions."""

    outputs = (MetricInfo("psnr", "PSNR of reconstructions", "dB", better="higher"),)
    order = 50
    compare = staticmethod(psnr)


class SSIM(_ReconstructionMetric):
    """Structural similarity of reconstructions.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004,
    doi:10.1109/TIP.2003.819861), equation 13.
    """

    outputs = (MetricInfo("ssim", "SSIM of reconstructions", decimals=4, better="higher"),)
    requires = (image_data, min_side(similarity.WINDOW))
    order = 51
    compare = staticmethod(ssim)


class MSSSIM(_ReconstructionMetric):
    """Structural similarity of reconstructions at five scales.

    Source: Wang et al., "Multi-scale structural similarity for image quality assessment" (2003,
    doi:10.1109/ACSSC.2003.1292216), equation 7.
    """

    outputs = (MetricInfo("ms_ssim", "MS-SSIM of reconstructions", decimals=4, better="higher"),)
    requires = (image_data, min_side(MS_SSIM_MIN_SIDE))
    order = 52
    compare = staticmethod(ms_ssim)
