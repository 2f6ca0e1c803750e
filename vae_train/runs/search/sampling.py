"""An Optuna sampler whose noise belongs to the trial. Imports Optuna, so it is imported late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

DIGITS = 4
"""Significant digits of a number that a search chooses: settings that people can read and type again."""


class TrialSampler(BaseSampler):
    """Chooses the settings of each trial with a new sampler, and rounds them.

    Args:
        sampler: builds the sampler of a trial from its number.
    """

    def __init__(self, sampler: Callable[[int], BaseSampler]) -> None:
        self._build = sampler
        self._sampler: BaseSampler = RandomSampler(seed=0)

    @override
    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler = self._build(trial.number)
        self._sampler.before_trial(study, trial)

    @override
    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    @override
    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        values = self._sampler.sample_relative(study, trial, search_space)
        return {name: rounded(value, search_space[name]) for name, value in values.items()}

    @override
    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        value = self._sampler.sample_independent(study, trial, param_name, param_distribution)
        return rounded(value, param_distribution)

    @override
    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)


def rounded(value: Any, distribution: BaseDistribution) -> Any:
    """A number with few digits, within the ends of its distribution; other values are returned unchanged."""
    if not isinstance(distribution, FloatDistribution):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), distribution.low), distribution.high)
