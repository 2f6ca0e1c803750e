"""Accuracy of the majority-class baseline."""

from __future__ import annotations

import numpy as np
from typing_extensions import override

from vae_train.evaluation.classification import Probe, ProbeData, accuracy, to_labels
from vae_train.evaluation.metrics.base import Estimate, MetricInfo
from vae_train.plotting.arrays import Array


class MajorityClass(Probe):
    """Accuracy of always predicting the most frequent class: the baseline of the probes."""

    outputs = (MetricInfo("majority_class", "majority-class accuracy", decimals=4),)
    order = 32

    @override
    def accuracy(self, data: ProbeData) -> Estimate:
        return majority_class(data.train_y, data.test_y)


def majority_class(train_y: Array, test_y: Array) -> Estimate:
    """Estimates the accuracy of always predicting the most frequent class of training.

    Args:
        train_y: `(N,)` int classes.
        test_y: `(M,)` int.
    """
    classes, counts = np.unique(to_labels(train_y), return_counts=True)
    return accuracy(np.full(len(test_y), classes[counts.argmax()]), test_y, len(train_y))
