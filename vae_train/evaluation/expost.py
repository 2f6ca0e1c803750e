"""A density fitted to encodings of a trained model, to draw from instead of its prior (Ghosh et al., 2020, section 4).

Samples are bad and reconstructions good where the prior p(z) is far from the aggregate posterior q(z) = E_x q(z | x):
the decoder is then asked about z that it never saw. What is fitted to draws of q(z) is a prior like any other: with it
the model is another p(x, z), whose evidence bounds hold. The gap that it closes is, in nats per image,

    E_q(z)[log p_fitted(z)] - E_q(z)[log p(z)],

measured on encodings of images that nothing was fitted to.

- `gmm`: normal distributions with full covariances, by expectation maximisation.
- `kde`: a normal kernel on encodings, its bandwidth Scott's or the best on held-out encodings.
- `flow`: a neural spline flow, trained with Adam until held-out encodings get no likelier.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from vae_train.batch import evenly_spaced
from vae_train.distributions.base import Distribution
from vae_train.distributions.flows.base import Chain, Reversed, Scale
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.mixture import Mixture
from vae_train.distributions.multivariate import MultivariateNormal
from vae_train.distributions.normal import Normal
from vae_train.distributions.transformed import Transformed
from vae_train.evaluation.evidence import summary
from vae_train.model.base import Prior, Shape
from vae_train.rng import generator
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt

HELD = 0.1
"""Share of the encodings that nothing is fitted to, but by which bandwidths and the end of a training are chosen."""

BANDWIDTHS = tuple(2 ** (k / 2) for k in range(-6, 5))
"""Multiples of Scott's bandwidth that are tried."""

RIDGE = 1e-6
"""Added to the variances of a mixture's components, relative to those of the encodings."""

LOOK = 50
"""Steps between looks at the held-out encodings."""

AT_ONCE = 2**23
"""Log-densities of components at a time."""


