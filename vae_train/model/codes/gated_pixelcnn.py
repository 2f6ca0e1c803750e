"""A gated convolutional network over maps of codes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.codes.autoregressive import Cache, CodeNetwork


class GatedPixelCNN(CodeNetwork):
    """A vertical stack that sees all rows above, and a horizontal stack that sees the codes to the left.

    A deep enough network has no blind spot: it sees all codes before a position. Its outputs are 0 before training.

    Args:
        code_shape: shape of an array, with L elements in total.
        num_codes: K, number of values of a code.
        width: channels of both stacks.
        layers: number of gated layers.
        kernel: side of the convolutions, odd.
    """

    def __init__(self, code_shape: Shape, num_codes: int, width: int, layers: int, kernel: int) -> None:
        super().__init__(code_shape, num_codes)
        self.rows = code_shape[0] if len(code_shape) > 1 else 1
        self.columns = self.length // self.rows
        self.codes = nn.Embedding(self.num_slots * num_codes, width)
        self.layers: Any = nn.ModuleList(GatedLayer(width, kernel) for _ in range(layers))
        self.output = nn.Conv2d(width, width, 1)
        self.heads = nn.Parameter(torch.zeros(self.num_slots, num_codes, width))

    @override
    def forward(self, codes: Tensor) -> Tensor:
        v = self._embedded(codes).unflatten(2, (self.rows, self.columns))
        h = F.pad(v, (1, 0))[..., :-1]
        for layer in self.layers:
            features = layer.vertical(F.pad(v, (0, 0, layer.reach, 0)))
            above = layer.link(F.pad(features, (0, 0, 1, 0))[:, :, :-1])
            h, v = layer.horizontal(F.pad(h, (layer.reach, 0)), above), gated(features)
        return self.logits(self._outputs(h).flatten(2).mT)

    @override
    def next_logits(self, codes: Tensor, cache: Cache) -> Tensor:
        position = codes.shape[1]
        row, column = divmod(position, self.columns)
        if column == 0:
            self._start_row(codes, cache, row)
        h = self._embedded(codes[:, -1:], position - 1)[..., None] if column else cache["zero"]
        for number, layer in enumerate(self.layers):
            window = torch.cat([cache[f"left {number}"], h], 3)
            cache[f"left {number}"] = window[..., 1:]
            h = layer.horizontal(window, cache[f"above {number}"][..., column : column + 1])
        return self.logits_at(self._outputs(h).flatten(1), position)

    def _start_row(self, codes: Tensor, cache: Cache, row: int) -> None:
        """Computes what a row sees of the rows above, by adding the last of these to the vertical stack."""
        zeros = self.heads.new_zeros(len(codes), self.codes.embedding_dim, 1, 1)
        cache["zero"] = zeros
        # A row starts with a code of the first codebook.
        v = self._embedded(codes[:, -self.columns :])[:, :, None] if row else None
        for number, layer in enumerate(self.layers):
            cache[f"left {number}"] = zeros.expand(-1, -1, 1, layer.reach)
            if v is None:
                cache[f"rows {number}"] = zeros.expand(-1, -1, layer.reach, self.columns)
                features = zeros.repeat(1, 2, 1, self.columns)
            else:
                window = torch.cat([cache[f"rows {number}"], v], 2)
                cache[f"rows {number}"] = window[:, :, 1:]
                features = layer.vertical(window)
                v = gated(features)
            cache[f"above {number}"] = layer.link(features)

    def _embedded(self, codes: Tensor, first: int = 0) -> Tensor:
        """Vectors `(N, width, P)` of codes `(N, P)` from position `first` on."""
        return self.codes(self.numbered(codes, first)).mT

    def _outputs(self, h: Tensor) -> Tensor:
        return F.relu(self.output(F.relu(h)))


class GatedLayer(nn.Module):
    """One layer of both stacks, figure 2 of the paper. Callers pad its inputs above and to the left.

    Args:
        width: channels of both stacks.
        kernel: side of the convolutions, odd.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.rows = nn.Conv2d(width, 2 * width, (self.reach + 1, kernel), padding=(0, self.reach))
        self.row = nn.Conv2d(width, 2 * width, (1, self.reach + 1))
        self.link = nn.Conv2d(2 * width, 2 * width, 1)
        """From features of the row above to those of the horizontal stack."""
        self.residual = nn.Conv2d(width, width, 1)

    def vertical(self, v: Tensor) -> Tensor:
        """Features `(N, 2 width, H, W)` of rows and the `reach` rows above each, before the gate."""
        return self.rows(v)

    def horizontal(self, h: Tensor, above: Tensor) -> Tensor:
        """Outputs `(N, width, H, W)` for columns and the `reach` columns to the left of each.

        Args:
            h: (N, width, H, W + reach).
            above: (N, 2 width, H, W), the result of `link` for the rows above.
        """
        return h[..., self.reach :] + self.residual(gated(self.row(h) + above))


def gated(features: Tensor) -> Tensor:
    """tanh(a) · sigmoid(b) for the two halves of the channels, equation 2 of the paper."""
    a, b = features.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)
