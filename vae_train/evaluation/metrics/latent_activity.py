"""Activity of the latent dimensions, and a diagnosis of posterior collapse."""

from typing import Any, NamedTuple

from torch import Tensor
from typing_extensions import override

from vae_train.distributions.kl import kl_elementwise
from vae_train.evaluation.bounds import has_equal_samples, subject_bounds
from vae_train.evaluation.encodings import Encodings, encodings, single_latent
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.subject import Subject
from vae_train.plotting.charts import plot_latent_activity

ACTIVE_VARIANCE = 0.01
"""Variance over images of its posterior mean, relative to the prior's, above which a latent dimension is active."""

COLLAPSED_RATE = 0.1
"""Nats below which z carries no information about the image."""

FEW_ACTIVE_FRACTION = 0.25
FAR_MEAN, FAR_STD = 0.5, 2.0
"""Moments of the aggregate posterior beyond which it is far from the prior, in standard deviations of the prior."""


def no_codes(subject: Subject) -> str | None:
    """Requires latents that are no codes: a number of a code's vector says nothing without the others."""
    return "z consists of codes" if has_equal_samples(subject.model) else None


class Activity(NamedTuple):
    """Statistics of D latent dimensions, in units of the prior's standard deviation."""

    variance: Tensor
    """(D,) variance over images of the posterior mean."""
    kl: Tensor | None
    """(D,) mean KL(q(z_d | x) || p(z_d)) over images in nats; None if q or p is not normal."""
    mean: Tensor
    """(D,) mean of the aggregate posterior, relative to the mean of a normal prior."""
    std: Tensor
    """(D,) standard deviation of the aggregate posterior."""

    @property
    def num_active(self) -> int:
        """Number of active latent dimensions."""
        return int((self.variance > ACTIVE_VARIANCE).sum())


class LatentActivity(Metric):
    """Number of active latent dimensions, with a diagnosis of posterior collapse, and a plot.

    Source: Burda et al., "Importance Weighted Autoencoders" (arXiv:1509.00519), appendix C.
    """

    outputs = (MetricInfo("active_units", "active latent dimensions", decimals=0),)
    requires = (single_latent, no_codes)
    order = 20

    @override
    def __call__(self, subject: Subject) -> Results:
        e, rate = encodings(subject), subject_bounds(subject, 1).get("rate")
        activity = latent_activity(e)
        kl = None if activity.kl is None else activity.kl.cpu()
        plot_latent_activity(activity.variance.cpu(), kl, ACTIVE_VARIANCE, subject.plot_path("latents"))
        about: dict[str, Any] = {
            name: None if values is None else [round(value, 6) for value in values.tolist()]
            for name, values in activity._asdict().items()
        }
        about |= {"of": len(activity.variance), "warning": diagnosis(activity, rate, e.p is not None, subject.beta)}
        return {"active_units": Estimate(activity.num_active, None, len(e.mean), about)}


def latent_activity(e: Encodings) -> Activity:
    """Computes variance, KL and aggregate moments of every latent dimension."""
    kl = None if e.q is None or e.p is None else kl_elementwise(e.q, e.p)
    center = 0.0 if e.p is None else e.p.loc
    mean, z = ((values.double() - center) / e.prior_std for values in (e.mean, e.z))
    rate = None if kl is None else kl.double().mean(0)
    return Activity(mean.var(0, unbiased=False), rate, z.mean(0), z.std(0, unbiased=False))


def diagnosis(activity: Activity, rates: Tensor | None, has_normal_prior: bool, beta: float | None) -> str | None:
    """Diagnoses the latents and suggests what to try; None if nothing is wrong.

    Args:
        activity: statistics of the latent dimensions.
        rates: (N,) rate of every image in nats; None for a point mass.
        has_normal_prior: whether moments of the aggregate posterior can be compared with the prior's.
        beta: the weight of the rate that the model was trained with; None if its objective has none.
    """
    size, active = len(activity.variance), activity.num_active
    lower = f"lower beta (it was {beta:g}), warm it up (objective/beta_schedule=linear) or " if beta else ""
    advice = f"{lower}train longer"
    rate = None if rates is None else float(rates.double().mean())
    named = f"{active or 'none'} of {size} latent dimensions is active"
    if (active == 0) if rate is None else (rate < COLLAPSED_RATE):
        paid = "" if rate is None else f" at a rate of {rate:.2f} nats"
        return f"posterior collapse: {named}{paid}, so z carries no information; {advice}"
    if active == 0:
        return f"{named} at a rate of {rate:.2f} nats: q(z | x) is far from the prior and hardly depends on x; {advice}"
    if active <= FEW_ACTIVE_FRACTION * size:
        return f"only {active} of {size} latent dimensions are active; {advice}, or use fewer latent dimensions"
    far = int(((activity.mean.abs() > FAR_MEAN) | (activity.std > FAR_STD)).sum())
    if has_normal_prior and 2 * far > size:
        return (
            f"the aggregate posterior is far from the prior in {far} of {size} latent dimensions (measured in standard "
            f"deviations of the prior, its mean is beyond {FAR_MEAN}, or its standard deviation above {FAR_STD:g}): "
            f"samples will not look like reconstructions; {'raise beta, or ' if beta else ''}fit a prior to the "
            "encodings (vae fit-prior)"
        )
    return None
