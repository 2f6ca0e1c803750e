"""`vae eval`: evaluates trained models."""

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch

from vae_train.batch import Split
from vae_train.cli.jobs import Job
from vae_train.cli.ood import ood_images
from vae_train.cli.schema import no_effect
from vae_train.evaluation.comparison import Comparison, EvaluatedRun
from vae_train.evaluation.features import InceptionFeatures
from vae_train.evaluation.report import lines, markdown
from vae_train.evaluation.subject import Subject
from vae_train.evaluation.suite import Report, evaluate, merge
from vae_train.plotting.png import PlotFormat
from vae_train.runs import sweep_table
from vae_train.runs.build import load_data, open_model
from vae_train.runs.check import checkpoint_errors, run_data_errors
from vae_train.runs.config import weight_of_rate
from vae_train.runs.differences import differences, headline_settings, settings_text
from vae_train.runs.finding import finished_runs, names_of, sweep_of
from vae_train.runs.fitted_priors import fingerprint, prior_errors, replace_prior
from vae_train.runs.packages import allow_setting, packages_of
from vae_train.runs.run import OUTPUTS, Run, new_folder, read_json, write_json, write_text
from vae_train.runs.schema import RunFacts
from vae_train.runs.sweep_file import read_jobs
from vae_train.runs.sweep_results.rows import trained
from vae_train.runs.tracking import open_loggers
from vae_train.training.checkpoint import CheckpointName
from vae_train.training.loggers.files import best_row, read_metrics
from vae_train.util.errors import ErrorDetail, UsageError, collecting
from vae_train.util.files import unreadable
from vae_train.util.locks import locked
from vae_train.util.ranges import NonNegativeInt, PositiveFloat, PositiveInt, Seed
from vae_train.util.runtime import device_errors, resolve_device

log = logging.getLogger("vae_train")

ALL_OF = {"metric": "metrics"}
"""Groups of which every option is composed, with the package that receives them. The command line adds
`+metric@metrics.NAME=NAME` for every file in conf/metric and in a metric folder of --config-dir."""


@dataclass
class Settings:
    """The top-level settings of conf/eval.yaml."""

    run: str | list[str]
    checkpoint: CheckpointName
    prior: str | None
    split: Split
    num_samples: PositiveInt
    k: Literal["auto"] | NonNegativeInt
    minutes: PositiveFloat
    latents: bool
    images: bool
    inception: str | None
    ood: str | None
    format: PlotFormat
    batch_size: PositiveInt
    seed: Seed
    device: str
    strict: bool


def check(settings: Settings, job: Job) -> list[ErrorDetail]:
    """Reports a run, a split or a device that does not exist."""
    folders = finished_runs(settings.run)
    errors = device_errors(settings.device)
    if settings.k != "auto":
        errors += no_effect(job.overrides, ["minutes"], f"with k={settings.k}")
    if not settings.images:
        errors += no_effect(job.overrides, ["inception"], "without images=true")
    elif settings.inception is not None:
        with collecting(errors, f"inception={settings.inception}"):
            InceptionFeatures(settings.inception)
    for folder in folders:
        with collecting(errors):
            errors += _run_errors(str(folder), settings, job)
    return errors


def _run_errors(name: str, settings: Settings, job: Job) -> list[ErrorDetail]:
    run = job.open(name)
    errors = checkpoint_errors(run, settings.checkpoint) + prior_errors(run, settings.prior)
    errors += run_data_errors(run, run.config, job.session, job.builder)
    if errors:
        return errors
    data = load_data(run.config, job.session, torch.device("cpu"), job.builder)
    if data.split(settings.split) is None:
        errors.append(ErrorDetail(f"split={settings.split}", "this run's data has no such split"))
    if settings.ood:
        try:
            ood_images(settings.ood, run.config, data, torch.device("cpu"), job)
        except UsageError as error:
            errors.append(ErrorDetail(f"ood={settings.ood}", "; ".join(e.message for e in error.errors)))
    return errors


