"""Settings of the plots of a trained model."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated

from vae_train.batch import Split
from vae_train.evaluation.interpolation import Interpolation
from vae_train.training.checkpoint import CheckpointName
from vae_train.util.ranges import NonNegativeFloat, NonNegativeInt, PositiveInt, Range, Seed

MAX_VALUE_LENGTH = 40
"""Characters of a setting in the name of a file."""


@dataclass(kw_only=True)
class Options:
    """Settings that plots share; each plot reads some of them. Files are named in this order."""

    seed: Seed = 0
    num: PositiveInt | None = None
    """Number of samples, pairs, latents or images; None for the plot's own default."""
    frames: Annotated[int, Range(2)] | None = None
    """Number of images on a path, or of frames; None for the plot's own default."""
    columns: PositiveInt = 8
    temperature: NonNegativeFloat | list[NonNegativeFloat] = 1.0
    """Factor on the prior's standard deviation; or one for each layer of latents, the topmost first."""
    top_k: PositiveInt | None = None
    """Samples only have codes that are among the k most likely ones given those before; None for all."""
    use_mean: bool = True
    """Show means of p(x | z) rather than samples."""
    label: NonNegativeInt | str | None = None
    """The class to condition on, by name or number."""
    factors: list[NonNegativeInt | str] | None = None
    """A value for each factor to condition on, by name or number."""
    split: Split | None = None
    """The split that images are taken from; None for the test split, or else the validation or training split."""
    images: list[NonNegativeInt] | None = None
    """Numbers of images of the split; None to choose some."""
    interpolation: Interpolation = "linear"
    prior: str | None = None
    """Name of a prior fitted by `vae fit-prior`, which replaces the model's own."""
    checkpoint: CheckpointName = "best"

    def described(self, names: Sequence[str]) -> str:
        """Some settings in the name of a file: the seed, and those that differ from their defaults."""
        parts = []
        for option in fields(Options):
            value = getattr(self, option.name)
            if option.name in names and (option.name == "seed" or value != option.default):
                values = value if isinstance(value, list | tuple) else [value]
                text = "-".join(f"{each:g}" if isinstance(option.default, float) else str(each) for each in values)
                parts.append(_NAMES.get(option.name, f"{option.name}{{}}").format(text))
        return "".join("-" + re.sub(r"[^\w.-]+", "-", part)[:MAX_VALUE_LENGTH] for part in parts)


_NAMES = {"temperature": "t{}", "top_k": "top{}", "use_mean": "pixels"} | dict.fromkeys(
    ("checkpoint", "prior", "split", "interpolation"), "{}"
)
"""Setting -> its place in the name of a file, if that is not the setting's name followed by the value."""
