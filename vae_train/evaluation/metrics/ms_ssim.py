"""Multi-scale structural similarity."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.reconstructions import ReconstructionMetric
from vae_train.evaluation.requirements import image_data, min_side
from vae_train.evaluation.similarity import to_float64

MS_SSIM_MIN_SIDE = 176
"""Pixels on both sides of an image: at the last of five scales they are a window of 11 pixels."""


class MSSSIM(ReconstructionMetric):
    """Structural similarity of reconstructions at five scales.

    Source: Wang et al., "Multi-scale structural similarity for image quality assessment" (2003,
    doi:10.1109/ACSSC.2003.1292216), equation 7.
    """

    outputs = (MetricInfo("ms_ssim", "MS-SSIM of reconstructions", decimals=4),)
    requires = (image_data, min_side(MS_SSIM_MIN_SIDE))
    order = 52

    @override
    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        return ms_ssim(x, y)


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Computes the structural similarity at five scales: `(N,)`, 1 for equal images.

    The window is that of SSIM, the weights of the scales are those of the paper; a negative term counts as 0. Fewer
    scales would be another metric.

    Args:
        x: images `(N, C, H, W)` in [0, 1], H and W at least `MS_SSIM_MIN_SIDE`.
        y: other images, alike.
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    x, y = to_float64(x), to_float64(y)
    options = {"data_range": 1.0, "reduction": "none", "normalize": "relu", "sigma": 1.5, "kernel_size": 11}
    return multiscale_structural_similarity_index_measure(x, y, **options)  # type: ignore[arg-type]
