"""`vae fit-prior`: a density of the encodings of a trained model, to draw from instead of its prior."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig, OmegaConf

from vae_train.runs.run import Run
from vae_train.util.errors import ErrorDetail, UsageError
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Seed

if TYPE_CHECKING:
    from torch import Tensor

    from vae_train.model.base import SingleLatent

log = logging.getLogger("vae_train")

KNOBS = {
    "gmm": ("components",),
    "kde": ("centers", "bandwidth"),
    "flow": ("transforms", "bins", "hidden", "steps", "patience", "lr"),
}
"""What only one kind of density reads."""


@dataclass
class Settings:
    """The top of conf/fit_prior.yaml."""

    run: str
    prior: Literal["gmm", "kde", "flow"]
    checkpoint: Literal["best", "last"]
    components: PositiveInt
    centers: PositiveInt
    bandwidth: Literal["validated", "scott"] | PositiveFloat
    transforms: PositiveInt
    bins: PositiveInt
    hidden: list[PositiveInt]
    steps: NonNegativeInt
    patience: PositiveInt
    lr: PositiveFloat
    batch_size: PositiveInt
    seed: Seed
    device: str
    allow: str | None


def check(cfg: DictConfig, words: Sequence[str]) -> list[ErrorDetail]:
    """A run or a device that is not there, latents that are no vectors of numbers, settings of another kind."""
    from vae_train.runs.build import checkpoint_errors, data_errors, device_errors, open_run
    from vae_train.runs.priors import unfittable
    from vae_train.util.runtime import prepare

    prepare()
    typed = {word.partition("=")[0]: word for word in words}
    others = {knob: kind for kind, knobs in KNOBS.items() if kind != cfg.prior for knob in knobs}
    found = [
        ErrorDetail(typed[knob], f"is a setting of prior={kind}, and this fits prior={cfg.prior}")
        for knob, kind in others.items()
        if knob in typed
    ]
    run, wrong = open_run(cfg.run, f"run={cfg.run}", cfg.allow)
    if run is None:
        return found + wrong
    why = unfittable(run.config)
    if why:
        found.append(ErrorDetail(f"run={cfg.run}", why))
    if cfg.prior == "flow" and cfg.bins < 2:
        found.append(ErrorDetail(f"bins={cfg.bins}", "a spline of one piece is the identity: use at least 2"))
    return found + device_errors(cfg.device) + checkpoint_errors(run, cfg.checkpoint) + data_errors(run.config)


def run(cfg: DictConfig) -> float:
    """Writes priors/<prior>.pt and priors/<prior>.json of a run; returns the gap in nats."""
    from vae_train.evaluation.expost import comparison, digest, fitted
    from vae_train.runs.build import loaded, open_model, resolve_device
    from vae_train.training.checkpoint import save

    begin = time.perf_counter()
    opened, device = Run.open(cfg.run), resolve_device(cfg.device)
    model: Any = open_model(opened, cfg.checkpoint, device, cfg.allow)
    data = loaded(opened.config, device)
    split: Literal["valid", "test"] = "valid" if data.split("valid") is not None else "test"
    if data.split(split) is None:
        raise UsageError("this run's data has no validation and no test images to compare the priors on")
    z = _encoded(model, data.split("train"), cfg, device)
    settings = {name: _plain(cfg[name]) for name in KNOBS[cfg.prior]}
    if cfg.prior == "flow":
        settings["batch_size"] = cfg.batch_size
    try:
        prior, state = fitted(cfg.prior, z, model.latent_shape, model.data_shape, cfg.seed, settings)
    except ValueError as error:
        raise UsageError([ErrorDetail(f"prior={cfg.prior}", str(error))]) from error
    there = _encoded(model, data.split(split), cfg, device)
    own = _own(model, there)
    figures = comparison(own, prior.log_prob(there.to(next(prior.buffers()).dtype)))
    about = {"prior": cfg.prior, "split": split, "checkpoint": cfg.checkpoint, "seed": cfg.seed, "images": len(z)}
    about |= {"settings": state["settings"], "seconds": round(time.perf_counter() - begin, 2)}
    folder = opened.make_folder("priors")
    save([folder / f"{cfg.prior}.pt"], {**state, "digest": digest(model)})
    opened.write_json(f"priors/{cfg.prior}.json", {**figures, **about})
    log.info("%s", _line(cfg.prior, split, figures))
    log.info("  %s: vae eval run=%s prior=%s, vae sample run=%s prior=%s", folder / f"{cfg.prior}.pt",
             opened.folder, cfg.prior, opened.folder, cfg.prior)  # fmt: skip
    return float(figures["gap"]["value"])


def _encoded(model: SingleLatent, images: Any, cfg: DictConfig, device: Any) -> Tensor:
    """One draw of q(z | x) for every image, `(N, D)` on the CPU."""
    from vae_train.evaluation.latents import codes

    return codes(model, images, seed=cfg.seed, device=device, batch_size=cfg.batch_size).z.cpu()


def _own(model: Any, z: Tensor) -> Tensor:
    """log p(z) under the model's own prior, (N,)."""
    import torch

    from vae_train.evaluation.expost import log_density

    with torch.no_grad():
        p = model.prior(model.encode)
    return log_density(p, z.to(next(model.parameters()).device).view(-1, *model.latent_shape))


def _line(kind: str, split: str, figures: dict[str, Any]) -> str:
    after, own, gap = (f"{figures[name]['value']:.2f} ± {figures[name]['se']:.2f}" for name in ("fitted", "own", "gap"))
    return (
        f"{kind}: log p(z) of {figures['gap']['count']:,} {split} encodings is {after} nats, and {own} under "
        f"the model's own prior: a gap of {gap}"
    )


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
