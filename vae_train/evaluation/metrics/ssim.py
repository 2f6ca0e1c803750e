"""Structural similarity."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.reconstructions import ReconstructionMetric
from vae_train.evaluation.requirements import image_data, min_side
from vae_train.evaluation.similarity import to_float64

SSIM_MIN_SIDE = 6
"""Pixels on both sides of an image: more than half a window, which is mirrored at the borders."""


class SSIM(ReconstructionMetric):
    """Structural similarity of reconstructions.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004,
    doi:10.1109/TIP.2003.819861), equation 13.
    """

    outputs = (MetricInfo("ssim", "SSIM of reconstructions", decimals=4),)
    requires = (image_data, min_side(SSIM_MIN_SIDE))
    order = 51

    @override
    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        return ssim(x, y)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Computes the structural similarity, the mean over pixels and channels: `(N,)`, 1 for equal images.

    The window is that of the paper at every size: Gaussian, standard deviation 1.5, 11 x 11 pixels. Images are mirrored
    at their borders, so that 28 x 28 pixels give as many values; of 8 x 8 pixels every window contains a mirrored part.

    Args:
        x: images `(N, C, H, W)` in [0, 1], H and W at least `SSIM_MIN_SIDE`.
        y: other images, alike.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    x, y = to_float64(x), to_float64(y)
    options = {"data_range": 1.0, "reduction": "none", "sigma": 1.5, "kernel_size": 11}
    similarity: Tensor = structural_similarity_index_measure(x, y, **options)  # type: ignore[assignment, arg-type]
    return similarity
