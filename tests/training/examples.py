"""What several tests of training build."""

from __future__ import annotations

import torch

from tests.support import choices, compose, feed_of, locate, small_run

LR = f"lr={2**-9}"
"""A captured step has its learning rate in float32; this one is the same there."""

SETTINGS = {
    "plain": (),
    "clip": ("learner.clip_norm=0.5",),
    "skip": ("learner.skip_norm=1.05", "learner.clip_norm=5"),
    "ema": ("learner.ema=0.9",),
    "microbatches": ("learner.grad_accumulation=3", "objective.num_samples=2"),
    "binarised once": ("data.binarize=threshold",),
    "adamw": ("optimizer=adamw",),
    "sgd": ("optimizer=sgd",),
    "bfloat16": ("precision=bfloat16",),
    "augmented": (
        *("augmentation.flip=true", "augmentation.crop=2", "augmentation.rotation=20", "augmentation.translation=0.1"),
        *("augmentation.brightness=0.3", "augmentation.contrast=0.3", "data.binarize=dynamic"),
    ),
    "corrupted": ("corruption.noise=0.1", "corruption.mask=0.3", "corruption.patch=2", "learner.grad_accumulation=2"),
    "preprocessed": (
        *("data.binarize=none", "model/likelihood=gaussian", "corruption.mask=0.2"),
        *("preprocessing.dequantize=true", "preprocessing.logit=0.05", "preprocessing.mean=-1", "preprocessing.std=2"),
    ),
}

OBJECTIVES = {
    "factor_vae": ("objective.hidden=[8]", f"objective.critic_lr={2**-10}"),
    "wae_gan": ("objective.hidden=[8]", f"objective.critic_lr={2**-10}"),
    "vae_gan": (f"objective.critic_lr={2**-10}", "objective.channels=4", "objective.start=0.5", "objective.r1=1"),
    "first_stage": (f"objective.critic_lr={2**-10}", "objective.channels=4", "objective.start_step=0"),
    "rae": ("objective.regularizer=gradient_penalty", "model/posterior=deterministic"),
    "miwae": ("objective.num_samples=4", "objective.groups=2"),
    "piwae": ("objective.num_samples=4", "objective.groups=2", "objective.gradient=dreg"),
}
"""Settings that make objectives faster, or make them use more of their code."""


def compilable():
    """Objectives that state that they can be compiled."""
    names = choices("objective")
    return [n for n in names if "compile" in locate(compose(f"objective={n}").objective._target_).capabilities]


def tensors(learner):
    """Everything that a step changes."""
    found = [*learner.model.state_dict().values(), *learner.objective.state_dict().values()]
    if learner.average is not None:
        found += learner.average.module.state_dict().values()
    if learner.guard is not None:
        found += learner.guard.state_dict().values()
    states = learner.optimizer.optimizer.state.values()
    return found + [v for state in states for v in state.values() if torch.is_tensor(v)]


def taken(runner, until, start=0, limit=10**9):
    """Takes the steps from `start` to `until`; returns their scalars, with shape `(steps, F)`."""
    rows, step = [], start
    while step < until:
        rows.append(runner(step, min(limit, until - step)).values)
        step += len(rows[-1])
    assert step == until
    return torch.cat(rows)


def built(*overrides):
    """A learner and its runner."""
    data, learner, trainer = small_run(*overrides)
    return learner, trainer.runner(learner, feed_of(data, learner).stream)