def run(settings: Settings, job: Job) -> None:
    """Evaluates the runs, and writes and prints the reports."""
    runs, sweep = [job.open(str(folder)) for folder in finished_runs(settings.run)], sweep_of(settings.run)
    reports = []
    for run in runs:
        with run.guard():
            reports.append(evaluate_run(run, settings, job))
    if len(runs) > 1:
        _compare(runs, reports, settings, is_shown=sweep is None)
    if sweep is not None:
        sweep_table.report(sweep, read_jobs(sweep), {})
        return
    names = settings.run if isinstance(settings.run, str) else f"[{','.join(settings.run)}]"
    arguments = [f"run={names}", allow_setting(name for run in runs for name in packages_of(run.config))]
    log.info("  report as one HTML page: vae report %s", shlex.join(filter(None, arguments)))


def _compare(runs: Sequence[Run], reports: Sequence[Report], settings: Settings, is_shown: bool) -> None:
    """Writes a table of several runs as Markdown and CSV, and prints it unless a sweep has its own."""
    shown = headline_settings(differences([settings_text(run.config) for run in runs]))
    rows = [
        EvaluatedRun(name, {path: values[number] for path, values in shown}, reports[number])
        for number, name in enumerate(names_of(runs))
    ]
    table = Comparison(rows)
    name = "-".join(filter(None, ["eval", settings.split, settings.prior]))
    folder = Path(settings.run) if isinstance(settings.run, str) else new_folder(OUTPUTS / "evaluations" / name)
    for suffix, text in ((".md", table.markdown()), (".csv", table.csv())):
        write_text(folder / f"{name}{suffix}", text)
    for line in (f"{len(runs)} runs", *(table.lines() if is_shown else []), folder / f"{name}.csv"):
        log.info("  %s", line)


def evaluate_run(run: Run, settings: Settings, job: Job) -> Report:
    """Evaluates a run, prints and returns the report, and merges it into eval/<split>.json and .md."""
    device = resolve_device(settings.device)
    model = open_model(run, device, job.builder, settings.checkpoint)
    if settings.prior is not None:
        replace_prior(model, run, settings.prior, job.builder)
    data = load_data(run.config, job.session, device, job.builder)
    run.eval.mkdir(exist_ok=True)
    subject = Subject(
        model,
        data,
        settings.split,
        folder=run.eval,
        seed=settings.seed,
        batch_size=settings.batch_size,
        prior=settings.prior,
        beta=weight_of_rate(run.config),
        board=run.tensorboard / "best",
        open_ood=partial(ood_images, config=run.config, data=data, device=device, job=job),
        checkpoint=settings.checkpoint,
        plot_format=settings.format,
    )
    log.info("%s", run.folder)
    metrics = [job.builder.build(node) for node in job.config["metrics"].values()]
    weights = fingerprint(model, without="")
    summary = run.summary()
    if summary["status"] == "unknown":
        run.report(unreadable(run.summary_file), "leaving out what the best epoch was chosen by")
    about = {"best_by": summary.get("best_by"), "weights": weights, "damage": run.damage, "trained": trained(summary)}
    report = evaluate(subject, metrics, checkpoint=settings.checkpoint, **about)
    path = run.eval / f"{subject.name}.json"
    with locked(run.eval_lock_file, wait=True):
        before = read_json(path)
        if not before and path.exists():
            log.warning("%s; its metrics are lost", unreadable(path))
        if before and before.get("weights") != weights:
            log.info("%s has metrics of other weights; replacing them", path)
            before = {}
        merged = merge(report, before, metrics)
        write_json(path, merged.to_dict())
        write_text(path.with_suffix(".md"), markdown(run.folder.name, merged))
    _log_to_board(run, report, subject, job)
    for line in (*lines(report), path):
        log.info("  %s", line)
    return report


def _log_to_board(run: Run, report: Report, subject: Subject, job: Job) -> None:
    """Adds metrics and image grids to the run's loggers, at the step of the checkpoint."""
    epoch = run.summary().get("best_epoch") if subject.checkpoint == "best" else None
    row = best_row(read_metrics(run.metrics_file), epoch)
    # A logger that resumes at the previous step hides what an earlier evaluation wrote at this step.
    facts = RunFacts.of(run.config, subject.data.facts)._replace(folder=run.tensorboard, step=row["step"] - 1)
    values = {name: float(estimate.value) for name, estimate in report.estimates.items()}
    about = {"step": row["step"], "epoch": row.get("epoch"), "split": f"best/{subject.name}", "scope": "epoch"}
    for logger in open_loggers(run, facts, job.builder, is_training=False):
        logger.metrics(about | values)
        for name, grid in subject.grids.items():
            logger.image_grid(f"best/{subject.name}", name, row["step"], grid)
        logger.close()
