"""What to export and where, and the errors in it."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

from vae_train.runs.check import checkpoint_errors
from vae_train.runs.export import programs
from vae_train.runs.export.hub import hub_errors
from vae_train.runs.export.programs import ProgramFormat
from vae_train.runs.fitted_priors import prior_errors
from vae_train.runs.run import Run
from vae_train.training.checkpoint import CheckpointName
from vae_train.util.errors import ErrorDetail
from vae_train.util.folders import out_errors

Format = Literal[ProgramFormat, "safetensors"]

PACKAGES: Mapping[str, tuple[str, ...]] = {**programs.PACKAGES, "safetensors": ("safetensors",)}
"""Format -> the packages that it needs besides PyTorch."""

CARD, CONFIG, FACTS, WEIGHTS, PRIOR = "README.md", "config.json", "facts.json", "model.safetensors", "prior.safetensors"
PROGRAMS = tuple(f"{part}.{suffix}" for part in ("encoder", "decoder") for suffix in ("onnx", "onnx.data", "pt2"))
FILES = (CARD, CONFIG, FACTS, WEIGHTS, PRIOR, *PROGRAMS)
"""All files of an export. `overwrite` only replaces folders without others."""

LICENSE = re.compile(r"[\w.+-]+", re.ASCII)
"""An identifier of a licence, as SPDX and the Hugging Face Hub have them."""


class Options(NamedTuple):
    """What to export, and where."""

    formats: Sequence[Format] = ("pt2", "safetensors")
    checkpoint: CheckpointName = "best"
    prior: str | None = None
    """Name of a fitted prior to write beside the weights."""
    license: str | None = None
    """Licence of the weights, for the model card."""
    out: str | None = None
    """The folder; None for a new one in the run."""
    overwrite: bool = False
    """Replace an earlier export in `out`."""
    hub: str | None = None
    """Repository of the Hugging Face Hub to upload to, "owner/name"."""
    private: bool = True
    """Whether a new repository is private."""

    def command(self, run: Run) -> str:
        """The command line of these options."""
        names = ("checkpoint", "prior", "license", "out", "hub")
        typed = {"format": ",".join(self.formats)} | {name: getattr(self, name) for name in names}
        typed |= {} if self.private else {"private": "false"}
        given = [f"{name}={value}" for name, value in typed.items() if value != Options._field_defaults.get(name)]
        return f"vae export run={run.as_typed} {shlex.join(given)}"


def export_errors(run: Run, options: Options) -> list[ErrorDetail]:
    """All errors that can be found before the model is opened."""
    errors = checkpoint_errors(run, options.checkpoint) + prior_errors(run, options.prior)
    if options.prior is not None and "safetensors" not in options.formats:
        errors.append(ErrorDetail(f"prior={options.prior}", "has no effect without format=safetensors"))
    if options.license is not None and not LICENSE.fullmatch(options.license):
        errors.append(ErrorDetail(f"license={options.license}", "is not a licence identifier, for instance mit"))
    errors += _package_errors(options)
    if options.hub is not None and _is_installed("huggingface_hub"):
        errors += hub_errors(options.hub)
    if options.out is None and not os.access(run.folder, os.W_OK | os.X_OK):
        errors.append(ErrorDetail(str(run.folder), "is not writable; choose another folder with out="))
    return errors + (out_errors(options.out, options.overwrite, CONFIG) or _overwrite_errors(options))


def _package_errors(options: Options) -> list[ErrorDetail]:
    """Packages that are not installed."""
    needed = [(f"format={name}", package) for name in options.formats for package in PACKAGES[name]]
    needed += [] if options.hub is None else [(f"hub={options.hub}", "huggingface_hub")]
    missing: dict[str, list[str]] = {}
    for where, package in needed:
        if not _is_installed(package):
            missing.setdefault(where, []).append(package)
    hint = 'pip install "vae_train[export]"'
    return [ErrorDetail(where, f"needs {', '.join(packages)}; {hint}") for where, packages in missing.items()]


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


def _overwrite_errors(options: Options) -> list[ErrorDetail]:
    """Reports a folder to replace that has other files than those of an export."""
    if options.out is None:
        message = "has no effect without out=; exports in the run's folder are numbered"
        return [ErrorDetail("overwrite=true", message)] if options.overwrite else []
    folder = Path(options.out)
    others = sorted(path.name for path in folder.iterdir() if path.name not in FILES) if folder.is_dir() else []
    if not others:
        return []
    return [ErrorDetail(f"out={options.out}", f"has files other than those of an export ({others[0]}); choose another")]
