"""A small causal transformer over codes."""

from vae_train.batch import Shape
from vae_train.model.codes.causal_transformer import CausalTransformer
from vae_train.model.prior.fitted.base import CodePrior, WarmupFraction
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt


class AutoregressiveCodes(CodePrior):
    """A causal transformer that predicts every code of a map from the codes before it, row by row.

    Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762), with layer normalisation before the layers (Radford
    et al., "Language Models are Unsupervised Multitask Learners", 2019).

    Args:
        event_shape: shape of an array of codes.
        data_shape: (C, H, W) of an image; not used.
        num_codes: K, number of values of a code.
        width: features per position.
        layers: number of blocks of self-attention and a two-layer perceptron.
        heads: attention heads of each block; divides `width`.
        epochs: see `CodePrior`, like all further arguments.
        steps: instead of `epochs`.
        patience: ends the training early.
        batch_size: arrays of codes per update.
        lr: learning rate of Adam.
        warmup: fraction of the updates.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        num_codes: int,
        width: PositiveInt,
        layers: NonNegativeInt,
        heads: PositiveInt,
        epochs: PositiveInt,
        steps: PositiveInt | None,
        patience: PositiveInt,
        batch_size: PositiveInt,
        lr: PositiveFloat,
        warmup: WarmupFraction,
    ) -> None:
        if width % heads:
            raise ValueError(f"width must be a multiple of heads={heads}, not {width}")
        network = CausalTransformer(event_shape, num_codes, width, layers, heads)
        super().__init__(event_shape, data_shape, network, epochs, steps, patience, batch_size, lr, warmup)
