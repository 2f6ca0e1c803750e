"""The version of the package."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def package_version() -> str:
    """The installed version, or that in pyproject.toml for a checkout that is not installed."""
    try:
        return version("vae_train")
    except PackageNotFoundError:
        pyproject = Path(__file__).parents[2] / "pyproject.toml"
        match = re.search(r'^version = "(.+)"$', pyproject.read_text(), re.M) if pyproject.exists() else None
        return match[1] if match else "unknown"
