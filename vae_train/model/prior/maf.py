"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f_i(z) = z_i · exp(s(z_<i)) + t(z_<i).

Papamakarios et al., 2017, Masked Autoregressive Flow for Density Estimation, arXiv:1705.07057, eq. 3 to 6.
"""

from vae_train.model.prior.base import AffineFlowPrior


class MaskedAutoregressive(AffineFlowPrior):
    """A masked autoregressive flow: log p(z) takes one pass, sampling D. It starts near N(0, I).

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: number of autoregressive layers.
        hidden: sizes of the hidden layers of each transform's network.
    """

    max_map_size = 1024
