"""How likely single images are."""

from __future__ import annotations

import csv
import math

import torch
from torch import Tensor
from typing_extensions import override

from vae_train.evaluation.bounds import EQUAL_SAMPLES, POINT_MASS, has_equal_samples
from vae_train.evaluation.scores import image_scores
from vae_train.plotting.grid import plot_contact_sheet
from vae_train.plotting.png import write_png
from vae_train.runs.apply.results import new_table
from vae_train.runs.apply.task import Application, Task
from vae_train.util.progress import progress_bar
from vae_train.util.ranges import NonNegativeInt, PositiveInt
from vae_train.util.text import counted

LEAST_LIKELY, COLUMNS = 16, 4
"""Number of images on the sheet, and its columns."""

SCORES = ("nll", "elbo", "distortion", "rate", "bits_per_dim", "nll_bits_per_dim")
"""Columns of scores.csv; it is sorted by the first of nll, elbo and distortion that the model has. The rate of every
layer follows for a model with several, the topmost first."""


class Score(Task):
    """Writes ELBO, rate, distortion and -log p(x) of every image, sorted from the least to the most likely one.

    Args:
        k: importance samples per image for -log p(x); 0 for none.
        num_samples: samples of z per image for the ELBO and its terms.
    """

    def __init__(self, k: NonNegativeInt, num_samples: PositiveInt) -> None:
        self.k, self.num_samples = k, num_samples

    @override
    def __call__(self, application: Application) -> list[str]:
        inputs = application.inputs
        passes = len(inputs) * (2 if self.k else 1)
        with progress_bar(passes, "Scoring") as bar:
            scores = image_scores(
                application.model.model,
                inputs.images,
                noise=inputs.noise,
                k=self.k,
                num_samples=self.num_samples,
                batch_size=application.batch_size,
                progress=bar.update,
            )
        key = next(name for name in SCORES if name in scores)
        order = (scores[key] if key == "elbo" else -scores[key]).argsort(stable=True).tolist()
        self._write_csv(application, scores, order)
        texts = [f"{inputs.names[n].rsplit('/')[-1]} {scores[key][n].item():.1f}" for n in order[:LEAST_LIKELY]]
        images = torch.cat([application.pixels(application.image(n).x) for n in order[:LEAST_LIKELY]])
        write_png(application.folder / "least_likely.png", plot_contact_sheet(images, texts, COLUMNS))
        note = f"-log p(x) is {EQUAL_SAMPLES}" if self.k and has_equal_samples(application.model.model) else None
        return [self._summary(scores, key, len(inputs)), *filter(None, [note])]

    def _summary(self, scores: dict[str, Tensor], key: str, count: int) -> str:
        values = scores[key].double()
        error = f" ± {values.std().item() / math.sqrt(count):.2f}" if count > 1 else ""
        unit = "nats" if key != "nll" else f"nats with k={self.k}"
        reason = "" if "elbo" in scores else f"; {POINT_MASS}"
        return f"mean {key} of {counted(count, 'image')}: {values.mean().item():.2f}{error} {unit}{reason}"

    def _write_csv(self, application: Application, scores: dict[str, Tensor], order: list[int]) -> None:
        inputs, values = application.inputs, {name: column.tolist() for name, column in scores.items()}
        names = [name for name in SCORES if self.k or not name.startswith("nll")]
        names += [name for name in scores if name.startswith("rate_")]
        labels = [] if inputs.classes is None else ["label"]
        with new_table(application.folder / "scores.csv") as file:
            writer = csv.writer(file)
            writer.writerow(["file", *labels, *names])
            for row in order:
                label = [] if inputs.classes is None else [inputs.classes[row]]
                numbers = [f"{values[name][row]:.9g}" if name in values else "" for name in names]
                writer.writerow([inputs.names[row], *label, *numbers])
