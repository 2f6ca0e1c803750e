"""Distributions of arrays of codes in which a network predicts every code from those before it."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import Shape
from vae_train.distributions.base import Distribution, promote
from vae_train.rng import Rng

SAMPLE_ROWS = 64
"""Arrays that are sampled together. It is fixed, so that the noise of a sample and even the rounding of its logits only
depend on its position among the samples."""

MAX_CHUNK_ELEMENTS = 2**24
"""Logits, or weights of attention, per pass of `log_prob`."""

Cache = dict[str, Any]
"""What a network remembers between two codes of a sample."""


class CodeNetwork(nn.Module, ABC):
    """Predicts every code of an array from the codes before it, in the order of the flattened array.

    Args:
        code_shape: shape of an array, with L elements in total.
        num_codes: K, number of values of a code.
    """

    def __init__(self, code_shape: Shape, num_codes: int) -> None:
        super().__init__()
        self.code_shape, self.num_codes, self.length = tuple(code_shape), num_codes, math.prod(code_shape)
        self.num_slots = 1 if len(code_shape) in (0, 2) else code_shape[-1]
        """Number of codebooks. A map `(H, W)` has one. The elements of a last dimension of quantisers, and those of a
        list, each have their own; positions i and i + `num_slots` share theirs."""

    heads: nn.Parameter
    """(num_slots, K, width) maps features of a position to logits, one matrix for each codebook."""

    def logits(self, h: Tensor) -> Tensor:
        """Maps features `(N, L, width)` of all positions to logits `(N, L, K)`."""
        return torch.einsum("nlsw,skw->nlsk", h.unflatten(1, (-1, self.num_slots)), self.heads).flatten(1, 2)

    def logits_at(self, h: Tensor, position: int) -> Tensor:
        """Maps features `(N, width)` of one position to logits `(N, K)`."""
        return h @ self.heads[position % self.num_slots].T

    def numbered(self, codes: Tensor, first: int = 0) -> Tensor:
        """Numbers of codes `(N, P)` from position `first` on, in a table of all codebooks, one after another."""
        slots = torch.arange(first, first + codes.shape[1], device=codes.device) % self.num_slots
        return codes + self.num_codes * slots

    @abstractmethod
    def forward(self, codes: Tensor) -> Tensor:
        """Computes logits `(N, L, K)` of all codes; those of a position only depend on the codes before it.

        Args:
            codes: (N, L) int64.
        """

    @abstractmethod
    def next_logits(self, codes: Tensor, cache: Cache) -> Tensor:
        """Computes logits `(N, K)` of the code that follows `codes`: those of `forward` at position P.

        Args:
            codes: (N, P) int64, the first P codes.
            cache: empty for P = 0, and then passed from every call to the next, which changes it.
        """


class Autoregressive(Distribution):
    """P(codes) = prod_i P(code_i | code_1, …, code_{i-1}), each factor a softmax of logits; batch ().

    A sample has one code after another, each the argmax of the logits plus Gumbel noise.

    Args:
        network: predicts logits.
        offset: (L, K) a constant part of the logits.
        top_k: samples only have codes that are among the k most likely ones given those before; None for all codes.
            It has no effect on `log_prob`.
    """

    def __init__(self, network: CodeNetwork, offset: Tensor, top_k: int | None = None) -> None:
        super().__init__(torch.Size(network.code_shape), len(network.code_shape))
        self.network, self.offset, self.top_k = network, offset, top_k

    @property
    @override
    def mean(self) -> Tensor:
        raise NotImplementedError("codes are numbers of vectors, so they have no mean")

    @override
    def joint_log_prob(self, x: Tensor) -> Tensor:
        leading = x.shape[: x.dim() - len(self.event_shape)]
        rows = x.reshape(-1, self.network.length)
        count = max(1, MAX_CHUNK_ELEMENTS // (self.network.length * max(self.offset.shape)))
        return torch.cat([self._log_prob(chunk) for chunk in rows.split(count)]).view(leading)

    @override
    @torch.no_grad()
    def sample(self, rng: Rng, num: int, temperature: float = 1.0) -> Tensor:
        """Samples int64 arrays with shape `(num, *event)`.

        Args:
            rng: the source of the noise.
            num: number of samples.
            temperature: divides the logits; 0 always takes the most likely code.
        """
        blocks = [self._sample_block(rng, temperature) for _ in range(-(-num // SAMPLE_ROWS))]
        return torch.cat(blocks)[:num].view(num, *self.event_shape)

    def _log_prob(self, codes: Tensor) -> Tensor:
        logits = promote(self.network(codes)) + self.offset
        return -F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(codes.shape).sum(-1)

    def _sample_block(self, rng: Rng, temperature: float) -> Tensor:
        """Samples `SAMPLE_ROWS` arrays, flattened."""
        codes = torch.zeros(SAMPLE_ROWS, 0, dtype=torch.int64, device=self.offset.device)
        cache: Cache = {}
        for offset in self.offset:
            logits = self._truncated(promote(self.network.next_logits(codes, cache)) + offset)
            if temperature > 0.0:
                logits = logits / temperature + rng.gumbel(logits.shape, logits.dtype).to(logits.device)
            codes = torch.cat([codes, logits.argmax(-1, keepdim=True)], 1)
        return codes

    def _truncated(self, logits: Tensor) -> Tensor:
        """Logits with minus infinity in place of all but the `top_k` largest of every row."""
        if self.top_k is None or self.top_k >= logits.shape[-1]:
            return logits
        values, index = logits.topk(self.top_k, -1)
        return torch.full_like(logits, -math.inf).scatter(-1, index, values)


def log_frequencies(codes: Tensor, num_codes: int) -> Tensor:
    """Computes log((n + 1/2) / (N + K/2)) for n occurrences of a code at a position of N arrays: `(L, K)` float64.

    Krichevsky & Trofimov, "The performance of universal encoding" (1981): the half that is added to every count smooths
    the table.

    Args:
        codes: (N, *code_shape) int64.
        num_codes: K, number of values of a code.
    """
    flat = codes.flatten(1) if codes.dim() > 1 else codes[:, None]
    length = flat.shape[1]
    numbers = flat + num_codes * torch.arange(length, device=codes.device)
    counts = torch.bincount(numbers.flatten(), minlength=length * num_codes).view(length, num_codes).double()
    return torch.log((counts + 0.5) / (len(codes) + 0.5 * num_codes))
