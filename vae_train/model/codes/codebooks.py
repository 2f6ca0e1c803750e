"""Learned codebooks: nearest vectors, their updates, and a start by k-means.

Razavi et al., 2019, Generating Diverse High-Fidelity Images with VQ-VAE-2, arXiv:1906.00446, eq. 2 to 4 (moving
averages); Zeghidour et al., 2021, SoundStream, arXiv:2107.03312, section III-C (residual codebooks, start, revival).
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from vae_train.rng import generator

Learning = Literal["ema", "gradient"]

KMEANS_STEPS = 10
"""Steps of k-means at the start."""

SMALLEST_COUNT = 1e-12
"""Vectors per image below which a moving average of them says nothing."""


class Quantized(NamedTuple):
    """The codes of some vectors, and what they were computed from."""

    vectors: Tensor
    """(*N, C) the sum of the vectors of the codes, without a gradient of the inputs."""
    codes: Tensor
    """(*N, Q) int64, a code of every codebook."""
    residuals: Tensor
    """(*N, Q, C) the input of every codebook."""


class Codebooks(nn.Module):
    """Q codebooks of K vectors each: the first one quantises a vector, each further one what the former left over.

    A code is dead if it is used less than `revive` times as often as the average one. It is replaced by a copy of a
    frequent code, at the distance of that code's typical input, in a random direction; the two share what that code
    was used for (Linde et al., 1980, An Algorithm for Vector Quantizer Design). Direction and distance come from means
    over the batch, so that microbatches do not change them.

    Args:
        num_codebooks: Q.
        num_codes: K.
        channels: C, size of the vectors.
        learning: "ema" for moving averages of the inputs of every code; "gradient" for parameters.
        decay: decay of the moving averages.
        revive: see above; 0 for never.
    """

    def __init__(
        self, num_codebooks: int, num_codes: int, channels: int, learning: Learning, decay: float, revive: float
    ) -> None:
        super().__init__()
        self.learning, self.decay, self.revive = learning, decay, revive
        vectors = torch.randn(num_codebooks, num_codes, channels)
        self.vectors = nn.Parameter(vectors) if learning == "gradient" else nn.Buffer(vectors)
        self.counts = nn.Buffer(torch.zeros(num_codebooks, num_codes))
        """Moving averages of the number of vectors per image that have a code."""
        self.sums = nn.Buffer(torch.zeros(num_codebooks, num_codes, channels)) if learning == "ema" else None
        """Moving averages of the sum of these vectors."""

    @override
    def forward(self, x: Tensor) -> Quantized:
        """Quantises vectors `(*N, C)`. The vectors of the codes have the gradient of the codebook, if it has one."""
        codes: list[Tensor] = []  # PyTorch's compiler does not know list[Tensor]()
        residuals: list[Tensor] = []
        rest, total = x, torch.zeros_like(x)
        for vectors in self.vectors:
            codes.append(nearest(rest.detach(), vectors.detach()))
            residuals.append(rest)
            chosen = vectors[codes[-1]]
            total, rest = total + chosen, rest - chosen.detach()
        return Quantized(total, torch.stack(codes, -1), torch.stack(residuals, -2))

    def embed(self, codes: Tensor) -> Tensor:
        """The sum of the vectors of codes `(*N, Q)`, with shape `(*N, C)`."""
        return torch.stack([vectors[codes[..., i]] for i, vectors in enumerate(self.vectors)]).sum(0)

    def distances(self, q: Quantized) -> tuple[Tensor, Tensor]:
        """Squared distances of inputs to vectors, summed over codebooks, `(*N,)` each.

        The first has a gradient for the inputs only, the second for the vectors only.
        """
        chosen = torch.stack([vectors[q.codes[..., i]] for i, vectors in enumerate(self.vectors)], -2)
        commitment = (q.residuals - chosen.detach()).square().sum((-2, -1))
        return commitment, (q.residuals.detach() - chosen).square().sum((-2, -1))

    @torch.no_grad()
    def statistics(self, residuals: Tensor, codes: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Means over B images for `update`.

        Args:
            residuals: (B, N, Q, C), see `Quantized`.
            codes: (B, N, Q).
            noise: (B, N, C) standard normal numbers.

        Returns:
            For every code the "counts" (Q, K), and the "sums" of inputs, "noise" and squared "errors" of its inputs.
        """
        batch, channels = codes.shape[0], residuals.shape[-1]
        inputs = residuals.detach().flatten(0, 1).movedim(1, 0)  # (Q, B N, C)
        numbers = codes.flatten(0, 1).T  # (Q, B N)
        members = F.one_hot(numbers, self.vectors.shape[1]).to(inputs.dtype)
        chosen = torch.stack([vectors[number] for vectors, number in zip(self.vectors, numbers, strict=True)])
        errors = (inputs - chosen).square().sum(-1, keepdim=True)
        columns = torch.cat([torch.ones_like(errors), inputs, noise.flatten(0, 1).expand_as(inputs), errors], -1)
        counts, sums, directions, errors = (members.mT @ columns / batch).split([1, channels, channels, 1], -1)
        return {"counts": counts[..., 0], "sums": sums, "noise": directions, "errors": errors[..., 0]}

    @torch.no_grad()
    def update(self, statistics: dict[str, Tensor]) -> None:
        """Moves averages and vectors in place, and replaces dead codes."""
        self.counts.lerp_(statistics["counts"], 1 - self.decay)
        if self.sums is not None:
            self.sums.lerp_(statistics["sums"], 1 - self.decay)
            means = self.sums / self.counts.clamp(min=SMALLEST_COUNT)[..., None]
            self.vectors.copy_(torch.where(self.counts[..., None] > SMALLEST_COUNT, means, self.vectors))
        if self.revive:
            self._split(statistics)

    def _split(self, statistics: dict[str, Tensor]) -> None:
        """Replaces every dead code, as far as there are frequent ones: the r-th dead code by the r-th frequent one."""
        counts, present = self.counts, statistics["counts"]
        is_dead = counts < self.revive * counts.mean(-1, keepdim=True)
        ranks = is_dead.cumsum(-1) - 1
        frequent = counts.sort(dim=-1, descending=True, stable=True).indices
        source = frequent.gather(-1, ranks.clamp(min=0))  # (Q, K)
        is_split = is_dead & ~is_dead.gather(-1, source) & (present.gather(-1, source) > 0)
        direction = F.normalize(statistics["noise"], dim=-1)
        distance = (statistics["errors"] / present.clamp(min=SMALLEST_COUNT)).sqrt()
        copies = _rows(self.vectors + distance[..., None] * direction, source)
        # A frequent code is the source of one dead code at most; the others add 0 to it.
        is_source = torch.zeros_like(counts).scatter_add(-1, source, is_split.to(counts.dtype))
        halved = counts * (1 - 0.5 * is_source)
        if self.sums is not None:
            self.sums.mul_(1 - 0.5 * is_source[..., None])
            shares = halved.gather(-1, source)[..., None] * copies
            self.sums.copy_(torch.where(is_split[..., None], shares, self.sums))
        self.counts.copy_(torch.where(is_split, halved.gather(-1, source), halved))
        self.vectors.copy_(torch.where(is_split[..., None], copies, self.vectors))

    @torch.no_grad()
    def fit(self, x: Tensor, per_image: float) -> None:
        """Sets the vectors by k-means.

        Args:
            x: (N, C) vectors of images, at least K.
            per_image: number of vectors per image.
        """
        for number in range(len(self.vectors)):
            centers, codes = kmeans(x, self.vectors.shape[1])
            self.vectors[number].copy_(centers)
            counts = _counts(codes, len(centers)).to(x) * (per_image / len(x))
            self.counts[number].copy_(counts)
            if self.sums is not None:
                self.sums[number].copy_(counts[:, None] * centers)
            x = x - centers[codes]


