"""How well a fitted prior predicts codes."""

import math

import torch
from typing_extensions import override

from vae_train.evaluation.encodings import encode_codes
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.subject import Subject
from vae_train.model.prior.fitted.base import CodePrior


def has_code_prior(subject: Subject) -> str | None:
    """Requires a fitted prior over codes."""
    is_fitted = isinstance(getattr(subject.model, "prior", None), CodePrior)
    return None if is_fitted else "the prior was not fitted to codes by vae fit-prior"


class CodeCrossEntropy(Metric):
    """Cross-entropy of the codes of images under a fitted prior, and what it saves compared with uniform codes.

    For quantised latents the rate is -log p(codes), so that the rate and the bits per dimension fall by exactly these
    savings. The frequency table has the frequencies of the training codes at every position.

    Args:
        enabled: whether the metric is computed.
    """

    outputs = (
        MetricInfo("code_nats", "cross-entropy of the codes", "nats/code", 3, better="lower"),
        MetricInfo("code_bits", "cross-entropy of the codes", "bits/code", 3, better="lower"),
        MetricInfo("code_bits_table", "cross-entropy under a frequency table", "bits/code", 3),
        MetricInfo("code_bits_uniform", "cross-entropy under uniform codes", "bits/code", 3),
        MetricInfo("rate_saved", "rate saved compared with uniform codes", "nats", better="higher"),
        MetricInfo("bits_per_dim_saved", "bits/dim saved compared with uniform codes", decimals=4, better="higher"),
    )
    requires = (has_code_prior,)
    order = 5

    @override
    def __call__(self, subject: Subject) -> Results:
        prior = subject.model.prior
        assert isinstance(prior, CodePrior)
        assert prior.num_codes is not None
        codes = encode_codes(subject.model, subject.images, noise=subject.noise("judge"), batch_size=subject.batch_size)
        nats = -prior.log_prob(codes.to(subject.model.device, torch.int64)) / prior.size
        uniform, dims = math.log(prior.num_codes), math.prod(subject.model.data_shape)
        saved = prior.size * (uniform - nats)
        values = {
            "code_nats": nats,
            "code_bits": nats / math.log(2),
            "code_bits_table": -prior.table_log_prob(codes) / prior.size / math.log(2),
            "rate_saved": saved,
            "bits_per_dim_saved": saved / dims / math.log(2),
        }
        results: Results = {name: Estimate.mean_of(value) for name, value in values.items()}
        return results | {"code_bits_uniform": Estimate(uniform / math.log(2), None, len(codes))}
