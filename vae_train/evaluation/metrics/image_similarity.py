"""Similarity of reconstructions and their originals, pixel by pixel and by structure."""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Requirement, Results
from vae_train.evaluation.samples import image_data, reconstruction_pairs
from vae_train.evaluation.subject import Subject
from vae_train.util.numbers import to_float64

SSIM_MIN_SIDE = 6
"""Pixels on both sides of an image: more than half a window, which is mirrored at the borders."""

MS_SSIM_MIN_SIDE = 176
"""Pixels on both sides of an image: at the last of five scales they are a window of 11 pixels."""

SSIM_OPTIONS: dict[str, Any] = {"data_range": 1.0, "reduction": "none", "sigma": 1.5, "kernel_size": 11}
"""The window of the paper, and a value for each image."""


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Computes -10 log10(mean (x - y)²) in dB, `(N,)`; infinite for equal images.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: other images, alike.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(x, y, data_range=1.0, reduction="none", dim=(1, 2, 3))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Computes the structural similarity, the mean over pixels and channels: `(N,)`, 1 for equal images.

    The window is that of the paper at every size: Gaussian, standard deviation 1.5, 11 x 11 pixels. Images are mirrored
    at their borders, so that 28 x 28 pixels give as many values; of 8 x 8 pixels every window contains a mirrored part.

    Args:
        x: images `(N, C, H, W)` in [0, 1], H and W at least `SSIM_MIN_SIDE`.
        y: other images, alike.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    x, y = to_float64(x), to_float64(y)  # where variances of flat images do not round to 0
    return structural_similarity_index_measure(x, y, **SSIM_OPTIONS)  # type: ignore[return-value]


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
    return multiscale_structural_similarity_index_measure(x, y, normalize="relu", **SSIM_OPTIONS)


def min_side(pixels: int) -> Requirement:
    """Requires images with at least so many pixels on both sides."""

    def large_images(subject: Subject) -> str | None:
        side = min(subject.data.facts.data_shape[1:])
        return None if side >= pixels else f"images of at least {pixels} pixels a side are needed; these have {side}"

    return large_images


class _ReconstructionMetric(Metric):
    """A comparison of reconstructions with their originals: a subclass has its output and `compare`."""

    requires: ClassVar[tuple[Requirement, ...]] = (image_data,)
    compare: Callable[[Tensor, Tensor], Tensor]
    """Compares images `(N, C, H, W)` in [0, 1] one by one: `(N,)`."""

    @override
    def __call__(self, subject: Subject) -> Results:
        real, rebuilt = reconstruction_pairs(subject)
        return {self.outputs[0].name: Estimate.mean_of(self.compare(rebuilt, real))}


class PSNR(_ReconstructionMetric):
    """Peak signal-to-noise ratio of reconstructions."""

    outputs = (MetricInfo("psnr", "PSNR of reconstructions", "dB"),)
    order = 50
    compare = staticmethod(psnr)


class SSIM(_ReconstructionMetric):
    """Structural similarity of reconstructions.

    Source: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity" (2004,
    doi:10.1109/TIP.2003.819861), equation 13.
    """

    outputs = (MetricInfo("ssim", "SSIM of reconstructions", decimals=4),)
    requires = (image_data, min_side(SSIM_MIN_SIDE))
    order = 51
    compare = staticmethod(ssim)


class MSSSIM(_ReconstructionMetric):
    """Structural similarity of reconstructions at five scales.

    Source: Wang et al., "Multi-scale structural similarity for image quality assessment" (2003,
    doi:10.1109/ACSSC.2003.1292216), equation 7.
    """

    outputs = (MetricInfo("ms_ssim", "MS-SSIM of reconstructions", decimals=4),)
    requires = (image_data, min_side(MS_SSIM_MIN_SIDE))
    order = 52
    compare = staticmethod(ms_ssim)
