"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f_i(z) a rational-quadratic spline in z_i with parameters of z_<i.

Durkan et al., 2019, Neural Spline Flows, arXiv:1906.04032, section 3.1, in their autoregressive form. A map (C, H, W)
has convolutional couplings instead, see `ConvFlow`.
"""

from vae_train.batch import Shape
from vae_train.distributions.flows.convolutional import ConvFlow
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.model.prior.base import FlowPrior
from vae_train.util.ranges import PositiveInt


class NeuralSpline(FlowPrior):
    """A neural spline flow that starts near N(0, I), and equals it outside [-5, 5].

    log p(z) takes one pass. Sampling takes D passes for a vector of D elements, one for a map.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: number of autoregressive layers, or of couplings.
        bins: bins of each spline.
        hidden: sizes of the hidden layers of each transform's network; for maps, their channels.
    """

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        transforms: PositiveInt,
        bins: PositiveInt,
        hidden: list[PositiveInt],
    ) -> None:
        super().__init__(event_shape, data_shape)
        if len(self.event_shape) == 3:
            self.flow = ConvFlow(self.event_shape, transforms, hidden, bins)
        else:
            self.flow = MaskedFlow(self.size, 0, transforms, hidden, bins, coupling=False)
