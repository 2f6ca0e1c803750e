"""Which posterior and which prior of one latent can be combined."""

import math
from collections.abc import Mapping
from typing import Any

from vae_train.model.base import SIMPLEST_PRIOR
from vae_train.model.traits import LayerTraits, component
from vae_train.util.errors import Incompatible


def pairing_errors(layer: LayerTraits, settings: Mapping[str, Any]) -> dict[str, Incompatible]:
    """Setting -> why its value is incompatible with the others.

    Args:
        layer: traits of posterior and prior.
        settings: see `vae_train.model.vae.VAE`; components are partials.
    """
    posterior, posterior_settings = component(settings["posterior"])
    prior, prior_settings = component(settings["prior"])
    errors = {}
    shape = settings.get("latent_shape") or [1]
    if posterior.needs_vector and len(shape) > 1:
        reason = f"needs a latent vector, but latent_shape has {len(shape)} dimensions"
        errors["posterior"] = Incompatible(reason, {"latent_dim": str(math.prod(shape)), "posterior": "gaussian"})
    for role, part, instead in (("posterior", posterior, "gaussian"), ("prior", prior, "realnvp")):
        limit = part.max_map_size
        if len(shape) == 3 and limit is not None and math.prod(shape) > limit:
            reason = f"takes latent_shape={list(shape)} as one vector, which is supported up to {limit:,} elements"
            errors[role] = Incompatible(reason, {role: instead})
    error = prior.check_compatible(layer, **prior_settings)
    categories, expected = prior_settings.get("categories"), posterior_settings.get("categories")
    if error is not None:
        errors["prior"] = error
    elif None not in (categories, expected) and categories != expected:
        reason = f"must equal the posterior's categories={expected}"
        errors["prior.categories"] = Incompatible(reason, {"prior.categories": str(expected)})
    return errors | condition_errors(layer, settings)


def condition_errors(layer: LayerTraits, settings: Mapping[str, Any]) -> dict[str, Incompatible]:
    """Reports a condition that the prior does not support, by the path of the setting.

    Args:
        layer: traits of the posterior.
        settings: arguments of the model's constructor.
    """
    prior, _ = component(settings["prior"])
    if settings.get("condition") is None or not prior.uses_encoder:
        return {}
    reason = "is not supported by this prior, which consists of unconditional posteriors"
    return {"condition": Incompatible(reason, {"prior": SIMPLEST_PRIOR[layer.support]})}
