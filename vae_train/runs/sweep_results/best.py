"""Which point of a sweep is the best, and whether that can be said at all. Test metrics decide nothing."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from vae_train.evaluation.comparison import OTHER_PROTOCOL, lead_caution
from vae_train.evaluation.metrics.base import Better
from vae_train.runs.sweep_results.points import Point, info, metric_names
from vae_train.runs.sweep_results.rows import Conditions, JobResult
from vae_train.util.errors import UsageError

Goal = Literal["max", "min"]

OBJECTIVE = ("beta", "objective", "experiment")
"""Settings, and sections, of what a model is trained for."""

SCORING = ("data", "preprocessing", "corruption", "model/likelihood", "model.likelihood")
"""Settings, and sections, of which values are scored, and by which density."""

UNITS_OF_BOUNDS = ("nats", "bits/dim")


class Judge(NamedTuple):
    """A metric that points are ranked by."""

    metric: str
    better: Better

    @property
    def title(self) -> str:
        """The metric in messages."""
        return info(self.metric).title


class Verdict(NamedTuple):
    """The best point of a sweep."""

    judge: Judge | None
    best: Point | None
    reasons: list[str]
    """Why there is no best point."""
    cautions: list[str]
    """Why the order of the points may mislead."""

    @property
    def run(self) -> JobResult | None:
        """The best job of the best point."""
        if self.best is None or self.judge is None:
            return None
        metric, sign = self.judge.metric, 1 if self.judge.better == "higher" else -1
        return max((r for r in self.best.done if metric in r.values), key=lambda r: sign * r.values[metric])


def find_judge(name: str, goal: Goal | None, points: Sequence[Point]) -> Judge:
    """The metric that a user names.

    Args:
        name: a metric of training, such as "elbo" or "seconds", or of `vae eval` on the validation split.
        goal: whether its highest or its lowest value is the best; None for what is usual.
        points: the points of the sweep.

    Raises:
        UsageError: no job has this metric, it belongs to the test split, or it is unknown which value is better.
    """
    known = metric_names(points)
    metric = name if name in known else f"valid.{name}"
    if _is_test(name) or (metric not in known and any(_is_test(n) and n.endswith(f".{name}") for n in known)):
        sweep, short = points[0].results[0].folder.parent, name.rpartition(".")[2]
        raise UsageError(
            "is a metric of the test split, by which nothing is chosen; evaluate the validation split with "
            f"vae eval run={sweep} split=valid, then use metric={short}"
        )
    if metric not in known:
        usable = [each for each in known if not _is_test(each)]
        near = difflib.get_close_matches(name, usable, n=1)
        hint = f"; did you mean metric={near[0]}?" if near else ""
        raise UsageError(f"no finished job has this metric{hint} ({', '.join(usable) or 'no job is done yet'})")
    usual = info(metric).better
    if goal is None and usual is None:
        raise UsageError("has no better direction; add goal=max or goal=min")
    return Judge(metric, usual if goal is None else "higher" if goal == "max" else "lower")  # type: ignore[arg-type]


def judge_points(points: Sequence[Point], named: Judge | None = None) -> Verdict:
    """Finds the best point of a sweep.

    Args:
        points: the points.
        named: the metric to judge by; None for the validation ELBO (the distortion of models without one), if all runs
            were trained for the same objective and score the same data alike.
    """
    finished = [point for point in points if point.done]
    if not finished:
        return Verdict(named, None, [], [])
    other_scores, reasons = _scoring_differences(finished), list[str]()
    if named is None:
        reasons = [*_objective_differences(finished), *other_scores, *_missing_validation(finished)]
    judge = named or _usual_judge(finished)
    if judge is None:
        reasons.append("Some models have no ELBO.")
    if reasons or judge is None:
        return Verdict(judge, None, reasons, [])
    ranked = [point for point in finished if point.mean(judge.metric) is not None]
    ranked.sort(key=lambda point: _cost(point, judge))
    cautions = _cautions(ranked, judge)
    if missing := len(finished) - len(ranked):
        cautions.append(f"{missing} of {len(finished)} rows have no {judge.metric}.")
    if info(judge.metric).unit in UNITS_OF_BOUNDS:
        cautions += other_scores
    if judge.metric.endswith("loss") and (varied := _varied_objective(ranked)):
        cautions.append(f"{varied} varies, and losses of different objectives are not comparable.")
    return Verdict(judge, ranked[0] if ranked else None, [], cautions)


def _usual_judge(points: Sequence[Point]) -> Judge | None:
    for metric, better in (("elbo", "higher"), ("distortion", "lower")):
        if all(point.mean(metric) is not None for point in points):
            return Judge(metric, better)  # type: ignore[arg-type]
    return None


def _cost(point: Point, judge: Judge) -> float:
    mean = point.mean(judge.metric)
    assert mean is not None
    return mean.value if judge.better == "lower" else -mean.value


def _cautions(ranked: Sequence[Point], judge: Judge) -> list[str]:
    """What speaks against the order of the first two points."""
    if len(ranked) < 2:
        return []
    first, second = (point.mean(judge.metric) for point in ranked[:2])
    assert first is not None
    assert second is not None
    if first.se is None or second.se is None:
        return ["One seed tells little about the order: more of them, seed=0,1,2, show the spread."]
    lead, error = abs(first.value - second.value), math.hypot(first.se, second.se)
    caution = lead_caution(ranked[1].name, lead, error, info(judge.metric).unit, "other seeds")
    return [caution] if caution else []


def _objective_differences(points: Sequence[Point]) -> list[str]:
    """Why the ELBO does not rank these points: they were not all trained for it alike."""
    varied = _varied_objective(points)
    reason = f"{varied} varies, and the ELBO does not rank runs that were trained for different objectives."
    return [reason] if varied else []


def _varied_objective(points: Sequence[Point]) -> str:
    """The settings of the objective in which points differ; empty if there is none."""
    return _varied(points, OBJECTIVE) or ("objective" if _differ(points, lambda c: (c.objective, c.beta)) else "")


def _scoring_differences(points: Sequence[Point]) -> list[str]:
    """Why no bound ranks these points: they score other data, or score it in another way."""
    varied = _varied(points, SCORING)
    varied = varied or ("the data" if _differ(points, lambda c: c.data) else "")
    varied = varied or ("the likelihood" if _differ(points, lambda c: c.likelihood) else "")
    return [f"{varied} varies, and {OTHER_PROTOCOL[0].lower()}{OTHER_PROTOCOL[1:]}"] if varied else []


def _missing_validation(points: Sequence[Point]) -> list[str]:
    has_other = any(result.split != "valid" for point in points for result in point.done)
    return ["There is no validation split."] if has_other else []


def _varied(points: Sequence[Point], sections: Sequence[str]) -> str:
    """The settings of some sections in which points differ; empty if there is none."""
    keys = points[0].settings if len(points) > 1 else {}
    names = [key for key in keys if any(key == name or key.startswith((f"{name}.", f"{name}/")) for name in sections)]
    return ", ".join(key for key in names if len({point.settings.get(key) for point in points}) > 1)


def _differ(points: Sequence[Point], of: Callable[[Conditions], object]) -> bool:
    """Whether the conditions of the jobs differ, as an experiment or a model with its own likelihood makes them."""
    return len({of(result.conditions) for point in points for result in point.done}) > 1


def _is_test(metric: str) -> bool:
    """Whether a metric belongs to an evaluation of the test split."""
    file, dot, _ = metric.partition(".")
    return bool(dot) and file.partition("-")[0] == "test"
