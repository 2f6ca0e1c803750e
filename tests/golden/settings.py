"""The value of every setting of every component, so that no configuration depends on a default under conf/.

A setting is renamed here and in `tests.golden.configurations.CONFIGURATIONS`, and nowhere else.
"""

from __future__ import annotations

TOP = (
    "latent_dim=4 beta=1.0 lr=0.01 batch_size=32 epochs=1 seed=3 device=cpu precision=float32 execution=eager threads=1"
    " loader.storage=device loader.memory=null loader.workers=0 loader.prefetch=2"
    " learner.clip_norm=null learner.skip_norm=null learner.ema=null learner.grad_accumulation=1 learner.shards=null"
)

GROUPS = {
    "model": "mlp",
    "model/posterior": "gaussian",
    "model/prior": "standard_normal",
    "model/likelihood": "bernoulli",
    "data": "digits",
    "augmentation": "none",
    "corruption": "none",
    "preprocessing": "none",
    "objective": "elbo",
    "objective/beta_schedule": "constant",
    "optimizer": "adam",
    "lr_schedule": "constant",
    "logger": "none",
}
"""The choice of every group, where a configuration makes no other."""

WITH_BETA_SCHEDULE = frozenset({"elbo", "capacity", "free_bits", "dip_vae", "factor_vae", "tcvae", "vae_gan"})
"""Objectives that have the group objective/beta_schedule."""

_MLP = "hidden=[16] activation=relu gated=false init=torch"
_CONV = "channels=4 depth=1 max_channels=8 kernel=3 extra=0 dense=16 activation=silu norm=none init=glorot"
_ELBO = "num_samples=1 capacity=null capacity_epochs=0.5 free_bits=0 free_bits_per=layer"


def _below(node: str, settings: str) -> str:
    return " ".join(f"{node}.{setting}" for setting in settings.split())


SETTINGS: dict[str, dict[str, str]] = {
    "model": {
        "mlp": f"condition=null output_bias=init {_below('encoder', _MLP)} {_below('decoder', _MLP)}",
        "conv": f"condition=null output_bias=init {_below('encoder', _CONV)} encoder.downsample=stride "
        f"{_below('decoder', _CONV)} decoder.upsample=stride",
    },
    "model/posterior": {
        "categorical": "categories=4 temperature=0.5 hard=true",
        "deterministic": "",
        "full_covariance": "",
        "gaussian": "log_variance=null",
        "iaf": "flows=2 hidden=[8] context=4",
        "joint": "categories=[3,4] temperature=0.5 hard=true",
        "low_rank": "rank=2",
        "planar": "flows=2",
        "spline": "flows=1 bins=4 hidden=[8] context=4",
        "sylvester": "flows=2 reflections=2",
        "von_mises_fisher": "",
    },
    "model/prior": {
        "categorical": "categories=4 learned=false",
        "diagonal": "",
        "exemplar": "components=8",
        "joint": "categories=[3,4]",
        "maf": "transforms=2 hidden=[8]",
        "mixture": "components=5 std=1.0",
        "realnvp": "transforms=2 hidden=[8]",
        "spline": "transforms=1 bins=4 hidden=[8]",
        "standard_normal": "",
        "uniform_sphere": "",
        "vamp": "components=6 start=data",
    },
    "model/likelihood": {
        "bernoulli": "grey_targets=false",
        "beta": "concentration=10.0",
        "categorical": "",
        "continuous_bernoulli": "",
        "discretized_logistic": "scale=0.1 scale_mode=shared",
        "gaussian": "scale=0.2 scale_mode=shared",
        "gaussian_pixel": "scale=0.2 scale_mode=pixel",
        "huber": "scale=0.1 scale_mode=shared delta=1.0",
        "l1": "scale=1.0 scale_mode=fixed",
        "laplace": "scale=0.1 scale_mode=shared",
        "logistic_mixture": "components=3 scale=0.1",
        "ms_ssim": "weight=100.0",
        "mse": "scale=1.0 scale_mode=fixed",
        "sigma_vae": "scale=0.5 scale_mode=optimal",
        "smooth_l1": "scale=0.1 scale_mode=fixed delta=1.0",
        "student_t": "scale=0.1 scale_mode=shared df=5.0",
    },
    "data": {"digits": "binarize=dynamic"},
    "augmentation": {"none": "flip=false crop=0 rotation=0.0 translation=0.0 brightness=0.0 contrast=0.0 edge=zeros"},
    "corruption": {"none": "noise=0.0 mask=0.0 patch=1 score=observed"},
    "preprocessing": {"none": "dequantize=false logit=null mean=null std=null"},
    "objective": {
        "capacity": _ELBO.replace("capacity=null", "capacity=10"),
        "ciwae": "num_samples=4 elbo_share=0.4 gradient=standard",
        "control_vae": "num_samples=1 target=5 proportional=0.01 integral=0.001 beta_min=0 beta_max=100",
        "dip_vae": "num_samples=1 kind=ii off_diagonal=10.0 diagonal=5.0",
        "elbo": _ELBO,
        "factor_vae": "num_samples=1 gamma=10.0 hidden=[8,8] critic_lr=0.001",
        "free_bits": _ELBO.replace("free_bits=0 free_bits_per=layer", "free_bits=0.3 free_bits_per=dimension"),
        "geco": "num_samples=1 target=30 decay=0.9 speed=0.001 limit=10000.0",
        "info_vae": "num_samples=1 alpha=0.5 weight=100.0 kernel=rbf scales=[1.0]",
        "iwae": "num_samples=4 gradient=standard",
        "miwae": "num_samples=4 groups=2 gradient=standard",
        "piwae": "num_samples=4 groups=2 gradient=standard",
        "rae": "num_samples=1 regularizer=l2 weight=0.01",
        "sliced_wasserstein": "num_samples=1 weight=100.0 projections=10",
        "tcvae": "num_samples=1 alpha=1.0 gamma=2.0 estimator=stratified",
        "vae_gan": "num_samples=1 weight=0.5 adaptive=true kind=hinge r1=0 start=0.3 channels=4 critic_lr=0.001",
        "wae_gan": "num_samples=1 weight=10.0 hidden=[8,8] critic_lr=0.001",
        "wae_mmd": "num_samples=1 weight=100.0 kernel=imq scales=[0.2,1.0,5.0]",
    },
    "objective/beta_schedule": {
        "constant": "",
        "cosine": "warmup=0.5 start=0.1",
        "cyclical": "period=0.2 cycles=3 ramp=0.5",
        "linear": "warmup=0.5 start=0.1",
        "sigmoid": "middle=0.3 width=0.1",
        "two_phase": "until=0.3 first=0.2",
    },
    "optimizer": {
        "adam": "betas=[0.9,0.999] eps=1e-8 weight_decay=0.0 fused=true",
        "adamax": "betas=[0.9,0.999] eps=1e-8 weight_decay=0.01",
        "adamw": "betas=[0.8,0.99] eps=1e-8 weight_decay=0.1 fused=true",
        "rmsprop": "alpha=0.99 eps=1e-8 momentum=0.5 weight_decay=0.01",
        "sgd": "momentum=0.9 nesterov=true weight_decay=0.01 fused=true",
    },
    "lr_schedule": {
        "constant": "warmup=0",
        "cosine": "warmup=0.2 final=0.1",
        "exponential": "warmup=0 final=0.01",
        "plateau": "warmup=0.5 factor=0.5 patience=5 threshold=0.01 lowest=0.001",
        "step": "warmup=0 every=0.2 gamma=0.5",
    },
    "logger": {"none": ""},
}
"""Group -> choice -> its settings, relative to the group's node."""
