"""scripts/torture in a short form, and in a longer one that is marked slow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def torture(*options: str) -> str:
    """The table of counts, once everything was withstood."""
    command, environment = [ROOT / "scripts/torture", *options], os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_few_kills_and_failing_operations_are_withstood() -> None:
    table = torture("--only", "kills", "errors", "--stride", "43")
    assert "| SIGKILL, then resume | 2 | 2 |" in table
    assert "| failing file operation, then resume | 2 | 2 |" in table


@pytest.mark.slow
@pytest.mark.parametrize(
    "campaign", ["kills", "errors", "full", "locked", "zones", "damage", "configs", "commands", "sweeps"]
)
def test_every_fault_is_withstood(campaign: str) -> None:
    torture("--only", campaign, "--stride", "3", "--rounds", "2")
