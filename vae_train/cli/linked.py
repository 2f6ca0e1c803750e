"""Settings of which one determines the other."""

import math
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from vae_train.util.errors import ErrorDetail


def fill_latent_shape(cfg: DictConfig, typed: Sequence[str]) -> list[ErrorDetail]:
    """Sets `latent_dim` and `latent_shape` from each other; returns the error of typing both."""
    if not {"latent_dim", "latent_shape"} <= set(cfg):
        return []
    if {"latent_dim", "latent_shape"} <= set(typed):
        return [ErrorDetail("latent_shape", "latent_dim and latent_shape are mutually exclusive")]
    shape = cfg.latent_shape
    if shape is None or "latent_dim" in typed:
        cfg.latent_shape = [cfg.latent_dim]
    elif OmegaConf.is_list(shape) and all(isinstance(size, int) for size in shape):
        cfg.latent_dim = math.prod(shape)
    return []


def fill_length(cfg: DictConfig, typed: Sequence[str]) -> None:
    """Makes a typed `steps` or `epochs` replace the other one, which an experiment may have set."""
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if key in typed and other in cfg and other not in typed and cfg[key] is not None:
            cfg[other] = None
