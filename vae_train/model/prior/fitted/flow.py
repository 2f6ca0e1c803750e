"""A neural spline flow, trained on encodings."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.flows.base import Chain, Reversed, Scale, Transformed
from vae_train.distributions.flows.convolutional import ConvFlow
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.normal import Normal
from vae_train.model.base import Encode
from vae_train.model.prior.fitted.base import FittedPrior, GradientTraining, mean_and_std
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt


class SplineFlow(FittedPrior):
    """A neural spline flow on encodings that are standardised to mean 0 and variance 1.

    It is autoregressive for vectors, and has convolutional couplings for maps.

    Source: Durkan et al., "Neural Spline Flows" (arXiv:1906.04032), section 3.1.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: number of autoregressive layers, or of couplings.
        bins: bins of each spline, at least 2.
        hidden: sizes of the hidden layers of each transform's network; for maps, their channels.
        steps: maximal number of updates.
        patience: held-out evaluations without improvement that end the training.
        batch_size: encodings per update.
        lr: learning rate of Adam.
    """

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        transforms: PositiveInt,
        bins: PositiveInt,
        hidden: list[PositiveInt],
        steps: NonNegativeInt,
        patience: PositiveInt,
        batch_size: PositiveInt,
        lr: PositiveFloat,
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.shift = nn.Buffer(torch.zeros(self.size))
        self.log_scale = nn.Buffer(torch.zeros(self.size))
        if len(self.event_shape) == 3:
            self.flow: ConvFlow | MaskedFlow = ConvFlow(self.event_shape, transforms, hidden, bins)
        else:
            self.flow = MaskedFlow(self.size, 0, transforms, hidden, bins, coupling=False)
        self.gradient_training = GradientTraining(steps, patience, batch_size, lr)

    @override
    def fit(self, z: Tensor, held_out: Tensor, seed: int) -> None:
        shift, scale = mean_and_std(z)
        self.shift.copy_(shift)
        self.log_scale.copy_(scale.log())

    @override
    def forward(self, encode: Encode) -> Transformed:
        zero = self.shift.new_zeros(self.event_shape)
        whole = Chain([Reversed(self.flow()), Scale(self.shift, self.log_scale)])
        return Transformed(Normal(zero, zero, len(self.event_shape)), whole)
