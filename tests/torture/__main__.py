"""`python -m tests.torture`: see scripts/torture."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked child cannot use the threads of its parent

from tests.torture.campaigns import CAMPAIGNS, Torture
from tests.torture.reports import table


def import_everything() -> None:
    """Imports the package, so that forked children need not."""
    import vae_train

    for module in pkgutil.walk_packages(vae_train.__path__, "vae_train."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main() -> int:
    """Runs the campaigns; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="scripts/torture", description="Injects faults and counts what is withstood.")
    parser.add_argument("--only", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS), help="some campaigns")
    parser.add_argument("--rounds", type=int, default=10, help="random faults for every file and line (default: 10)")
    parser.add_argument("--stride", type=int, default=1, help="strike every N-th file operation (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of random faults (default: 0)")
    options = parser.parse_args()
    import_everything()
    reports = []
    with tempfile.TemporaryDirectory() as name:
        torture = Torture(Path(name), options.rounds, options.stride, options.seed)
        for campaign in options.only:
            start = time.monotonic()
            reports.append(report := CAMPAIGNS[campaign](torture))
            print(f"{campaign}: {report.tries} tries in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
            for failure in report.failures:
                print(f"  {failure}", file=sys.stderr, flush=True)
    print(table(reports))
    return int(any(report.failures for report in reports))


if __name__ == "__main__":
    sys.exit(main())
