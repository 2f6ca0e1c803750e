"""A causal transformer over arrays of codes."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.model.codes.autoregressive import Cache, CodeNetwork


class CausalTransformer(CodeNetwork):
    """A transformer in which every position attends to earlier positions only.

    Its input at a position is the code before it. Its outputs are 0 before training.

    Args:
        code_shape: shape of an array, with L elements in total.
        num_codes: K, number of values of a code.
        width: features per position.
        layers: number of blocks.
        heads: attention heads of each block.
    """

    def __init__(self, code_shape: Shape, num_codes: int, width: int, layers: int, heads: int) -> None:
        super().__init__(code_shape, num_codes)
        self.codes = nn.Embedding(self.num_slots * num_codes, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.positions = nn.Parameter(torch.zeros(self.length, width))
        # The sum over all blocks starts small, as in GPT-2.
        self.blocks: Any = nn.ModuleList(Block(width, heads, 0.02 / math.sqrt(2 * layers)) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Parameter(torch.zeros(self.num_slots, num_codes, width))
        nn.init.normal_(self.codes.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.02)

    @override
    def forward(self, codes: Tensor) -> Tensor:
        before = self.codes(self.numbered(codes))[:, :-1]
        h = torch.cat([self.start.expand(len(codes), 1, -1), before], 1) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.logits(self.norm(h))

    @override
    def next_logits(self, codes: Tensor, cache: Cache) -> Tensor:
        position = codes.shape[1]
        h = self.codes(self.numbered(codes[:, -1:], position - 1)) if position else self.start.expand(len(codes), 1, -1)
        h = h + self.positions[position]
        for number, block in enumerate(self.blocks):
            if not position:
                cache[f"{number}"] = block.memory(h, self.length)
            h = block.step(h, cache[f"{number}"], position)
        return self.logits_at(self.norm(h[:, 0]), position)


class Block(nn.Module):
    """Self-attention and a two-layer perceptron, both with layer normalisation and a residual connection.

    Args:
        width: features per position.
        heads: attention heads.
        std: standard deviation of the initial weights of the last layers.
    """

    def __init__(self, width: int, heads: int, std: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        last = nn.Linear(4 * width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), last)
        nn.init.normal_(self.projection.weight, std=std)
        nn.init.normal_(last.weight, std=std)

    def forward(self, h: Tensor) -> Tensor:
        """Maps features `(N, L, width)` of all positions to features."""
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool, device=h.device).triu(1)
        q, k, v = self._queries_keys_values(h)
        return self._mapped(h, q, k, v, later)

    def memory(self, h: Tensor, length: int) -> Tensor:
        """Room for the keys and values of `length` positions, for features like `h`."""
        return h.new_zeros(2, len(h), self.heads, length, h.shape[-1] // self.heads)

    def step(self, h: Tensor, memory: Tensor, position: int) -> Tensor:
        """Maps features `(N, 1, width)` of one position, after those of all earlier positions.

        Args:
            h: features of the position.
            memory: (2, N, heads, L, width / heads), see `memory`; those of the position are added in place.
            position: number of the position.
        """
        q, *added = self._queries_keys_values(h)
        memory[:, :, :, position] = torch.stack(added)[:, :, :, 0]
        k, v = memory[:, :, :, : position + 1]
        return self._mapped(h, q, k, v)

    def _queries_keys_values(self, h: Tensor) -> Tensor:
        """Queries, keys and values: `(3, N, heads, L, width / heads)`."""
        return self.qkv(self.norms[0](h)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def _mapped(self, h: Tensor, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None = None) -> Tensor:
        """The outputs of the block; keys are not attended to where `hidden` is True."""
        # PyTorch's fused attention has gradients on GPUs that differ from call to call.
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if hidden is not None:
            scores = scores.masked_fill(hidden, -math.inf)
        h = h + self.projection((F.softmax(scores, -1) @ v).transpose(1, 2).flatten(-2))
        return h + self.mlp(self.norms[1](h))
