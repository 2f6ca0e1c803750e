"""Accuracy of the majority-class baseline."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from vae_train.evaluation.classification import accuracy, probe_data, to_labels
from vae_train.evaluation.metrics.base import Estimate, Metric, MetricInfo, Results
from vae_train.evaluation.requirements import class_labels, single_latent
from vae_train.evaluation.subject import Subject
from vae_train.plotting.arrays import Array


class MajorityClass(Metric):
    """Accuracy of always predicting the most frequent class: the baseline of the probes."""

    outputs = (MetricInfo("majority_class", "majority-class accuracy", decimals=4),)
    requires = (single_latent, class_labels)
    order = 32

    @override
    def __call__(self, subject: Subject) -> Results:
        data = probe_data(subject)
        return {"majority_class": majority_class(data.train_y, data.test_y)}


def majority_class(train_y: Array, test_y: Array) -> Estimate:
    """Estimates the accuracy of always predicting the most frequent class of training.

    Args:
        train_y: `(N,)` int classes.
        test_y: `(M,)` int.
    """
    classes, counts = np.unique(to_labels(train_y), return_counts=True)
    return accuracy(np.full(len(test_y), classes[counts.argmax()]), test_y, len(train_y))
