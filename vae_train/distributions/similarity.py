"""Multi-scale structural similarity of images as a reconstruction loss.

MS-SSIM(x, y) = l_M^(w_M) · prod_j c_j^(w_j)                                        (Wang et al., 2003, eq. 7)
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from vae_train.distributions.base import Located, promote
from vae_train.rng import Rng

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the scales, from the finest (Wang et al., 2003, section 3.2)."""
WINDOW, SIGMA = 11, 1.5
"""Side of a window, and the standard deviation of its Gaussian weights, in pixels (Wang et al., 2004)."""
C1, C2 = 0.01**2, 0.03**2
"""Constants that keep the quotients finite, for values in [0, 1]."""
MIN_STRUCTURE = 1e-3
"""Lower bound of a structural term in a loss, since powers of negative numbers are undefined."""


def scales(side: int) -> int:
    """Number of scales for images with this smaller side, so that the window fits into the coarsest scale."""
    return 1 + sum(side // 2**scale >= WINDOW for scale in range(1, len(WEIGHTS)))


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM with shape `(N,)`, the mean over windows and channels (Wang et al., 2004, eq. 13).

    Args:
        x: images `(N, C, H, W)` in [0, 1], at least as large as a window.
        y: images to compare with, likewise.
    """
    luminance, structure = _terms(x.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None], _kernel(WINDOW, x))
    return (luminance * structure).reshape(len(x), -1).mean(1)


def ms_ssim(x: Tensor, y: Tensor, minimum: float = MIN_STRUCTURE) -> Tensor:
    """MS-SSIM with shape `(N,)`, 1 for equal images.

    Images smaller than 11 pixels have one scale and the largest odd window that fits. The weights of the scales in use
    are normalised to sum to 1.

    Args:
        x: images `(N, C, H, W)` in [0, 1].
        y: images to compare with, likewise.
        minimum: lower bound of the term of a scale.
    """
    count = scales(min(x.shape[-2:]))
    kernel = _kernel(min(x.shape[-2:]), x)
    num, _, *size = x.shape
    x, y = x.reshape(-1, 1, *size), y.reshape(-1, 1, *size)  # (N · C, 1, H, W)
    total = torch.ones(num, dtype=x.dtype, device=x.device)
    for j in range(count):
        luminance, structure = _terms(x, y, kernel)
        term = structure if j < count - 1 else luminance * structure
        weight = WEIGHTS[j] / sum(WEIGHTS[:count])
        total = total * term.reshape(num, -1).mean(1).clamp_min(minimum) ** weight
        if j < count - 1:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return total


def _kernel(side: int, like: Tensor) -> Tensor:
    """The window's weights along one axis, with shape `(1, 1, 1, size)`."""
    size = min(WINDOW, side - 1 + side % 2)
    offset = torch.arange(size, device=like.device).to(like) - (size - 1) / 2
    weights = torch.exp(-0.5 * (offset / (SIGMA * size / WINDOW)) ** 2)
    return (weights / weights.sum()).view(1, 1, 1, size)


def _blurred(image: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(image, kernel), kernel.transpose(-1, -2))


def _terms(x: Tensor, y: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and the product of contrast and structure, at every window of `(N, 1, H, W)`."""
    mean_x, mean_y = _blurred(x, kernel), _blurred(y, kernel)
    # Centring at ½ makes the difference of squares more precise.
    u, v = x - 0.5, y - 0.5
    a, b = mean_x - 0.5, mean_y - 0.5
    variances = _blurred(u * u + v * v, kernel) - a * a - b * b
    covariance = _blurred(u * v, kernel) - a * b
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)


class Similarity(Located):
    """-weight · (1 - MS-SSIM(x, mean)), which is not a density; samples are the mean.

    Args:
        mean: images with shape `(*batch, C, H, W)`, with values in [0, 1].
        weight: distortion in nats of a reconstruction without any similarity.
    """

    has_density = False

    def __init__(self, mean: Tensor, weight: float) -> None:
        super().__init__(mean, 3)
        self.weight = weight

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            raise ValueError("MS-SSIM compares windows of pixels and does not support masks")
        x, y = torch.broadcast_tensors(promote(x).to(self.loc.dtype), self.loc)
        similar = ms_ssim(x.reshape(-1, *self.event_shape), y.reshape(-1, *self.event_shape))
        return -self.weight * (1 - similar.view(x.shape[:-3]))

    @override
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        return self.loc.expand(num, *self.loc.shape)
