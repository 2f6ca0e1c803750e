from __future__ import annotations

import math

import pytest
import torch

from tests.support import build, choices, classes_in, compose
from vae_train.objective import schedule as beta_schedules
from vae_train.objective.schedule import (
    ConstantBeta,
    CosineBeta,
    CyclicalBeta,
    LinearBeta,
    RunFractionBeta,
    SigmoidBeta,
    TwoPhaseBeta,
)
from vae_train.training import lr
from vae_train.training.lr import ConstantRate, CosineRate, PlateauRate, StepRate

SPE, EPOCHS = 8.0, 30
STEPS = range(int(SPE * EPOCHS) + 20)


def beta(name):
    return build(compose(f"objective/beta_schedule={name}").objective.beta_schedule, steps_per_epoch=SPE, epochs=EPOCHS)


def rate(name, warmup=0):
    cfg = compose(f"lr_schedule={name}", f"lr_schedule.warmup={warmup}")
    return build(cfg.lr_schedule, steps_per_epoch=SPE, epochs=EPOCHS)


SCHEDULES = [
    *(pytest.param(beta, (name,), id=f"beta {name}") for name in choices("objective/beta_schedule")),
    *(pytest.param(rate, (name, w), id=f"lr {name} {w}") for name in choices("lr_schedule") for w in (0, 2.5)),
]
ALL = pytest.mark.parametrize(("make", "arguments"), SCHEDULES)


def test_every_class_is_a_yaml():
    built = {type(beta(name)) for name in choices("objective/beta_schedule")}
    built |= {type(rate(name)) for name in choices("lr_schedule")}
    assert built == set(classes_in(beta_schedules)) | set(classes_in(lr))


@ALL
def test_values_are_in_the_unit_interval(make, arguments):
    schedule = make(*arguments)
    assert all(0 <= schedule(step) <= 1 for step in STEPS)


@ALL
def test_a_tensor_step_gives_what_an_int_gives_and_stays_a_tensor(make, arguments):
    schedule = make(*arguments)
    for step in STEPS:
        assert float(schedule(torch.tensor(step))) == pytest.approx(float(schedule(step)), abs=1e-6)


@pytest.mark.parametrize("name", choices("lr_schedule"))
def test_the_rate_rises_in_a_straight_line_during_the_warmup(name):
    schedule = rate(name, 2.5)
    assert [float(schedule(step)) for step in range(20)] == pytest.approx([(step + 1) / 20 for step in range(20)])


def test_constant_schedules_are_1():
    assert {float(ConstantBeta(SPE)(s)) for s in STEPS} == {1.0}
    assert {float(ConstantRate(SPE, EPOCHS, 0.0)(s)) for s in STEPS} == {1.0}


def test_linear_beta_reaches_1_after_the_warmup():
    schedule = LinearBeta(SPE, warmup=10, start=0.2)
    assert [schedule(step) for step in (0, 40, 80, 1000)] == pytest.approx([0.2, 0.6, 1.0, 1.0])


@pytest.mark.parametrize("epochs", [4, 400.0])
def test_a_fraction_of_the_run_scales_with_the_run(epochs):
    schedule = RunFractionBeta(SPE, epochs, fraction=0.25, start=0.2)
    at = {0.0: 0.2, 0.125: 0.6, 0.25: 1.0, 1.0: 1.0}
    assert {share: schedule(int(share * epochs * SPE)) for share in at} == pytest.approx(at)
    assert schedule.end == schedule.peak == epochs / 4


def test_cyclical_beta_has_its_teeth_and_then_stays_1():
    schedule = CyclicalBeta(SPE, period=5, cycles=2, ramp=0.5)
    at = {0: 0.0, 10: 0.5, 20: 1.0, 39: 1.0, 40: 0.0, 50: 0.5, 79: 1.0, 80: 1.0, 90: 1.0}
    assert {step: schedule(step) for step in at} == pytest.approx(at)


def test_sigmoid_beta_is_logistic_and_does_not_overflow():
    schedule = SigmoidBeta(SPE, middle=5, width=2)
    assert schedule(40) == 0.5
    assert schedule(56) == pytest.approx(1 / (1 + math.exp(-1)))
    assert SigmoidBeta(SPE, middle=5000, width=0.01)(0) == pytest.approx(0, abs=1e-20)
    assert SigmoidBeta(SPE, middle=0, width=0.001)(10_000) == pytest.approx(1)


def test_cosine_beta_is_half_a_cosine_and_then_1():
    schedule = CosineBeta(SPE, warmup=10, start=0.2)
    at = {0: 0.2, 20: 0.2 + 0.4 * (1 - math.sqrt(0.5)), 40: 0.6, 80: 1.0, 1000: 1.0}
    assert {step: schedule(step) for step in at} == pytest.approx(at)


@pytest.mark.parametrize("step", [int, torch.tensor])
def test_two_phases_change_at_once(step):
    schedule = TwoPhaseBeta(SPE, until=2.5, first=0.25)
    assert [float(schedule(step(i))) for i in (0, 19, 20, 1000)] == [0.25, 0.25, 1.0, 1.0]


@pytest.mark.parametrize("warmup", [0.0, 5.0])
def test_cosine_ends_at_its_final_share(warmup):
    schedule = CosineRate(SPE, EPOCHS, warmup, final=0.1)
    start, end = int(warmup * SPE), int(EPOCHS * SPE)
    assert schedule(start) == pytest.approx(1)
    assert schedule((start + end) // 2) == pytest.approx(0.55)
    assert schedule(end) == pytest.approx(0.1)
    assert schedule(end + 100) == pytest.approx(0.1)


def test_cosine_refuses_a_warmup_that_fills_the_run():
    with pytest.raises(ValueError, match="warmup=30 leaves no epoch"):
        CosineRate(SPE, EPOCHS, 30.0, final=0.0)


def test_step_rate_changes_after_every_so_many_epochs():
    schedule = StepRate(SPE, EPOCHS, 0.0, every=10, gamma=0.5)
    assert [schedule(step) for step in (0, 79, 80, 159, 160)] == [1, 1, 0.5, 0.5, 0.25]


def plateau(**changes):
    return PlateauRate(
        SPE, EPOCHS, **({"warmup": 0.0, "factor": 0.5, "patience": 2, "threshold": 0.1, "lowest": 0.2} | changes)
    )


def mask(schedule, values):
    scales = []
    for value in values:
        schedule.observe(value)
        scales.append(schedule(0))
    return scales


def test_plateau_lowers_the_rate_after_its_patience():
    assert mask(plateau(), [5, 4, 4, 4, 3, 3, 3]) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


def test_plateau_takes_no_notice_of_improvements_below_its_threshold():
    assert mask(plateau(), [5, 4.95, 4.91]) == [1, 1, 0.5]


def test_plateau_stops_at_its_lowest_factor():
    assert mask(plateau(patience=1), [1] * 5) == [1, 0.5, 0.25, 0.2, 0.2]


def test_plateau_goes_on_from_its_state():
    whole, first, second = plateau(), plateau(), plateau()
    values = [5, 5, 5, 4, 4, 4, 4, 4]
    expected = mask(whole, values)
    mask(first, values[:4])
    second.load_state_dict(first.state_dict())
    assert mask(second, values[4:]) == expected[4:]


@pytest.mark.parametrize("name", [n for n in choices("lr_schedule") if n != "plateau"])
def test_other_rates_do_not_listen(name):
    schedule = rate(name)
    before = [schedule(step) for step in STEPS]
    mask(schedule, [1.0] * 50)
    assert [schedule(step) for step in STEPS] == before
    assert schedule.state_dict() == {}