def nearest(x: Tensor, vectors: Tensor) -> Tensor:
    """The number of the vector nearest to each x, int64 `(*N,)`.

    Args:
        x: (*N, C).
        vectors: (K, C).
    """
    with torch.autocast(x.device.type, enabled=False):  # bfloat16 would confuse near vectors
        return (0.5 * vectors.square().sum(-1) - x @ vectors.T).argmin(-1)


def kmeans(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`count` centres `(count, C)` of x `(N, C)`, and the number of the centre of every x.

    It starts from distinct rows. A centre without any x stays where it is.
    """
    rows = torch.randperm(len(x), generator=generator("k-means", len(x)))[:count]
    centers = x[rows.to(x.device)]
    for _ in range(KMEANS_STEPS):
        codes = _nearest_in_chunks(x, centers)
        # On the CPU, where sums have a fixed order.
        sums = torch.zeros(centers.shape, dtype=x.dtype).index_add(0, codes.cpu(), x.cpu()).to(x)
        counts = _counts(codes, count).to(x)[:, None]
        centers = torch.where(counts > 0, sums / counts.clamp(min=1), centers)
    return centers, _nearest_in_chunks(x, centers)


CHUNK_ELEMENTS = 2**24
"""Distances per pass of k-means."""


def _nearest_in_chunks(x: Tensor, centers: Tensor) -> Tensor:
    rows = max(1, CHUNK_ELEMENTS // len(centers))
    return torch.cat([nearest(part, centers) for part in x.split(rows)])


def _counts(codes: Tensor, count: int) -> Tensor:
    """How often each of `count` codes occurs, `(count,)`."""
    return torch.bincount(codes.flatten(), minlength=count)


def _rows(values: Tensor, numbers: Tensor) -> Tensor:
    """Row `numbers[q, k]` of `values[q]`, for all of them: `(Q, K, C)`."""
    return values.gather(1, numbers[..., None].expand_as(values))
