"""Names of inputs and of the files with their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np


def result_names(names: Sequence[str], suffixes: Sequence[str]) -> Sequence[str]:
    """Names of result files, all different: with the suffix replaced, or kept where two would be the same.

    Args:
        names: names of the inputs.
        suffixes: suffix of every result, for instance ".png".
    """
    paths = [PurePosixPath(name) for name in names]
    stems = [
        str(path.with_suffix(suffix)) if path.suffix else f"{path}{suffix}"
        for path, suffix in zip(paths, suffixes, strict=True)
    ]
    repeated = {stem for stem, count in Counter(stem.lower() for stem in stems).items() if count > 1}
    chosen, seen = list[str](), Counter[str]()
    for path, stem, suffix in zip(paths, stems, suffixes, strict=True):
        name = f"{path}{suffix}" if stem.lower() in repeated else stem
        seen[name.lower()] += 1
        again = f"{name.removesuffix(suffix)}-{seen[name.lower()]}{suffix}"
        chosen.append(name if seen[name.lower()] == 1 else again)
    return chosen


def part_names(names: Sequence[str], files: np.ndarray, part: str) -> list[str]:
    """Names of inputs: that of the file, with the number of the part if there are several.

    Args:
        names: names of the files.
        files: index of every input's file, ascending.
        part: what a part is called: "clip", "frame".
    """
    counts, first = np.bincount(files, minlength=len(names)), np.searchsorted(files, files)
    return [
        f"{names[file]} ({part} {row - first[row] + 1})" if counts[file] > 1 else names[file]
        for row, file in enumerate(files.tolist())
    ]
