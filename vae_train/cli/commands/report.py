"""`vae report`: one HTML page about a run, or several."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from vae_train.batch import Split
from vae_train.cli.jobs import Job
from vae_train.runs.finding import find_runs, names_of
from vae_train.runs.html_report.contents import Contents, read_contents
from vae_train.runs.html_report.page import MARK, render
from vae_train.runs.html_report.views import Options
from vae_train.runs.run import OUTPUTS, write_text
from vae_train.util.errors import ErrorDetail, collecting
from vae_train.util.ranges import NonNegativeInt
from vae_train.util.runtime import device_errors, resolve_device
from vae_train.util.text import size

log = logging.getLogger("vae_train")

NAME = "report.html"

FRAMES, MIN_FRAMES = 12, 3
"""Image grids over the epochs of a single run, and the least for each of many runs."""


@dataclass
class Settings:
    """The top-level settings of conf/report.yaml."""

    run: str | list[str]
    split: Split | None
    examples: NonNegativeInt
    out: str | None
    device: str


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a run that does not exist, and a file that cannot be written."""
    errors = device_errors(settings.device)
    for folder in find_runs(settings.run):
        with collecting(errors):
            job.open(str(folder))
    return errors + _out_errors(settings.out)


def _out_errors(out: str | None) -> list[ErrorDetail]:
    """Reports a path that is not an HTML file, a folder that does not exist, and a file that is not a report."""
    if out is None:
        return []
    path, where = Path(out), f"out={out}"
    if path.is_dir():
        return [ErrorDetail(where, f"is a folder; name a file, for instance out={path / NAME}")]
    if path.suffix != ".html":
        return [ErrorDetail(where, f"must end with .html, for instance out={path.with_suffix('.html')}")]
    if not path.parent.is_dir():
        return [ErrorDetail(where, f"{path.parent} is not a folder; create it first")]
    if path.exists() and not _is_report(path):
        return [ErrorDetail(where, "exists and is not a report; choose another name")]
    return []


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK.encode() in file.read(4096)


def run(settings: Settings, job: Job) -> None:
    """Writes the page."""
    folders = find_runs(settings.run)
    runs, options = [job.open(str(folder)) for folder in folders], _options(settings, job)
    frames = max(MIN_FRAMES, FRAMES // len(runs))
    contents = [read_contents(run, name, options, frames) for run, name in zip(runs, names_of(runs), strict=True)]
    path = Path(settings.out) if settings.out else _path(settings.run, folders)
    page = render(contents)
    write_text(path, page)
    _log_summary(contents, path, len(page))


def _options(settings: Settings, job: Job) -> Options:
    device = resolve_device(settings.device)
    return Options(job.session, job.builder, device, settings.split, settings.examples)


def _path(name: str | Sequence[str], folders: Sequence[Path]) -> Path:
    """report.html in the run's folder or in that of the sweep; a new file under outputs/reports for a list of runs."""
    if isinstance(name, str):
        return (folders[0] if len(folders) == 1 else Path(name)) / NAME
    (OUTPUTS / "reports").mkdir(parents=True, exist_ok=True)
    return OUTPUTS / "reports" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}.html"


def _log_summary(contents: Sequence[Contents], path: Path, length: int) -> None:
    for each in contents:
        log.info("%s", each.headline)
        for reason in each.left_out:
            log.info("  left out: %s", reason)
    log.info("%s (%s, self-contained): open it in a browser", path, size(length))
