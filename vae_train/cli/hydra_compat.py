"""The only user of Hydra's internals, so that supporting another version of Hydra only changes this file."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from vae_train.util.errors import UsageError


def conf_dir() -> Path:
    """The folder of the YAML files: inside the package when installed from a wheel, next to it in a checkout."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else inside.parents[1] / "conf"


def parse_flags(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Splits a command line into Hydra's flags (`overrides` holds the settings) and unknown flags.

    Hydra has no public parser. A second list of its flags here would go stale.

    Raises:
        UsageError: a flag has no value, or one that it does not accept.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.error = _invalid_flag  # type: ignore[method-assign]
    return parser.parse_known_intermixed_args(list(arguments))


def _invalid_flag(message: str) -> NoReturn:
    raise UsageError(message.removeprefix("argument "))


def application(command: str, arguments: Sequence[str], program: str | None = None) -> None:
    """Runs Hydra's application of a command for the flags that Hydra answers (--info, --cfg, completion). Runs no job.

    `hydra.main` reads `sys.argv`, and hides tracebacks behind its own message unless HYDRA_FULL_ERROR is set.

    Args:
        command: name of the primary configuration, such as "train".
        arguments: flags and overrides.
        program: what Hydra calls the program; None for `vae <command>`.
    """
    import hydra

    decorate = hydra.main(config_path=str(conf_dir()), config_name=command, version_base="1.3")
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR", "")
    sys.argv = [program or f"vae {command}", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        decorate(lambda cfg: None)()
    finally:
        sys.argv, os.environ["HYDRA_FULL_ERROR"] = before
