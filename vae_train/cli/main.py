"""`vae <command>`: one console script, one Hydra application per command.

Nothing heavy is imported here: `vae --help` and completion answer at once.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from vae_train.util.errors import ErrorDetail, RunError, Stopped, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omegaconf import DictConfig

COMMANDS = {
    "train": "train a model; leaves a run under outputs/",
    "eval": "how good a trained model is: vae eval run=last",
    "sample": "pictures from a trained model: vae sample run=last num=64",
    "fit-prior": "a better density to draw from, after training: vae fit-prior run=last",
    "data": "what a data set holds: vae data data=folder data.root=photos",
    "reproduce": "train a saved configuration again and compare: vae reproduce run=last",
}

USAGE = """vae trains, evaluates and samples variational autoencoders.

  vae <command> [setting=value …] [flags]

{commands}

Examples
  vae train                                       digits, mlp; no download
  vae train data=mnist model=conv latent_dim=32 beta=4 optimizer=adamw lr=3e-4 epochs=20
  vae train -m beta=1,2,4 latent_dim=8,16 sweep=first
  vae train resume=last epochs=60
  vae eval run=last

Flags of every command
  --help            all settings and their choices     --cfg job     the composed configuration
  -m                one job per combination            --info        where the configuration comes from
  --config-dir DIR  a further folder of YAML files     --debug       full tracebacks
  -sc install=bash  completion: eval "$(vae -sc install=bash)"
