"""How a search chooses the settings of its next trial: the choices of `search=`, which build Optuna's samplers."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import override

from vae_train.util.ranges import PositiveInt

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


@dataclass(frozen=True)
class Search(ABC):
    """A search.

    Args:
        metric: the metrics that decide; None for the value by which the best epoch is chosen.
        storage: URL of a database without a password; None for the default.
    """

    metric: str | list[str] | None
    storage: str | None

    @abstractmethod
    def sampler(self, seed: int, number: int) -> BaseSampler:
        """The sampler of one trial.

        Workers must not choose the same settings, and a search that goes on must choose as if it had not been
        interrupted. So the noise of every trial is a function of the seed and of its number.

        Args:
            seed: the seed of the search.
            number: the number of the trial.
        """


@dataclass(frozen=True)
class Random(Search):
    """Random settings."""

    @override
    def sampler(self, seed: int, number: int) -> BaseSampler:
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=_mixed(seed, number))


@dataclass(frozen=True)
class TPE(Search):
    """The tree-structured Parzen estimator (Watanabe, "Tree-structured Parzen estimator", arXiv:2304.11127).

    Args:
        metric, storage: see `Search`.
        startup: number of random trials.
    """

    startup: PositiveInt

    @override
    def sampler(self, seed: int, number: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        # Running trials count as bad ones, so that workers do not look at the same place.
        return TPESampler(n_startup_trials=self.startup, constant_liar=True, seed=_mixed(seed, number))


@dataclass(frozen=True)
class QMC(Search):
    """A scrambled Sobol sequence, of which all workers take the next point, so it has the same seed for all trials."""

    @override
    def sampler(self, seed: int, number: int) -> BaseSampler:
        from optuna.exceptions import ExperimentalWarning
        from optuna.samplers import QMCSampler

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return QMCSampler(scramble=True, seed=_mixed(seed, 0), warn_independent_sampling=False)


@dataclass(frozen=True)
class NSGA2(Search):
    """NSGA-II (Deb et al., "A fast and elitist multiobjective genetic algorithm", doi:10.1109/4235.996017).

    Args:
        metric, storage: see `Search`.
        population: trials of a generation, at least 2.
    """

    population: PositiveInt

    def __post_init__(self) -> None:
        if self.population < 2:
            raise ValueError(f"population={self.population}: a generation needs at least 2 trials")

    @override
    def sampler(self, seed: int, number: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=_mixed(seed, number))


def _mixed(seed: int, number: int) -> int:
    """A seed for each pair of a seed and a number."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
