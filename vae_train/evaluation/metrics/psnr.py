"""Peak signal-to-noise ratio."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import MetricInfo
from vae_train.evaluation.reconstructions import ReconstructionMetric


class PSNR(ReconstructionMetric):
    """Peak signal-to-noise ratio of reconstructions."""

    outputs = (MetricInfo("psnr", "PSNR of reconstructions", "dB"),)
    order = 50

    @override
    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        return psnr(x, y)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Computes -10 log10(mean (x - y)²) in dB, `(N,)`; infinite for equal images.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: other images, alike.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(x, y, data_range=1.0, reduction="none", dim=(1, 2, 3))
