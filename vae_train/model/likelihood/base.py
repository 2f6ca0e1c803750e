"""Base classes of likelihoods."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution
from vae_train.distributions.dequantized import Dequantized
from vae_train.distributions.location_scale import Fitted
from vae_train.model.family import Likelihood
from vae_train.model.scale import Scale, ScaleMode, density_floor, discretized_floor
from vae_train.model.trace import Trace
from vae_train.util.errors import Incompatible
from vae_train.util.ranges import PositiveFloat


class Density(Likelihood):
    """A density of pixels in [0, 1], which cannot score binary data."""

    is_bounded = True

    @classmethod
    @override
    def check_compatible(cls, levels: int | None, **settings: Any) -> Incompatible | None:
        if levels != 2:
            return None
        instead = {"likelihood": "bernoulli", "data.binarize": "none"}
        return Incompatible("is a density, but the data is binary", instead)


class Discretized(Likelihood):
    """Pixels with levels; the probability of a level is the mass of its interval under a density.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take.
        settings: "scale", and "scale_mode" unless the scale is always learned.
    """

    levels: int

    @classmethod
    @override
    def check_compatible(cls, levels: int | None, **settings: Any) -> Incompatible | None:
        if levels is None:
            return Incompatible("needs pixels with levels, but the data is continuous", {"likelihood": "gaussian"})
        if levels == 2:
            reason = "needs more than two levels, but the data is binary"
            return Incompatible(reason, {"likelihood": "bernoulli"})
        scale, least = settings["scale"], discretized_floor(levels)
        if settings.get("scale_mode") == "fixed" or scale > least:
            return None
        reason = f"starts with scale={scale:g}, but a learned scale has the lower bound 1 / (8 levels) = {least:g}"
        return Incompatible(reason, {"likelihood.scale": f"{2 * least:.2g}"})


class LocationScale(Likelihood):
    """Independent pixels with a location-scale density, whose location is the decoder's output.

    Data with levels is dequantised.

    Args:
        event_shape: (C, H, W) of an image.
        levels: number of values that a pixel can take; None for continuous data.
        scale: the scale, for pixels in [0, 1] or standardised columns; the initial value if the scale is learned.
        scale_mode: see `vae_train.model.scale.Scale`. Unless it is fixed, the scale stays above 1 / (2 levels): a
            narrower density would fit the grid of levels instead of the images.
        column_shape: see `vae_train.batch.DataFacts`.
    """

    power: ClassVar[int]
    """See `vae_train.distributions.location_scale.Scalable`, for densities with an optimal scale."""

    def __init__(
        self,
        event_shape: Shape,
        levels: int | None,
        scale: PositiveFloat,
        scale_mode: ScaleMode,
        column_shape: Shape = (),
    ) -> None:
        if scale_mode == "auto":
            scale_mode = "column" if column_shape else "shared"
        super().__init__(event_shape, levels, scale=scale, scale_mode=scale_mode)
        self.scale = Scale(self.event_shape, scale, scale_mode, density_floor(levels, scale_mode), column_shape)
        self.parameter_shape = self.scale.parameter_shape

    @classmethod
    @override
    def check_compatible(cls, levels: int | None, **settings: Any) -> Incompatible | None:
        scale, scale_mode = settings["scale"], settings["scale_mode"]
        if levels == 2:
            learns = "" if scale_mode == "fixed" else ", so the scale would collapse"
            reason = f"is a density, but the data is binary{learns}"
            return Incompatible(reason, {"likelihood": "bernoulli", "data.binarize": "none"})
        least = density_floor(levels, scale_mode)
        if scale > least:
            return None
        bound = "the lower bound" if levels is None else "the lower bound 1 / (2 levels) ="
        reason = f"starts with scale={scale:g}, but scale_mode={scale_mode} has {bound} {least:g}"
        return Incompatible(reason, {"likelihood.scale": f"{2 * least:.2g}"})

    @override
    def forward(self, parameters: Tensor) -> Distribution:
        density = self.density(*self.scale(parameters))
        density = density if self.levels is None else self.dequantized(density, self.levels)
        fitted = self.scale.scale_mode == "optimal" and torch.is_grad_enabled()
        return Fitted(density, self.scale.floor) if fitted else density

    @abstractmethod
    def density(self, location: Tensor, log_scale: Tensor) -> Any:
        """The density of continuous pixels.

        Args:
            location: with shape `(*N, C, H, W)`.
            log_scale: logarithm of the scale, broadcasts against the location.
        """

    def dequantized(self, density: Any, levels: int) -> Distribution:
        """The density for pixels with `levels` levels."""
        return Dequantized(density, levels)

    @override
    def statistics(self, trace: Trace) -> dict[str, Tensor]:
        if not isinstance(trace.px, Fitted):
            return {}
        return {"distance": trace.px.mean_distance(trace.x, trace.mask)}

    @override
    def update_state(self, statistics: dict[str, Tensor]) -> None:
        if statistics:
            self.scale.update_state(statistics["distance"], self.power)
