"""A gated PixelCNN over maps of codes."""

from vae_train.batch import Shape
from vae_train.model.codes.gated_pixelcnn import GatedPixelCNN
from vae_train.model.prior.fitted.base import CodePrior, WarmupFraction
from vae_train.util.ranges import PositiveFloat, PositiveInt


class PixelCNN(CodePrior):
    """A gated convolutional network that predicts every code of a map from those above and to the left.

    van den Oord et al., "Conditional Image Generation with PixelCNN Decoders" (arXiv:1606.05328), sections 2.1 and 2.2.
    A list of codes is a map with one row; several codes per place are neighbours in their row.

    Args:
        event_shape: shape of an array of codes.
        data_shape: (C, H, W) of an image; not used.
        num_codes: K, number of values of a code.
        width: channels of both stacks.
        layers: number of gated layers; each sees `kernel` // 2 codes further.
        kernel: side of the convolutions, odd.
        epochs: see `CodePrior`, like all further arguments.
        steps: instead of `epochs`.
        patience: ends the training early.
        batch_size: arrays of codes per update.
        lr: learning rate of Adam.
        warmup: fraction of the updates.

    Raises:
        ValueError: the kernel is even or 1.
    """

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        num_codes: int,
        width: PositiveInt,
        layers: PositiveInt,
        kernel: PositiveInt,
        epochs: PositiveInt,
        steps: PositiveInt | None,
        patience: PositiveInt,
        batch_size: PositiveInt,
        lr: PositiveFloat,
        warmup: WarmupFraction,
    ) -> None:
        if kernel % 2 == 0 or kernel == 1:
            raise ValueError(f"kernel must be odd and at least 3, not {kernel}")
        network = GatedPixelCNN(event_shape, num_codes, width, layers, kernel)
        super().__init__(event_shape, data_shape, network, epochs, steps, patience, batch_size, lr, warmup)
