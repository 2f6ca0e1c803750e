"""Priors that `vae fit-prior` fitted to the encodings of a run: listing, fitting and loading them."""

import hashlib
import logging
from typing import Any

import torch
from torch import Tensor, nn

from vae_train.evaluation.metrics.base import Estimate
from vae_train.model.base import SingleLatent
from vae_train.model.prior.fitted.base import CHUNK_ROWS, CodePrior, FittedPrior, log_density
from vae_train.model.traits import Support
from vae_train.rng import generator
from vae_train.runs.build import Builder
from vae_train.runs.compatibility import stem
from vae_train.runs.config import Config
from vae_train.runs.prior_training import PriorCheckpoint, train_prior
from vae_train.runs.run import Run
from vae_train.training.checkpoint import load, save
from vae_train.util.errors import ErrorDetail, RunError, UsageError
from vae_train.util.text import first_line

log = logging.getLogger("vae_train")

FITTED: dict[Support, str] = {"real": "gmm", "codes": "autoregressive", "categorical": "autoregressive"}
"""Support of z -> the fitted prior to start with."""

HELD_OUT_FRACTION = 0.1
"""Fraction of the encodings that is held out for choosing bandwidths and for early stopping."""


def fitted_prior_names(run: Run) -> list[str]:
    """Lists the fitted priors of a run."""
    return sorted(path.stem for path in run.priors.glob("*.pt") if "." not in path.stem)


def prior_errors(run: Run, name: str | None) -> list[ErrorDetail]:
    """Reports a prior that has not been fitted."""
    names = fitted_prior_names(run)
    if name is None or name in names:
        return []
    has = f"{run.folder} has only {', '.join(names)}" if names else f"{run.folder} has no fitted prior"
    advice = f"fit it with: {_command(run, name)}" if name.isidentifier() else f"fit one with: {_command(run, 'gmm')}"
    return [ErrorDetail(f"prior={name}", f"{has}; {advice}")]


def _command(run: Run, name: str) -> str:
    """The command that fits a prior."""
    return f"vae fit-prior run={run.as_typed} prior={name}"


def fitting_error(config: Config, builder: Builder, prior: type[FittedPrior] = FittedPrior) -> str | None:
    """Returns why a prior cannot be fitted to the encodings of a run's model, or None.

    Args:
        config: the run's configuration.
        builder: locates classes.
        prior: class of the prior.
    """
    model: Any = builder.locate(config["model"]["_target_"])
    if not issubclass(model, SingleLatent) or config.at("model.posterior") is None:
        return "has several layers of latents with learned priors, but a prior can only be fitted to a single latent"
    posterior: Any = builder.locate(config["model"]["posterior"]["_target_"])
    if posterior.support not in prior.supports:
        instead = FITTED.get(posterior.support)
        has = f"has latents of model/posterior={stem(posterior)}"
        if instead is None:
            return f"{has}, but a prior can only be fitted to vectors in R^D or to codes"
        kind = "is a distribution of codes" if prior.over_codes else "is a density of vectors in R^D"
        return f"{has}, but this prior {kind}; use prior={instead}"
    if config.at("model.condition"):
        return f"has a prior per {config.at('model.condition')}, which a single prior of all encodings cannot replace"
    return None


