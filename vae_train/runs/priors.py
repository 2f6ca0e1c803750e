"""Priors that `vae fit-prior` left in a run: which there are, and putting one in the place of the model's own."""

from __future__ import annotations

import logging
from typing import Any

from omegaconf import DictConfig

from vae_train.model.base import LatentVariableModel, SingleLatent
from vae_train.runs.check import stem
from vae_train.runs.run import Run
from vae_train.runs.schema import allowed, locate
from vae_train.training.checkpoint import load
from vae_train.util.errors import ErrorDetail, RunError
from vae_train.util.text import first_line

log = logging.getLogger("vae_train")


def fitted_priors(run: Run) -> list[str]:
    """The priors that `vae fit-prior` left in a run."""
    return sorted(path.stem for path in (run.folder / "priors").glob("*.pt") if ".previous" not in path.name)


def prior_errors(run: Run, name: str | None) -> list[ErrorDetail]:
    """A prior that was not fitted."""
    known = fitted_priors(run)
    if name is None or name in known:
        return []
    has = f"{run.folder} has {', '.join(known)} alone" if known else f"{run.folder} has no fitted prior"
    return [ErrorDetail(f"prior={name}", f"{has}. Fit it: vae fit-prior run={run.folder} prior={name}")]


def replace_prior(model: LatentVariableModel, run: Run, name: str) -> None:
    """Makes a prior that was fitted to a run's encodings that of its model.

    Args:
        model: the run's model, with its weights.
        run: the run.
        name: one of `fitted_priors`.

    Raises:
        RunError: the file cannot be read.
    """
    from vae_train.evaluation.expost import digest, restored

    path = run.folder / "priors" / f"{name}.pt"
    state = load(path)
    try:
        prior = restored(state, model.latent_shape, model.data_shape)  # type: ignore[arg-type]
    except (KeyError, TypeError, RuntimeError, ValueError) as error:
        raise RunError(f"{path} holds no prior of this model ({first_line(error)}): fit it again") from error
    if state["digest"] != digest(model):
        log.warning("prior=%s was fitted to encodings of other weights: fit it again for the best of it", name)
    model.prior = prior.to(next(model.parameters()).device)


def unfittable(cfg: DictConfig) -> str | None:
    """Why no density can be fitted to the encodings of a run's model; None where one can."""
    model: Any = locate(cfg.model["_target_"], allowed(cfg))
    if not issubclass(model, SingleLatent) or cfg.model.get("posterior") is None:
        return "has no single latent vector that a density could be fitted to"
    posterior: Any = locate(cfg.model.posterior["_target_"], allowed(cfg))
    if posterior.support != "real":
        return f"has latents of model/posterior={stem(posterior)}, and the densities are for vectors of numbers alone"
    if cfg.model.get("condition"):
        return f"has a prior for every {cfg.model.condition}, which one density of all encodings cannot replace"
    return None
