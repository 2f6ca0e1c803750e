"""log p(z) = log N(f(z); 0, I) + log |det df/dz|, f of affine coupling layers.

y_a = z_a · exp(c) + d,  y_b = z_b · exp(s(z_a)) + t(z_a);  a and b swap from each layer to the next. (The original has
y_a = z_a; the constants c and d cost nothing.) For a map (C, H, W), s and t are convolutional, and a and b are
checkerboards or halves of the channels, see `ConvFlow`.

Dinh et al., 2017, Density Estimation Using Real NVP, arXiv:1605.08803, eq. 2 to 8.
"""

from vae_train.model.prior.base import AffineFlowPrior


class RealNVP(AffineFlowPrior):
    """A RealNVP flow: sampling is as fast as log p(z). It starts near N(0, I).

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: number of coupling layers.
        hidden: sizes of the hidden layers of each transform's network; for maps, their channels.

    Raises:
        ValueError: there is only one latent, which cannot be split.
    """

    coupling = True
