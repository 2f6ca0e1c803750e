"""The rate of every stochastic layer, and a diagnosis of layers that have collapsed."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from typing_extensions import override

from vae_train.evaluation.bounds import subject_bounds
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.subject import Subject
from vae_train.plotting.charts import plot_layer_rates
from vae_train.util.ranges import PositiveInt

T = TypeVar("T")

COLLAPSED_RATE = 0.1
"""Nats below which a layer carries no information about the image."""

MAX_LAYERS = 128
"""Number of layers that a report has rows for."""


class LayerRates(Metric):
    """The rate of every layer of a model with several, the topmost first; they add up to the rate.

    Source: Sønderby et al., "Ladder Variational Autoencoders" (arXiv:1602.02282), section 3.2.

    Args:
        num_samples: samples of z per image over which the rates of lower layers are averaged.
        enabled: whether the metric is computed.
    """

    outputs = tuple(
        MetricInfo(f"rate_{number}", f"rate of layer {number}", "nats") for number in range(1, MAX_LAYERS + 1)
    )
    order = 1

    def __init__(self, num_samples: PositiveInt, enabled: bool) -> None:
        super().__init__(enabled)
        self.num_samples = num_samples

    @override
    def __call__(self, subject: Subject) -> Results:
        columns = layer_rates(subject_bounds(subject, self.num_samples))
        if not columns:
            return {}
        means = [float(values.double().mean()) for values in columns]
        plot_layer_rates(means, COLLAPSED_RATE, subject.plot_path("layers"))
        results: Results = {
            info.name: Estimate.mean_of(values, title=f"{info.title} of {len(columns)}")
            for info, values in zip(self.outputs, columns, strict=False)
        }
        warning, title = layer_diagnosis(means, subject.beta), f"{self.outputs[0].title} of {len(columns)}, topmost"
        return results | {"rate_1": Estimate.mean_of(columns[0], title=title, warning=warning)}


def layer_rates(values: Mapping[str, T]) -> list[T]:
    """The entries "rate_1", "rate_2", … of bounds or metrics, the topmost layer first; empty for a single layer."""
    names = (f"rate_{number}" for number in range(1, len(values) + 1))
    return [values[name] for name in names if name in values]


def num_used(rates: Sequence[float]) -> int:
    """The number of layers that carry information, of layers with these mean rates in nats."""
    return sum(rate >= COLLAPSED_RATE for rate in rates)


def layer_diagnosis(rates: Sequence[float], beta: float | None) -> str | None:
    """Names layers that carry no information, and suggests what to try; None if all carry some.

    Args:
        rates: mean rate of every layer in nats, the topmost first.
        beta: the weight of the rate that the model was trained with; None if its objective has none.
    """
    collapsed, count = [number for number, rate in enumerate(rates, 1) if rate < COLLAPSED_RATE], len(rates)
    if not collapsed:
        return None
    warm_up = f"lower beta (it was {beta:g}) or warm it up (objective/beta_schedule=linear)" if beta else "train longer"
    if len(collapsed) == count:
        return f"posterior collapse: none of {count} layers carries information ({sum(rates):.2f} nats); {warm_up}"
    largest = max(rates[number - 1] for number in collapsed)
    carries, them = ("carries", "it") if len(collapsed) == 1 else ("carry at most", "them")
    return (
        f"{_numbered(collapsed)} of {count}, counted from the topmost, {carries} {largest:.2f} nats, so the model does "
        f"not use {them}; {warm_up}, give every layer free bits (objective=free_bits "
        "objective.free_bits_per=layer), or use fewer layers"
    )


def _numbered(numbers: Sequence[int]) -> str:
    """Ascending numbers of layers, for instance "layers 1 to 3 and 5"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [text for run in runs for text in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    *first, last = texts
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"layer {listed}" if len(numbers) == 1 else f"layers {listed}"