class ExPost(Prior):
    """A prior that was fitted to encodings.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
    """

    kind: ClassVar[str]

    def __init__(self, event_shape: Shape, data_shape: Shape) -> None:
        super().__init__(event_shape, data_shape)
        self.size = torch.Size(event_shape).numel()

    def fit(self, z: Tensor, held: Tensor, seed: int) -> None:
        """Fits it.

        Args:
            z: (N, D) float64 encodings.
            held: (M, D) further ones, which only choose.
            seed: decides all that is random.
        """
        raise NotImplementedError

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) of encodings `(N, D)`, some at a time: `(N,)` float64."""
        return log_density(self(_no_images), z.view(-1, *self.event_shape))


class GaussianMixture(ExPost):
    """A mixture of normal distributions with full covariances.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        components: M, how many.
    """

    kind = "gmm"

    def __init__(self, event_shape: Shape, data_shape: Shape, components: PositiveInt) -> None:
        super().__init__(event_shape, data_shape)
        self.means: Tensor
        self.factors: Tensor
        self.logits: Tensor
        self.register_buffer("means", torch.zeros(components, self.size))
        self.register_buffer("factors", torch.zeros(components, self.size, self.size))
        self.register_buffer("logits", torch.zeros(components))

    def fit(self, z: Tensor, held: Tensor, seed: int) -> None:
        """See `ExPost.fit`; there is nothing to choose, so that all encodings are fitted."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as ScikitLearns

        z = torch.cat([z, held])
        shift, scale = moments(z)
        found = ScikitLearns(len(self.logits), reg_covar=RIDGE, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.fit(((z - shift) / scale).numpy())
        means, covariances, weights = map(torch.from_numpy, (found.means_, found.covariances_, found.weights_))
        self.means.copy_(shift + scale * means)
        self.factors.copy_(scale[:, None] * torch.linalg.cholesky(covariances))
        self.logits.copy_(weights.log())

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Mixture:
        means = self.means.unflatten(-1, self.event_shape)
        return _Sliced(MultivariateNormal(means, self.factors, len(self.event_shape)), self.logits)


class KernelDensity(ExPost):
    """A normal distribution around each of many encodings, its scale the same for all.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        centers: how many encodings.
        bandwidth: the kernel's standard deviation as a multiple of the encodings'; "scott" is n^(-1 / (D + 4)) (Scott,
            1992), "validated" the multiple of that which held-out encodings are likeliest under.
    """

    kind = "kde"

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        centers: PositiveInt,
        bandwidth: Literal["scott", "validated"] | PositiveFloat,
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.bandwidth = bandwidth
        self.centers: Tensor
        self.log_scale: Tensor
        self.register_buffer("centers", torch.zeros(centers, self.size))
        self.register_buffer("log_scale", torch.zeros(self.size))

    @override
    def fit(self, z: Tensor, held: Tensor, seed: int) -> None:
        self.centers.copy_(z[evenly_spaced(len(z), len(self.centers))])
        _, scale = moments(z)
        scott = len(self.centers) ** (-1 / (self.size + 4))
        if self.bandwidth == "validated":
            tried = [scott * factor for factor in BANDWIDTHS]
        else:
            tried = [scott if self.bandwidth == "scott" else float(self.bandwidth)]
        found = []
        for bandwidth in tried:
            self.log_scale.copy_(scale.log() + math.log(bandwidth))
            found.append(self.log_prob(held.to(self.centers)).mean().item() if len(tried) > 1 else 0.0)
        best = tried[max(range(len(tried)), key=found.__getitem__)]
        self.log_scale.copy_(scale.log() + math.log(best))

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Mixture:
        centers, log_scale = (t.unflatten(-1, self.event_shape) for t in (self.centers, self.log_scale))
        kernels = Normal(centers, log_scale, len(self.event_shape))
        return _Sliced(kernels, self.centers.new_zeros(len(self.centers)))


class SplineFlow(ExPost):
    """A neural spline flow on encodings that are shifted and scaled to mean 0 and variance 1.

    Args:
        event_shape: shape of z.
        data_shape: (C, H, W) of an image; not used.
        transforms: how many autoregressive layers.
        bins: pieces of each spline.
        hidden: sizes of the hidden layers of each one's network.
        steps: updates, at most.
        patience: looks at the held-out encodings, one every 50 steps, without a gain after which it ends.
        batch_size: encodings per update.
        lr: learning rate of Adam.
    """

    kind = "flow"

    def __init__(
        self,
        event_shape: Shape,
        data_shape: Shape,
        transforms: PositiveInt,
        bins: PositiveInt,
        hidden: list[PositiveInt],
        steps: NonNegativeInt,
        patience: PositiveInt,
        batch_size: PositiveInt,
        lr: PositiveFloat,
    ) -> None:
        super().__init__(event_shape, data_shape)
        self.steps, self.patience, self.batch_size, self.lr = steps, patience, batch_size, lr
        self.shift: Tensor
        self.log_scale: Tensor
        self.register_buffer("shift", torch.zeros(self.size))
        self.register_buffer("log_scale", torch.zeros(self.size))
        self.flow = MaskedFlow(self.size, 0, transforms, hidden, bins, coupling=False)

    def fit(self, z: Tensor, held: Tensor, seed: int) -> None:
        """See `ExPost.fit`; it ends with the weights that the held-out encodings were likeliest under."""
        shift, scale = moments(z)
        self.shift.copy_(shift)
        self.log_scale.copy_(scale.log())
        z, held = z.to(self.shift), held.to(self.shift)
        optimizer = torch.optim.Adam(self.parameters(), self.lr)
        best, state, waited = -math.inf, _copied(self), 0
        for step in range(self.steps + 1):
            if step % LOOK == 0 or step == self.steps:
                value = self.log_prob(held).mean().item()
                if value > best:
                    best, state, waited = value, _copied(self), 0
                elif (waited := waited + 1) >= self.patience:
                    break
            if step < self.steps:
                size = min(self.batch_size, len(z))
                rows = torch.randint(len(z), (size,), generator=generator(seed, "expost", step)).to(z.device)
                loss = -self(_no_images).log_prob(z[rows].unflatten(-1, self.event_shape)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.load_state_dict(state)

    @override
    def forward(self, encode: Callable[[Tensor], Distribution]) -> Transformed:
        zero = self.shift.new_zeros(self.event_shape)
        whole = Chain([Reversed(self.flow()), Scale(self.shift, self.log_scale)])
        return Transformed(Normal(zero, zero, len(self.event_shape)), whole)


KINDS: dict[str, type[ExPost]] = {kind.kind: kind for kind in (GaussianMixture, KernelDensity, SplineFlow)}


class _Sliced(Mixture):
    """A mixture that scores so few values at a time that many components fit into memory."""

    @override
    def log_prob(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        leading = x.shape[: x.dim() - len(self.event_shape)]
        rows = x.reshape(-1, *self.event_shape)
        count = max(1, AT_ONCE // (len(self.log_weights) * self.event_shape.numel()))
        found = [super(_Sliced, self).log_prob(part, mask) for part in rows.split(count)]
        return torch.cat(found).view(leading)


def fitted(
    kind: str, z: Tensor, event_shape: Shape, data_shape: Shape, seed: int, settings: dict[str, Any]
) -> tuple[ExPost, dict[str, Any]]:
    """A prior of a kind, fitted to encodings, on the CPU.

    Args:
        kind: one of `KINDS`.
        z: (N, D) encodings.
        event_shape: shape of z.
        data_shape: (C, H, W) of an image.
        seed: decides all that is random.
        settings: the other arguments of the kind's constructor.

    Returns:
        The prior, and what `restored` makes it of again: plain values and tensors.

    Raises:
        ValueError: there are too few encodings, or a setting is impossible.
    """
    z = z.cpu().double()
    z = z[torch.randperm(len(z), generator=generator(seed, "expost"))]
    count = max(1, round(HELD * len(z)))
    held, z = z[:count], z[count:]
    settings = dict(settings)
    if "centers" in settings:
        settings["centers"] = min(settings["centers"], len(z))
    if len(z) < settings.get("components", 2):
        raise ValueError(f"there are {len(z) + count} encodings of training images, too few for prior={kind}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = KINDS[kind](event_shape, data_shape, **settings)
    made.fit(z, held, seed)
    return made, {"kind": kind, "settings": settings, "weights": _copied(made)}


def restored(state: dict[str, Any], event_shape: Shape, data_shape: Shape) -> ExPost:
    """What `fitted` made, on the CPU."""
    made = KINDS[state["kind"]](event_shape, data_shape, **state["settings"])
    made.load_state_dict(state["weights"])
    return made.eval()


@torch.no_grad()
def log_density(p: Distribution, z: Tensor, rows: int = 1024) -> Tensor:
    """log p(z) of values `(N, *event)`, `rows` at a time: `(N,)` float64 on the CPU."""
    return torch.cat([p.log_prob(part).cpu().double() for part in z.split(rows)])


def comparison(own: Tensor, after: Tensor) -> dict[str, Any]:
    """Figures of two priors on the same encodings, in nats: means with standard errors, and that of the difference.

    Args:
        own: (N,) log p(z) under the model's own prior.
        after: (N,) under the fitted one.
    """
    return {"own": summary(own), "fitted": summary(after), "gap": summary(after - own)}


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every unit, (D,) each; a unit that never moves counts as one that hardly does."""
    scale = z.std(0)
    return z.mean(0), scale.clamp_min(1e-6 * max(float(scale.max()), 1e-6))


def digest(model: nn.Module) -> str:
    """A word for the weights of a model, which a prior was fitted for."""
    found = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        if not name.startswith("prior."):
            found.update(name.encode() + value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _no_images(x: Tensor) -> Distribution:
    raise RuntimeError("a fitted prior needs no images")
