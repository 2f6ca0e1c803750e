"""Small configurations that cover the package, and the function that trains one of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from tests.golden.results import Result, digest
from tests.golden.settings import GROUPS, SETTINGS, TOP, WITH_BETA_SCHEDULE
from tests.support import compose, plain
from vae_train.data.session import DataSession
from vae_train.data.stream import Stream
from vae_train.runs.build import Builder, assemble
from vae_train.training.execution import Feed
from vae_train.training.learner import Learner
from vae_train.util.runtime import prepare

STEPS = 30
RESUME_AT = 15
METRICS = ("loss", "elbo", "distortion", "rate")
_MODELS_SHAPE = "${oc.select:model.latent_shape,${latent_shape}}"
SECTIONS = ("model", "data", "augmentation", "corruption", "preprocessing", "loader", "objective", "optimizer")
SECTIONS += ("lr_schedule", "learner")

_GREY = "data.binarize=none"
_REAL = f"{_GREY} preprocessing.dequantize=true preprocessing.logit=0.05 preprocessing.mean=0.2 preprocessing.std=1.5"

CONFIGURATIONS: dict[str, str] = {
    # Objectives.
    "elbo": "",
    "elbo_samples": "objective.num_samples=3 beta=0.5",
    "capacity": "objective=capacity",
    "free_bits_unit": "objective=free_bits",
    "free_bits_group": "objective=free_bits objective.free_bits=2 objective.free_bits_per=layer",
    "iwae": "objective=iwae",
    "iwae_stl": "objective=iwae objective.gradient=stl",
    "iwae_dreg": "objective=iwae objective.gradient=dreg",
    "miwae": "objective=miwae",
    "piwae": "objective=piwae",
    "ciwae": "objective=ciwae objective.gradient=dreg",
    "geco": "objective=geco",
    "control_vae": "objective=control_vae",
    "tcvae_stratified": "objective=tcvae beta=4.0",
    "tcvae_weighted": "objective=tcvae beta=4.0 objective.estimator=weighted",
    "factor_vae": "objective=factor_vae",
    "dip_vae_i": "objective=dip_vae objective.kind=i",
    "dip_vae_ii": "objective=dip_vae objective/beta_schedule=linear",
    "info_vae": "objective=info_vae",
    "wae_mmd": "objective=wae_mmd model/posterior=deterministic",
    "sliced_wasserstein": "objective=sliced_wasserstein model/posterior=deterministic",
    "wae_gan": "objective=wae_gan",
    "rae_l2": f"objective=rae model/posterior=deterministic model/likelihood=mse {_GREY}",
    "rae_gradient_penalty": f"objective=rae objective.regularizer=gradient_penalty model/posterior=deterministic "
    f"model/likelihood=mse {_GREY}",
    "rae_spectral": f"objective=rae objective.regularizer=spectral model/posterior=deterministic "
    f"model/likelihood=l1 {_GREY}",
    "vae_gan": f"objective=vae_gan model=conv model/likelihood=gaussian {_GREY}",
    "vae_gan_nonsaturating": f"objective=vae_gan objective.kind=nonsaturating objective.r1=1.0 "
    f"objective.adaptive=false model/likelihood=gaussian {_GREY}",
    # Priors, posteriors and likelihoods, several at a time.
    "vamp": "model/prior=vamp",
    "vamp_random_low_rank": "model/prior=vamp model.prior.start=random model/posterior=low_rank",
    "exemplar_discretized": f"model/prior=exemplar model/likelihood=discretized_logistic {_GREY}",
    "mixture_iaf_laplace": f"model/prior=mixture model/posterior=iaf model/likelihood=laplace {_GREY}",
    "realnvp_planar_huber": f"model/prior=realnvp model/posterior=planar model/likelihood=huber {_GREY}",
    "maf_sylvester_student_t": f"model/prior=maf model/posterior=sylvester model/likelihood=student_t {_GREY}",
    "spline_spline_levels": f"model/prior=spline model/posterior=spline model/likelihood=categorical {_GREY}",
    "diagonal_full_mixture": "model/prior=diagonal model/posterior=full_covariance "
    f"model/likelihood=logistic_mixture {_GREY}",
    "categorical_beta": "model/prior=categorical model/posterior=categorical latent_dim=8 "
    f"model/likelihood=beta {_GREY}",
    "categorical_learned_soft": "model/prior=categorical model/posterior=categorical latent_dim=8 "
    f"model.prior.learned=true model.posterior.hard=false model/likelihood=smooth_l1 {_GREY}",
    "joint_continuous_bernoulli": "model/prior=joint model/posterior=joint latent_dim=10 "
    f"model/likelihood=continuous_bernoulli {_GREY}",
    "sphere_ms_ssim": f"model/prior=uniform_sphere model/posterior=von_mises_fisher model/likelihood=ms_ssim {_GREY}",
    "gaussian_pixel": f"model/likelihood=gaussian_pixel {_GREY}",
    "sigma_vae": f"model/likelihood=sigma_vae {_GREY}",
    # `vae train` rejects this one: the optimal scale depends on the whole batch.
    "sigma_vae_accumulation": f"model/likelihood=sigma_vae learner.grad_accumulation=3 {_GREY}",
    # Architectures, and how training starts.
    "conv": "model=conv",
    "conv_norm": "model=conv model.encoder.norm=group model.decoder.norm=layer model.encoder.extra=1 "
    "model.encoder.downsample=avgpool model.decoder.upsample=nearest model.decoder.activation=gelu "
    "model.encoder.init=he",
    "mlp_gated": "model.encoder.gated=true model.decoder.gated=true model.encoder.init=glorot model.decoder.init=he "
    "model.encoder.hidden=[16,8] model.decoder.activation=tanh",
    "output_bias": f"model.output_bias=data model.posterior.log_variance=[-1,0.5] model/likelihood=gaussian {_GREY}",
    "condition": "model.condition=label model/prior=diagonal",
    "condition_flow": "model.condition=label model/prior=realnvp model=conv",
    # Data.
    "corruption": f"corruption.noise=0.1 corruption.mask=0.3 corruption.patch=2 model/likelihood=gaussian {_GREY}",
    "corruption_all": "corruption.mask=0.3 corruption.score=all objective=iwae",
    "preprocessing": f"model/likelihood=gaussian {_REAL}",
    "augmentation": "augmentation.flip=true augmentation.crop=1 augmentation.rotation=10 augmentation.translation=0.1 "
    f"augmentation.brightness=0.2 augmentation.contrast=0.2 augmentation.edge=repeat model/likelihood=gaussian {_GREY}",
    "threshold": "data.binarize=threshold",
    # Learner, optimisers and schedules.
    "ema": "learner.ema=0.9 objective=geco",
    "accumulation": "learner.grad_accumulation=3 objective=iwae",
    "accumulation_clip_ema": "learner.grad_accumulation=3 learner.clip_norm=1.0 learner.ema=0.99 lr_schedule=cosine "
    "model/prior=vamp corruption.mask=0.2",
    "bfloat16": f"precision=bfloat16 model=conv model/likelihood=gaussian {_GREY}",
    "clip_sgd": "learner.clip_norm=1.0 optimizer=sgd lr_schedule=step objective/beta_schedule=linear",
    "adamw": "optimizer=adamw lr_schedule=cosine objective/beta_schedule=cosine",
    "rmsprop": "optimizer=rmsprop lr_schedule=exponential objective/beta_schedule=cyclical",
    "adamax": "optimizer=adamax lr_schedule=plateau objective/beta_schedule=sigmoid",
    "adam_unfused": "optimizer.fused=false optimizer.weight_decay=0.1 objective/beta_schedule=two_phase",
}
"""Name -> choices and settings that differ from `tests.golden.settings`."""

RESUMED = {
    "resume": "accumulation_clip_ema",
    "resume_geco": "ema",
    "resume_control_vae": "control_vae",
    "resume_sigma_vae": "sigma_vae",
    "resume_sgd": "clip_sgd",
    "resume_factor_vae": "factor_vae",
}
"""Configurations that are saved and loaded in the middle -> the uninterrupted ones, which they must equal."""

NAMES = (*CONFIGURATIONS, *RESUMED)
COMPARED_ONLY = frozenset(
    {"bfloat16", "factor_vae", "resume_factor_vae", "wae_gan", "vae_gan", "vae_gan_nonsaturating"}
)
"""Configurations whose rounding differs too much between processors to be tested against stored losses."""


def overrides(name: str) -> list[str]:
    """Every choice and every setting of a configuration, as `vae train` takes them."""
    groups, changes = dict(GROUPS), dict[str, str]()
    for override in CONFIGURATIONS[RESUMED.get(name, name)].split():
        key, _, value = override.partition("=")
        (groups if key in groups else changes)[key] = value
    if groups["objective"] not in WITH_BETA_SCHEDULE:
        del groups["objective/beta_schedule"]
    values = dict(setting.split("=", 1) for setting in TOP.split())
    for group, choice in groups.items():
        node = group.replace("/", ".")
        for setting in SETTINGS[group][choice].split():
            key, _, value = setting.partition("=")
            values[f"{node}.{key}"] = value
    values |= changes
    return [f"{key}={value}" for key, value in (groups | values).items()]


def implicit_settings(name: str) -> list[str]:
    """Settings that a configuration leaves at a default of conf/: there must be none."""
    explicit = {override.partition("=")[0] for override in overrides(name)}
    raw = OmegaConf.to_container(compose(*overrides(name)), resolve=False)
    assert isinstance(raw, dict)
    settings = [leaf for section in SECTIONS for leaf in _leaves(raw[section], section)]
    known = {f"${{{key}}}" for key in explicit} | {"${latent_shape}", _MODELS_SHAPE}
    return [path for path, value in settings if path not in explicit and not known.issuperset(value)]


def _leaves(node: Any, path: str) -> Iterator[tuple[str, list[str]]]:
    """Path and values of every leaf; a list is one leaf."""
    if not isinstance(node, dict):
        yield path, list(map(str, node if isinstance(node, list) else [node]))
        return
    for key, value in node.items():
        if not key.startswith("_"):
            yield from _leaves(value, f"{path}.{key}")


def train(name: str) -> Result:
    """Trains a configuration for `STEPS` steps."""
    cfg = compose(*overrides(name))
    learner, feed = _start(cfg)
    metrics: dict[str, list[float]] = {}
    for step in range(STEPS):
        if name in RESUMED and step == RESUME_AT:
            saved = io.BytesIO()
            torch.save(learner.state_dict(), saved)
            saved.seek(0)
            learner, feed = _start(cfg)
            learner.load_state_dict(torch.load(saved))
        scalars = learner.step(feed.inputs(step))
        for metric in METRICS:
            if metric in scalars:
                metrics.setdefault(metric, []).append(float(scalars[metric]))
    modules = [learner.model, learner.objective]
    averages = [] if learner.average is None else [learner.average.module]
    weights = [p for module in modules + averages for p in module.parameters()]
    state = [buffer for module in modules for buffer in _persistent_buffers(module)]
    return Result(metrics, digest(weights), digest(state))


def _start(cfg: DictConfig) -> tuple[Learner, Feed]:
    prepare(cfg.threads, cfg.precision)
    data, learner, trainer = assemble(plain(cfg), DataSession(), torch.device(cfg.device), Builder())
    stream = Stream(data.training(), trainer.batch_size, seed=learner.seed, device=learner.device)
    return learner, Feed(stream, learner.rates)


def _persistent_buffers(module: nn.Module) -> list[Tensor]:
    saved = module.state_dict()
    return [buffer for name, buffer in module.named_buffers() if name in saved]
