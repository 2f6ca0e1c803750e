"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f_i(z) a rational-quadratic spline in z_i with parameters of z_<i.

Durkan et al., 2019, Neural Spline Flows, arXiv:1906.04032, section 3.1, in their autoregressive form.
"""

from vae_train.batch import Shape
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.model.prior.base import FlowPrior
from vae_train.util.ranges import PositiveInt


class NeuralSpline(FlowPrior):
    """A neural spline flow: log p(z) takes one pass, sampling D. It starts near N(0, I), and equals it outside [-5, 5].

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: number of autoregressive layers.
        bins: bins of each spline.
        hidden: sizes of the hidden layers of each transform's network.
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
        self.flow = MaskedFlow(self.size, 0, transforms, hidden, bins, coupling=False)
