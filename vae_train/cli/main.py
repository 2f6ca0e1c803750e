"""`vae <command>`: dispatch, exit codes and error messages.

Imports nothing heavy, so that `vae --help` and completion answer at once.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from vae_train.cli.messages import print_errors
from vae_train.cli.process import log_to_console, missing_memory, prepare_process
from vae_train.cli.ranks import run_on_ranks
from vae_train.util.errors import RunError, Stopped, UsageError, collecting
from vae_train.util.text import did_you_mean, printable

COMMANDS = {
    "train": "train a model; writes a run below outputs/",
    "worker": "train jobs of a sweep, beside others: vae worker sweep=first",
    "eval": "compute metrics of a trained model: vae eval run=last",
    "sweep": "show the results of a sweep, also while it runs: vae sweep sweep=first",
    "report": "write an HTML page about a run: vae report run=last",
    "sample": "generate images with a trained model: vae sample run=last num=64",
    "apply": "apply a trained model to images: vae apply run=last task=encode input=photos",
    "export": "write a trained model for other programs: vae export run=last format=onnx",
    "fit-prior": "fit a better prior to a trained model: vae fit-prior run=last",
    "data": "inspect a data set: vae data data=folder data.root=photos",
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
  --help            settings, groups and choices       --cfg job     the composed configuration
  -m                one job per combination            --info        where the configuration comes from
  --config-dir DIR  another folder of YAML files       --debug       full tracebacks
  -sc install=bash  completion: eval "$(vae -sc install=bash)"

vae train --help objective lists the choices of a group; vae train data=folder --help explains one.
"""

GROUP_NAMES = {"fit_prior": {"prior": "fitted_prior@prior"}}
"""Typed names of groups that are called differently in conf/. A folder conf/prior would make `prior=` a choice
in `vae eval` and `vae sample` as well, where it is the name of a fitted prior."""

PRINTING_FLAGS = ("--hydra-help", "--info", "-i", "--shell-completion", "-sc", "--version")
"""Flags that Hydra answers by printing; nothing is checked or run."""


