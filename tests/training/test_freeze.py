"""A frozen part of a model keeps every bit, and the other parts train."""

from __future__ import annotations

import pytest
import torch

from tests.support import SMALL, binary_batch, build_learner, build_model, compose, feed_of, loaded, update
from vae_train.training.execution import resolve
from vae_train.training.trainer import Trainer

GREY = (*SMALL[:3], "data.binarize=none")


def frozen(part, *overrides, words=SMALL, levels=2):
    cfg = compose(*words, "optimizer=adamw", "optimizer.weight_decay=0.5", "learner.ema=0.5", *overrides)
    model = build_model(cfg, (1, 8, 8), levels)
    model.freeze(part)
    return build_learner(cfg, model)


def state(module, prefix):
    return {name: value.clone() for name, value in module.state_dict().items() if name.startswith(prefix)}


def equal(before, after):
    return [torch.equal(value, after[name]) for name, value in before.items()]


@pytest.mark.parametrize(("part", "other"), [("encoder", "decoder"), ("decoder", "encoder")])
@pytest.mark.parametrize("objective", ["elbo", "iwae", "piwae", "first_stage", "factor_vae"])
def test_a_frozen_part_keeps_every_bit(part, other, objective):
    extra = {"first_stage": ["objective.channels=4", "objective.start_step=0"], "factor_vae": ["objective.hidden=[8]"]}
    learner = frozen(part, f"objective={objective}", *extra.get(objective, []))
    fixed, moving = state(learner.model, part), state(learner.model, other)
    for step in range(3):
        update(learner, binary_batch(6, seed=step), step)
    assert all(equal(fixed, learner.model.state_dict()))
    assert all(equal(fixed, learner.average.module.state_dict()))
    assert not any(equal(moving, learner.model.state_dict()))


@pytest.mark.parametrize(("part", "changes"), [("decoder", False), ("encoder", True)])
@pytest.mark.parametrize("model", ["mlp", "lvae"])
@pytest.mark.parametrize("likelihood", ["sigma_vae", "laplace"])
def test_the_scale_of_the_pixels_belongs_to_the_decoder(likelihood, model, part, changes):
    words = GREY if model == "mlp" else (f"model={model}", "data.binarize=none")
    learner = frozen(part, f"model/likelihood={likelihood}", words=words, levels=17)
    before = state(learner.model, "likelihood")
    assert before
    for step in range(2):
        update(learner, binary_batch(6), step)
    assert all(equal(before, learner.model.state_dict())) is not changes


def test_a_resumed_run_with_a_frozen_part_is_the_uninterrupted_one():
    whole, first, second = (frozen("encoder") for _ in range(3))
    for step in range(4):
        update(whole, binary_batch(6, seed=step), step)
    for step in range(2):
        update(first, binary_batch(6, seed=step), step)
    second.load_state_dict(first.state_dict())
    for step in range(2, 4):
        update(second, binary_batch(6, seed=step), step)
    assert all(equal(whole.model.state_dict(), second.model.state_dict()))


@pytest.mark.slow
def test_a_compiled_step_leaves_a_frozen_part_as_it_is():
    cfg = compose(*SMALL, "execution=compile", "batch_size=128", "optimizer=adamw")
    data = loaded(cfg)
    model = build_model(cfg, data.facts.data_shape, data.facts.levels)
    model.freeze("encoder")
    learner = build_learner(cfg, model)
    before, moving = state(model, "encoder"), state(model, "decoder")
    trainer = Trainer(**{k: v for k, v in dict(cfg.trainer).items() if k != "_target_"})
    trainer.execution = resolve("compile", torch.device("cpu"))
    runner = trainer.runner(learner, feed_of(data, learner).stream)
    for step in range(4):
        runner(step, 1)
    assert runner.mode == "compile"
    assert all(equal(before, model.state_dict()))
    assert not any(equal(moving, model.state_dict()))
