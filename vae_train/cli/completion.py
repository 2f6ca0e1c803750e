"""Completion of a command line: commands, settings, choices, runs, devices and files.

Hydra's own completion composes the configuration and takes seconds; this one reads the YAML files as `--help` does.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vae_train.cli.help import Conf, Group, Setting, choices_in, config_dirs
from vae_train.cli.hydra_compat import conf_dir

RUN_SETTINGS = ("run", "resume", "init_from")
FILE_SETTINGS = ("root", "path", "out", "cache", "inception", "labels", "ood", "input")
"""Last parts of the names of settings whose values are files or folders."""

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")

OUTPUTS = ("outputs/*/*/config.yaml", "outputs/sweeps/*/*/config.yaml")

MAX_RUNS = 100

FLAGS = ("--help", "--config-dir", "--cfg", "--info", "--debug")


def complete(line: str, commands: Iterable[str]) -> list[str]:
    """The completions of the last word of a command line.

    Args:
        line: the line up to the cursor.
        commands: the commands of the program.
    """
    _, *words = [*line.split(), *([""] if not line or line[-1].isspace() else [])]
    if not words:
        return []
    command, *settings = words
    if not settings:
        return [name for name in commands if name.startswith(command)]
    if command not in commands:
        return []
    *before, word = settings
    conf = Conf([conf_dir(), *map(Path, config_dirs(before))])
    name, is_value, value = word.partition("=")
    offers = _values(conf, command, before, name, value) if is_value else _names(conf, command, before, word)
    return sorted({offer for offer in offers if offer.startswith(word)})


def _names(conf: Conf, command: str, before: Sequence[str], word: str) -> Iterator[str]:
    """Yields settings and groups with an equals sign; nested settings by their section, until its dot is typed."""
    if word.startswith("-"):
        yield from FLAGS
        return
    yield from (f"{group.name}=" for group in _groups(conf, command))
    for setting in _settings(conf, command, before):
        if setting.path.startswith(word):
            end = setting.path.find(".", len(word)) + 1
            yield setting.path[:end] if end else f"{setting.path}="


def _settings(conf: Conf, command: str, before: Sequence[str]) -> Iterator[Setting]:
    """Yields all settings of a command, given the choices already typed."""
    chosen = dict(word.split("=", 1) for word in before if "=" in word)
    pages = [conf.page(_file(command))]
    for group in _groups(conf, command):
        named, known = choices_in(chosen.get(group.name, group.default)), conf.choices(group.folder)
        pages += [conf.page(f"{group.folder}/{each}", group.prefix) for each in named if each in known]
    for page in pages:
        yield from (setting for setting in page.settings if setting.value)


def _values(conf: Conf, command: str, before: Sequence[str], name: str, value: str) -> Iterator[str]:
    groups, last = {group.name: group for group in _groups(conf, command)}, name.rpartition(".")[2]
    if name in groups:
        values: Iterable[str] = conf.choices(groups[name].folder)
    elif name in RUN_SETTINGS:
        values = ["last", *_runs(), *_files(value)]
    elif name == "sweep":
        values = [Path(path).parent.name for path in glob.glob("outputs/sweeps/*/sweep.json")]
    elif name == "device":
        values = DEVICES
    elif last in FILE_SETTINGS:
        values = _files(value)
    else:
        listed = value[: value.rfind(",") + 1]
        values = [f"{listed}{each}" for s in _settings(conf, command, before) if s.path == name for each in _choices(s)]
    yield from (f"{name}={each}" for each in values)


def _choices(setting: Setting) -> Sequence[str]:
    """The values of a switch, or those that a comment begins with, for instance "best, last"."""
    listed = re.match(r"\w+(, \w+)+(?=[;.]|$)", setting.comment)
    return ("true", "false") if setting.value in ("true", "false") else listed[0].split(", ") if listed else ()


def _groups(conf: Conf, command: str) -> list[Group]:
    return [group for group in conf.groups(_file(command)) if "*" not in group.prefix]


def _file(command: str) -> str:
    return command.replace("-", "_")


def _runs() -> list[str]:
    """Folders of runs under outputs/, the latest first."""
    found = [path for pattern in OUTPUTS for path in glob.glob(pattern)]
    return [os.path.dirname(path) for path in sorted(found, key=os.path.getmtime, reverse=True)[:MAX_RUNS]]


def _files(start: str) -> Iterator[str]:
    """Yields files and folders whose path begins with `start`."""
    for path in glob.iglob(glob.escape(os.path.expanduser(start)) + "*"):
        shown = path.replace(os.path.expanduser("~"), "~", 1) if start.startswith("~") else path
        yield f"{shown}/" if os.path.isdir(path) else shown


def answer_shell(arguments: Sequence[str], commands: Iterable[str]) -> int:
    """Answers the shell, whose command line is in COMP_LINE; the installed script is Hydra's. Returns the exit code.

    Args:
        arguments: the command line of this process.
        commands: the commands of the program.
    """
    if not any(argument.startswith("query=") for argument in arguments):
        from vae_train.cli.hydra_compat import application

        application("train", arguments, "vae")
        return 0
    line = os.environ.get("COMP_LINE", "")
    print(" ".join(complete(line[: int(os.environ.get("COMP_POINT", len(line)))], commands)))
    return 0