def fit_prior(
    node: Config,
    model: SingleLatent,
    z: Tensor,
    seed: int,
    builder: Builder,
    checkpoint: PriorCheckpoint | None = None,
) -> FittedPrior:
    """Builds a prior and fits it to encodings: densities on the CPU, distributions of codes on the model's device.

    Args:
        node: the prior's class and settings.
        model: the model, for the shapes.
        z: (N, D) encodings, or (N, *code_shape) codes.
        seed: seed of all random numbers.
        builder: locates classes.
        checkpoint: where an interrupted training is saved and continued from; None to save nothing.

    Raises:
        ValueError: there are too few encodings.
        UsageError: a setting is invalid.
        Stopped: a signal arrived; the training is saved.
    """
    z = z.cpu().double() if z.is_floating_point() else z.cpu()
    z = z[torch.randperm(len(z), generator=generator(seed, "expost"))]
    count = max(1, round(HELD_OUT_FRACTION * len(z)))
    held_out, z = z[:count], z[count:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior = _build(node, model, builder)
    prior.fit(z, held_out, seed)
    if prior.over_codes:
        prior.to(model.device)
    if prior.gradient_training is not None:
        train_prior(prior, z, held_out, seed, prior.gradient_training, checkpoint)
    return prior.eval()


def _build(node: Config, model: Any, builder: Builder) -> FittedPrior:
    """Builds a prior for the latents of a model."""
    constructor, target = builder.build(node), builder.locate(str(node["_target_"]))
    if not getattr(target, "over_codes", False):
        return constructor(event_shape=model.latent_shape, data_shape=model.data_shape)
    codebook = model.codebook
    return constructor(event_shape=codebook.code_shape, data_shape=model.data_shape, num_codes=codebook.num_codes)


def copy_state(module: nn.Module) -> dict[str, Tensor]:
    """Copies the state of a module."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def prior_stamp(node: Config, model: nn.Module, seed: int) -> dict[str, Any]:
    """What a fitted prior depends on: class and settings, the fingerprint of the model, and the seed."""
    return {"settings": node.to_dict(), "fingerprint": fingerprint(model), "seed": seed}


def save_prior(prior: FittedPrior, run: Run, name: str, stamp: dict[str, Any]) -> None:
    """Writes priors/<name>.pt: the weights, and the result of `prior_stamp`."""
    save(run.priors / f"{name}.pt", {"weights": copy_state(prior), **stamp})


def is_fitted(run: Run, name: str, stamp: dict[str, Any]) -> bool:
    """Whether priors/<name>.pt was fitted with this result of `prior_stamp`."""
    try:
        state = load(run.priors / f"{name}.pt", report=run.report)
    except RunError:
        return False
    return all(state.get(key) == value for key, value in stamp.items())


def replace_prior(model: Any, run: Run, name: str, builder: Builder) -> None:
    """Replaces the prior of a run's model by a fitted one.

    Args:
        model: the run's model, with its weights.
        run: the run.
        name: one of `fitted_prior_names`.
        builder: locates classes.

    Raises:
        RunError: the file cannot be read.
    """
    path, advice = run.priors / f"{name}.pt", f"refit it with: {_command(run, name)}"
    try:
        state = load(path, report=run.report)
    except RunError as error:
        raise RunError(f"{error}; {advice}") from error
    try:
        prior = _build(Config(state["settings"]), model, builder)
        prior.load_weights(state["weights"])
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError, UsageError) as error:
        raise RunError(f"{path} is not a prior of this model ({first_line(error)}); {advice}") from error
    if state["fingerprint"] != fingerprint(model):
        log.warning("prior=%s was fitted to a different checkpoint; %s", name, advice)
    model.prior = prior.eval().to(next(model.parameters()).device)


def compare_priors(model: Any, prior: FittedPrior, z: Tensor) -> dict[str, Estimate]:
    """Scores encodings under the model's own prior and under a fitted prior.

    Args:
        model: the model.
        prior: the fitted prior.
        z: (N, D) encodings, or (N, *code_shape) codes.

    Returns:
        log p(z) in nats under the "own" and the "fitted" prior, and the "gain" of the fitted one; for codes also that
        under the "frequency_table" of the training codes.
    """
    scores = dict[str, Tensor]()
    if isinstance(prior, CodePrior):
        own = _log_prob_of_codes(model, z)
        scores["frequency_table"] = prior.table_log_prob(z)
        fitted = prior.log_prob(z.to(model.device, torch.int64))
    else:
        with torch.no_grad():
            p = model.prior(model.encode)
        own = log_density(p, z.to(next(model.parameters()).device).view(-1, *model.latent_shape))
        fitted = prior.log_prob(z.to(next(prior.buffers()).dtype))
    scores = {"own": own, "fitted": fitted, "gain": fitted - own} | scores
    return {name: Estimate.mean_of(values) for name, values in scores.items()}


@torch.no_grad()
def _log_prob_of_codes(model: Any, codes: Tensor) -> Tensor:
    """Computes log p(codes) of arrays `(N, *code_shape)` under the model's own prior: `(N,)` float64 on the CPU."""
    p, chunks = model.prior_of(), codes.split(CHUNK_ROWS)
    return torch.cat([log_density(p, model.codebook.embed(chunk.to(model.device, torch.int64))) for chunk in chunks])


def fingerprint(model: nn.Module, without: str = "prior.") -> str:
    """Computes a fingerprint of the model's weights, which detects a stale fitted prior or report.

    Args:
        model: the model.
        without: prefix of the names of weights to ignore; empty for none.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, value in model.state_dict().items():
        if not (without and name.startswith(without)):
            content = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            digest.update(name.encode() + content)
    return digest.hexdigest()