def main() -> None:
    """The console script."""
    prepare_process()
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except OSError:  # the reader closed the pipe (`vae --help | head`), or standard output is on a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports it again at exit
        code = 1
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs a command line and returns its exit code.

    Args:
        arguments: the command line without the program's name.
    """
    return run_on_ranks(arguments, run_on_rank_0)


def run_on_rank_0(arguments: Sequence[str], ranks: Any) -> int:
    """Runs a command line in this process; other ranks, if there are any, train along."""
    if arguments and arguments[0] in ("-sc", "--shell-completion"):
        from vae_train.cli.completion import answer_shell

        return answer_shell(arguments, COMMANDS)
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(USAGE.format(commands="\n".join(f"  {name:<11} {text}" for name, text in COMMANDS.items())))
        return 0 if arguments else 2
    if arguments[0] == "--version":
        from vae_train.util.version import package_version

        print(f"vae_train {package_version()}")
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        hint = f"; did you mean vae train {' '.join(arguments)}?" if "=" in command else did_you_mean(command, COMMANDS)
        print(printable(f"vae: unknown command {command}{hint} ({', '.join(COMMANDS)})"), file=sys.stderr)
        return 2
    return _guarded(command, rest, ranks)


def _guarded(command: str, arguments: list[str], ranks: Any) -> int:
    """Runs a command; the only place that turns errors into messages and exit codes."""
    debug = "--debug" in arguments or os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        return _run(command, [argument for argument in arguments if argument != "--debug"], ranks)
    except UsageError as error:
        if memory := missing_memory(error):
            print(printable(f"vae {command}: {memory}"), file=sys.stderr)
            return 1
        print_errors(command, arguments, error, debug)
        return 2
    except Stopped as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print(f"\nvae {command}: interrupted; nothing further was saved", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if getattr(error, "is_reported", False):
            return 1
        if debug:
            raise
        if memory := missing_memory(error):
            error = RunError(memory)
        if isinstance(error, OSError) and error.strerror and error.filename:
            error = RunError(f"cannot read or write {os.fsdecode(error.filename)}: {error.strerror}")
        kind = "" if isinstance(error, RunError) else f"{type(error).__name__}: "
        lines = f"{kind}{error}".strip().splitlines() or [type(error).__name__]
        where = "" if isinstance(error, RunError | OSError) else " (--debug shows the traceback)"
        print(printable(f"vae {command}: {lines[0]}{where}"), file=sys.stderr)
        return 1


def _run(command: str, arguments: list[str], ranks: Any) -> int:
    """Checks the whole command line, then runs it."""
    from vae_train.cli.hydra_compat import application, parse_flags

    name = command.replace("-", "_")
    if any(argument in ("--help", "-h") for argument in arguments):
        _print_help(name, command, arguments)
        return 0
    for key, group in GROUP_NAMES.get(name, {}).items():
        arguments = [re.sub(f"^{key}=", f"{group}=", argument) for argument in arguments]
    if any(argument.split("=")[0] in PRINTING_FLAGS for argument in arguments):
        application(name, arguments, f"vae {command}")
        return 0
    # Hydra has a flag --run, which does nothing here.
    dashed = [argument for argument in arguments if re.match("(--run|-r)(=|$)", argument)]
    flags, unknown = parse_flags([argument for argument in arguments if argument not in dashed])
    if unknown := [*dashed, *unknown]:
        from vae_train.cli.hints import flag_hint

        hint = flag_hint(name, unknown[0], [*flags.overrides, *unknown[1:]])
        raise UsageError(f"unknown flag {' '.join(unknown)}{hint}")
    if flags.config_name or flags.config_path:
        raise UsageError("--config-name and --config-path are not supported; --config-dir adds a folder")
    options = {"multirun": flags.multirun, "config_dir": flags.config_dir, "ranks": ranks}
    if flags.cfg is not None:
        if name == "sweep" and any(override.startswith("metric=") for override in flags.overrides):
            raise UsageError("--cfg does not work with metric=, which Hydra takes for the group; leave it out")
        (job, *_) = compose(name, flags.overrides, check=False, **options)
        # Hydra expects flags before settings, but users type them anywhere.
        typed_flags = [argument for argument in arguments if argument not in flags.overrides]
        application(name, [*typed_flags, *job.composed], f"vae {command}")
        return 0

    from vae_train.util.runtime import prepare

    log_to_console()  # checking the data may log messages
    prepare()  # before checks create the first tensor
    jobs, module = compose(name, flags.overrides, **options), _module(name)
    prepare(jobs[0].config["threads"])
    if not flags.multirun:
        module.run(jobs[0].settings, jobs[0])
        return 0
    failed = module.run_sweep(jobs) if name == "train" else _run_each(module, jobs)
    return 1 if failed else 0


def _print_help(name: str, command: str, arguments: Sequence[str]) -> None:
    from vae_train.cli.help import config_dirs, help_text

    folders = config_dirs(arguments)
    settings = [argument for argument in arguments if not argument.startswith("-") and argument not in folders]
    print(help_text(name, f"vae {command}", settings, folders))


def compose(command: str, overrides: Sequence[str], check: bool = True, **options: Any) -> list[Any]:
    """Composes all jobs of a command and checks them before the first one starts.

    Args:
        command: the command's module.
        overrides: settings as typed.
        check: also check that the jobs can run.
        options: `multirun`, `config_dir` and `ranks`, see `vae_train.cli.overrides.compose_jobs`.

    Raises:
        UsageError: lists the errors of all jobs.
    """
    from vae_train.cli.overrides import compose_jobs, follows

    module = _module(command)
    if any(override.startswith("resume=") for override in overrides):  # the composed data node is not that of the run
        overrides = [re.sub(r"^data\.(root|path|cache)=", r"+\g<0>", override) for override in overrides]
    errors = module.mode_errors(overrides, options.get("multirun", False)) if command == "train" else []
    if command == "train" and options.get("multirun") and not errors:
        options["stored"] = module.stored_jobs(overrides)
    jobs, found = compose_jobs(command, overrides, module.Settings, all_of=getattr(module, "ALL_OF", None), **options)
    errors += found
    for job in getattr(module, "unfinished", list)(jobs) if check else []:
        with collecting(errors):
            errors += module.check(job.settings, job)
    for key, group in GROUP_NAMES.get(command, {}).items():
        errors = [e._replace(where=e.where.replace(f"{group}=", f"{key}=")) for e in errors]
    if errors:
        named = {error.package: error for error in reversed(errors)}  # one error for a package is enough
        shown = [error for error in dict.fromkeys(errors) if not error.package or named[error.package] == error]
        raise UsageError([error for error in shown if not follows(error, errors)])
    return jobs


def _module(command: str) -> Any:
    return importlib.import_module(f"vae_train.cli.commands.{command}")


def _run_each(module: Any, jobs: list[Any]) -> int:
    """Runs all jobs of a command other than `train`; returns the number that failed."""
    failed = 0
    for number, job in enumerate(jobs):
        print(f"[{number + 1}/{len(jobs)}] {' '.join(job.overrides)}", flush=True)
        try:
            module.run(job.settings, job)
        except Exception as error:
            failed += 1
            print(printable(f"failed: {error}"), file=sys.stderr, flush=True)
    return failed