"""

ASKING = ("--help", "-h", "--hydra-help", "--info", "-i", "--shell-completion", "-sc", "--version")
"""Flags that only print; what Hydra answers to them needs no check."""


def main() -> None:
    """The console script."""
    try:
        code = _main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough: `vae --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tells of the rest when it ends
        code = 1
    sys.exit(code)


def _main(words: list[str]) -> int:
    if words and words[0] in ("-sc", "--shell-completion"):
        return _complete(words)
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE.format(commands="\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())))
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"vae_train {version('vae_train')}")
        except PackageNotFoundError:
            print("vae_train, not installed: imported from a checkout")
        return 0
    command, *rest = words
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"vae: no such command: {command}{hint} ({', '.join(COMMANDS)})", file=sys.stderr)
        return 2
    return _run(command, rest)


def _run(command: str, words: list[str]) -> int:
    """Runs a command; the only place that turns errors into messages and exit codes."""
    debug = "--debug" in words or os.environ.get("HYDRA_FULL_ERROR") == "1"
    words = [word for word in words if word != "--debug"]
    try:
        return _hydra(command, words)
    except UsageError as error:
        _print_errors(command, error, debug)
        return 2
    except Stopped as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print(f"\nvae {command}: stopped at once, nothing more was saved", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug:
            raise
        kind = "" if isinstance(error, RunError) else f"{type(error).__name__}: "
        text = f"{kind}{error}".strip().splitlines() or [type(error).__name__]
        where = "" if isinstance(error, RunError | OSError) else " (--debug shows where)"
        print(f"vae {command}: {text[0]}{where}", file=sys.stderr)
        return 1
    finally:
        if build := sys.modules.get("vae_train.runs.build"):  # nothing was read if it was not imported
            build.session.clear()


def _plain(command: str) -> str:
    """A command as its module and its YAML are called."""
    return command.replace("-", "_")


def _print_errors(command: str, error: UsageError, debug: bool) -> None:
    count = len(error.errors)
    print(f"vae {command}: {count} error{'s' if count > 1 else ''}; nothing was written", file=sys.stderr)
    width = max((len(m.where) for m in error.errors), default=0)
    for detail in error.errors:
        print(f"  {detail.where:<{min(width, 40)}}  {detail.message}".replace("\n", " "), file=sys.stderr)
    if debug:
        import traceback

        traceback.print_exception(error)


def _hydra(command: str, words: list[str]) -> int:
    """Checks what was typed, then hands it to Hydra."""
    module = importlib.import_module(f"vae_train.cli.commands.{_plain(command)}")
    # A command may choose among the files of a group by another word: see GROUPS of fit_prior.py.
    names = getattr(module, "GROUPS", {})
    words = ["=".join([names.get(key, key), *rest]) for key, *rest in (word.split("=", 1) for word in words)]
    if any(word.split("=")[0] in ASKING for word in words):
        _application(command, module.run, words)
        return 0
    from hydra._internal.utils import get_args_parser

    flags, unknown = get_args_parser().parse_known_intermixed_args(words)
    # Hydra itself wants flags before settings; people type them anywhere.
    words = [word for word in words if word not in flags.overrides] + flags.overrides
    if unknown:
        raise UsageError(f"no such flag: {' '.join(unknown)} (vae {command} --help lists them)")
    if flags.config_name or flags.config_path:
        raise UsageError("--config-name and --config-path belong to Hydra's own programs; --config-dir adds a folder")
    from vae_train.cli.overrides import checked

    only_show = flags.cfg is not None
    try:
        jobs, whole, added = checked(
            _plain(command),
            flags.overrides,
            module.Settings,
            (lambda cfg, words: []) if only_show else module.check,
            found=_mode_errors(command, flags.overrides, flags.multirun),
            sweep=flags.multirun,
            config_dir=flags.config_dir,
            all_of=getattr(module, "ALL_OF", None),
        )
    except UsageError as error:
        for typed, group in names.items():
            error.errors = [m._replace(where=m.where.replace(f"{group}=", f"{typed}=")) for m in error.errors]
        raise
    words = [*words, *added]
    if not only_show:
        _log_to_console()
    if not flags.multirun:
        single = _Single(module.run)
        if whole is None or only_show:
            _application(command, single, words)
        else:
            _composed(command, single, whole)
        if single.error is not None:
            raise single.error
        return 0
    if command == "train":
        return _sweep(module.run, words, jobs)
    return _each(command, module.run, words, len(jobs), added)


def _mode_errors(command: str, words: list[str], multirun: bool) -> list[ErrorDetail]:
    """Settings that only go with -m, or only without."""
    if command != "train":
        return []
    given = {word.lstrip("+").partition("=")[0]: word for word in words}
    if not multirun:
        return [ErrorDetail(given["sweep"], "names a sweep, which -m makes")] if "sweep" in given else []
    found = [
        ErrorDetail(given[key], f"{key}= is for one run and cannot go with -m{hint}")
        for key, hint in (("out", ": sweep= names the folder"), ("resume", ""), ("plan", ""))
        if key in given
    ]
    if "sweep" in given:
        from vae_train.runs.sweep import folder_error

        wrong = folder_error(given["sweep"].partition("=")[2])
        found += [ErrorDetail(given["sweep"], wrong)] if wrong else []
    return found


def _sweep(function: Any, words: list[str], jobs: list[list[str]]) -> int:
    """Trains all jobs in one folder; one that fails leaves its log and does not stop the others."""
    from datetime import datetime

    from vae_train.runs import sweep as table

    named = next((word.partition("=")[2] for word in words if word.startswith("sweep=")), None)
    folder = table.create(named or f"{datetime.now():%Y-%m-%d-%H-%M-%S}", jobs)
    print(f"vae train: {len(jobs)} jobs in {folder}", flush=True)
    try:
        _application("train", _Job(function, len(jobs), folder), [*words, f"hydra.sweep.dir={folder}"])
    finally:
        failed = table.finish(folder)
    return 1 if failed else 0


def _each(command: str, function: Any, words: list[str], count: int, added: list[str]) -> int:
    """Runs all jobs of a command that writes into the runs it is given."""
    from tempfile import TemporaryDirectory

    job = _Job(function, count, added=added)
    with TemporaryDirectory() as folder:  # Hydra leaves a file of its own where a sweep ran
        _application(command, job, [*words, f"hydra.sweep.dir={folder}"])
    return 1 if job.failed else 0


class _Single:
    """A command's function as the only job, which keeps its error: Hydra would print the overrides before raising it.

    Args:
        function: the command's function.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.error: Exception | None = None

    def __call__(self, cfg: Any) -> float | None:
        from vae_train.cli.overrides import fill_latents

        try:
            fill_latents(cfg)
            return self.function(cfg)
        except Exception as error:
            self.error = error
            return None


