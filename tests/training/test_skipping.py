"""Updates whose gradient is far larger than usual are skipped, and skipping all of them is an error."""

from __future__ import annotations

from copy import deepcopy
from typing import ClassVar

import pytest
import torch

from tests.support import SMALL, binary_batch, build, build_model, build_objective, compose, update
from tests.training.examples import tensors
from vae_train.training.gradients import EagerGradients
from vae_train.training.skipping import MAX_SKIPPED, WARMUP_UPDATES, NormGuard
from vae_train.util.errors import RunError


def observed(guard, norms):
    return [bool(guard.observe(torch.tensor(float(norm)))) for norm in norms]


def warm(factor=10.0):
    guard = NormGuard(factor, torch.device("cpu"))
    assert not any(observed(guard, [4.0, 1.0] * WARMUP_UPDATES))
    return guard


def test_only_gradients_above_a_multiple_of_the_usual_norm_are_skipped():
    guard = warm()
    assert guard.usual_norm().item() == pytest.approx(2.0, rel=1e-3)
    assert observed(guard, [19.0, 22.0, float("nan"), float("inf"), 0.0, 5.0]) == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]


def test_in_the_first_updates_only_gradients_that_are_not_finite_are_skipped():
    guard = NormGuard(10.0, torch.device("cpu"))
    assert observed(guard, [1.0, 1e5, float("nan"), 1.0]) == [False, False, True, False]


def test_training_goes_on_if_gradients_stay_larger():
    guard = warm()
    skipped = observed(guard, [60.0] * MAX_SKIPPED)
    guard.check()
    assert skipped[0]
    assert not skipped[-1]


def test_many_skipped_updates_in_a_row_are_an_error_that_says_how_large_gradients_are():
    guard = warm()
    observed(guard, [float("inf")] * (MAX_SKIPPED - 1))
    guard.check()
    observed(guard, [float("inf")])
    with pytest.raises(
        RunError, match=r"the last 100 updates were skipped.*skip_norm=10 times the usual 2\."
    ) as caught:
        guard.check()
    assert "lower lr=" in str(caught.value)
    observed(guard, [2.0])
    guard.check()


class _Spikes(EagerGradients):
    """Gradients that are a million times larger, or not finite, at some steps."""

    FACTORS: ClassVar = {WARMUP_UPDATES + 2: 1e6, WARMUP_UPDATES + 4: float("nan")}

    def __call__(self, inputs, share):
        reports = super().__call__(inputs, share)
        factor = self.FACTORS.get(inputs.step, 1.0)
        return reports._replace(gradients=[None if g is None else factor * g for g in reports.gradients])


def learner(*overrides):
    cfg = compose(*SMALL, "optimizer=adamax", "learner.skip_norm=20", "objective=geco", *overrides)
    model = build_model(cfg, (1, 8, 8), 2)
    schedule = build(cfg.lr_schedule, steps_per_epoch=10.0, epochs=30)
    parts = {"model": model, "objective": build_objective(cfg), "optimizer": build(cfg.optimizer)}
    return build(cfg.learner, **parts, lr_schedule=schedule, seed=0, gradients=_Spikes)


def trained(found):
    """All tensors that an update changes, unless it is skipped."""
    guard = {id(t) for t in found.guard.state_dict().values()}
    return [t for t in tensors(found) if id(t) not in guard]


@pytest.mark.parametrize(
    "overrides", [(), ("learner.clip_norm=1", "learner.grad_accumulation=2")], ids=["plain", "clip"]
)
def test_a_skipped_update_changes_nothing(overrides):
    found = learner(*overrides)
    for step in range(WARMUP_UPDATES + 6):
        before = [t.clone() for t in trained(found)]
        skipped = update(found, binary_batch(10, seed=step), step)["skipped"].item()
        assert skipped == (step in _Spikes.FACTORS), step
        after = trained(found)
        same = len(before) == len(after) and all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert same == bool(skipped)
        assert found.gradient_norm().isfinite()


def test_skipping_goes_on_from_a_state():
    whole, resumed = learner(), learner()
    for step in range(WARMUP_UPDATES + 6):
        if step == WARMUP_UPDATES + 1:
            resumed.load_state_dict(deepcopy(whole.state_dict()))
        for each in [whole, *([resumed] if step > WARMUP_UPDATES else [])]:
            update(each, binary_batch(10, seed=step), step)
    assert all(torch.equal(*pair) for pair in zip(tensors(whole), tensors(resumed), strict=True))
    assert whole.guard.state_dict() == resumed.guard.state_dict()


def test_an_update_that_is_skipped_before_any_other_leaves_no_moments():
    found = learner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_Spikes.FACTORS, 0, float("nan"))
        assert update(found, binary_batch(10), 0)["skipped"] == 1
    assert all(t.isfinite().all() for t in tensors(found))
    assert update(found, binary_batch(10), 1)["skipped"] == 0
    assert all(t.isfinite().all() for t in tensors(found))
