"""Peak signal-to-noise ratio."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.reconstructions import reconstruction_pairs
from vae_train.evaluation.requirements import image_data
from vae_train.evaluation.subject import Subject


class PSNR(Metric):
    """Peak signal-to-noise ratio of reconstructions."""

    outputs = (MetricInfo("psnr", "PSNR of reconstructions", "dB"),)
    requires = (image_data,)
    order = 50

    @override
    def __call__(self, subject: Subject) -> Results:
        real, rebuilt = reconstruction_pairs(subject)
        return {"psnr": Estimate.mean_of(psnr(rebuilt, real))}


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Computes -10 log10(mean (x - y)²) in dB, `(N,)`; infinite for equal images.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: other images, alike.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return peak_signal_noise_ratio(x, y, data_range=1.0, reduction="none", dim=(1, 2, 3))