class _Job:
    """A command's function as one job of a sweep.

    Args:
        function: the command's function.
        count: how many jobs there are.
        folder: where the sweep leaves its jobs' folders, if it does.
        added: overrides that were not typed, which are not printed.
    """

    def __init__(self, function: Any, count: int, folder: Path | None = None, added: Sequence[str] = ()) -> None:
        self.function, self.count, self.folder, self.added, self.failed = function, count, folder, added, 0

    def __call__(self, cfg: Any) -> float | None:
        import math
        import traceback

        from hydra.core.hydra_config import HydraConfig

        from vae_train.cli.overrides import fill_latents
        from vae_train.runs import sweep as table

        hydra = HydraConfig.get()
        typed = [word for word in hydra.overrides.task if word not in self.added]
        print(f"[{hydra.job.num + 1}/{self.count}] {' '.join(typed)}", flush=True)
        try:
            fill_latents(cfg)
            return self.function(cfg)
        except Exception as error:
            self.failed += 1
            if self.folder is not None:
                table.job_failed(self.folder / str(hydra.job.num), error, traceback.format_exc())
            print(f"failed: {error}", file=sys.stderr, flush=True)
            return math.nan


def _application(command: str, function: Any, words: list[str], program: str | None = None) -> None:
    """Runs Hydra's application of a command; `program` is what Hydra calls it."""
    import hydra

    from vae_train.runs.schema import conf_dir

    decorate = hydra.main(config_path=str(conf_dir()), config_name=_plain(command), version_base="1.3")
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR", "")
    sys.argv = [program or f"vae {command}", *words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to `_run`, which knows what to say
    try:
        decorate(function)()
    finally:
        sys.argv, os.environ["HYDRA_FULL_ERROR"] = before


def _composed(command: str, function: Any, whole: DictConfig) -> None:
    """Runs Hydra's application of a command on the configuration that the check has composed.

    Hydra would compose it twice more, a third of the time from the import of torch to the first step.

    Args:
        command: as it is typed.
        function: the command's function.
        whole: the configuration with Hydra's own node.
    """
    import copy

    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path

    from vae_train.runs.schema import conf_dir

    loader: Any = ConfigLoaderImpl(create_config_search_path(str(conf_dir())))
    loader.load_configuration = lambda **request: copy.deepcopy(whole)  # Hydra takes them apart to print them
    Hydra(f"vae {command}", loader).run(_plain(command), function, overrides=[])


def _log_to_console() -> None:
    """Messages of a run go to standard output as they are."""
    log = logging.getLogger("vae_train")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.handlers = [handler]


def _complete(words: list[str]) -> int:
    """Completion: the command's name here, everything behind it by Hydra.

    Hydra's shell function asks for completions without the command, which stands in COMP_LINE.
    """
    line = os.environ.get("COMP_LINE", "")
    typed = line.split()
    asked = any(word.startswith("query=") for word in words)
    if not asked:
        _application("train", lambda cfg: None, words, program="vae")
        return 0
    finished = len(typed) > 2 or (len(typed) == 2 and line.endswith(" "))
    if not finished:
        start = typed[1] if len(typed) > 1 else ""
        print(" ".join(name for name in COMMANDS if name.startswith(start)))
        return 0
    if typed[1] in COMMANDS:
        head, _, tail = line.partition(typed[0])
        os.environ["COMP_LINE"] = head + typed[0] + tail.replace(f" {typed[1]}", "", 1)
        os.environ["COMP_POINT"] = str(len(os.environ["COMP_LINE"]))
        _application(typed[1], lambda cfg: None, words, program="vae")
    return 0
