"""Properties that components declare, so that combinations can be checked before anything is built."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

Support = Literal["real", "sphere", "categorical", "joint", "codes"]
"""Where z lives: R^D, the unit sphere in R^D, blocks of one-hot categories, a real part and one-hot blocks, or the
vectors of a codebook."""

CAPABILITIES = frozenset({"compile", "vmap", "float64", "bf16"})
"""Default capabilities of a component: torch.compile, torch.func.vmap, float64, bfloat16 autocast."""


class LayerTraits(NamedTuple):
    """Properties of one stochastic layer, of its posterior and its prior."""

    support: Support = "real"
    """Where z lives."""
    has_density: bool = True
    """Whether q(z | x) has a density. Without one, rate, ELBO and importance weights are undefined."""
    has_tractable_density: bool = True
    """Whether log q(z | x) can be evaluated at any z, not only at samples of q."""
    is_factorized: bool = True
    """Whether the elements of z are independent given x."""
    supports_stop_gradient: bool = True
    """Whether `Distribution.detach` stops all gradients to the parameters of log q(z | x)."""
    prior_is_factorized: bool = False
    """Whether the elements of z are independent under the prior."""
    prior_uses_encoder: bool = False
    """Whether the prior consists of posteriors, so that its parameters include those of the encoder."""
    is_quantized: bool = False
    """Whether q(z | x) is a point mass on codes: log q is 0, the rate -log p(codes), and all samples are equal."""


class ModelTraits(NamedTuple):
    """Properties of a model that objectives and training rely on."""

    layers: tuple[LayerTraits, ...]
    """The stochastic layers, in the order of `Trace.latents`."""
    warning: str | None = None
    """Why log p(x | z) is not a log-likelihood; None if it is one."""
    capabilities: frozenset[str] = CAPABILITIES
    """Capabilities that all components of the model have."""
    couples_batch: bool = False
    """Whether an image's likelihood depends on the rest of its batch in training."""


def component(part: Any) -> tuple[Any, Mapping[str, Any]]:
    """The class and the settings of a component that is not built yet.

    Args:
        part: a class, or a `functools.partial` of one.
    """
    return (part.func, part.keywords) if isinstance(part, partial) else (part, {})


def network_capabilities(settings: Mapping[str, Any]) -> frozenset[str]:
    """Capabilities that both networks of a model have.

    Args:
        settings: settings of the model; those of its networks may be missing.
    """
    networks = [component(settings[name]) for name in ("encoder", "decoder") if name in settings]
    return CAPABILITIES.intersection(*(network.supported(**own) for network, own in networks))
