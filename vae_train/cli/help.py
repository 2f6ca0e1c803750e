"""`--help`: the settings, groups and choices of a command, explained by the comments of the YAML files.

The files are read as text, since YAML libraries drop comments. Neither Hydra nor PyTorch is needed, so help answers at
once.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

import yaml

from vae_train.cli.hydra_compat import conf_dir
from vae_train.util.errors import UsageError
from vae_train.util.text import did_you_mean

FLAGS = (
    "-m (one job per combination of values), --config-dir DIR (another folder of YAML files), --cfg job (the composed "
    "configuration), --info (where it comes from), --debug (tracebacks)"
)

MAX_WIDTH, MAX_NAME = 120, 34
"""Width of the page, and of the column of names and defaults, in characters."""

LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#]*?(?:\"[^\"]*\")?))?(?: +# ?(?P<comment>.*))?$")


class Setting(NamedTuple):
    """A setting or a section of a YAML file."""

    path: str
    """Dotted path."""
    value: str
    """Its default in YAML; empty for a section."""
    comment: str


class Page(NamedTuple):
    """The content of a YAML file, with its comments."""

    about: str
    """The comment at its top."""
    defaults: Mapping[str, str]
    """Group -> its default choice."""
    base: str
    """The file of the same folder that it extends; empty if there is none."""
    settings: Sequence[Setting]
    header: str
    """One sentence about a command."""
    examples: str
    """Command lines to copy."""


class Group(NamedTuple):
    """A group of choices."""

    name: str
    """The name that a person types."""
    folder: str
    prefix: str
    """Dotted path of its settings; "*" stands for the choice."""
    default: str
    """The default choice; empty if there is none."""


def config_dirs(arguments: Sequence[str]) -> list[str]:
    """The folders of YAML files that a command line adds."""
    flags = ("--config-dir", "-cd")
    joined = (argument.partition("=") for argument in arguments)
    after = (following for flag, following in pairwise(arguments) if flag in flags)
    return [*after, *(folder for flag, _, folder in joined if flag in flags and folder)]


def help_text(command: str, program: str, settings: Sequence[str], folders: Sequence[str] = ()) -> str:
    """The answer to `--help`.

    Args:
        command: name of the command's YAML file.
        program: the command, for instance "vae train".
        settings: other arguments; `group=choice` explains a choice, `group` lists the choices of a group.
        folders: additional folders of YAML files.

    Raises:
        UsageError: there is no such group or choice.
    """
    conf = Conf([conf_dir(), *map(Path, folders)])
    groups = {group.name: group for group in conf.groups(command)}
    parts = []
    for setting in settings:
        name, is_choice, choice = setting.partition("=")
        if name in groups and is_choice:
            parts += [conf.explain(groups[name], each) for each in choices_in(choice)]
        elif name in groups:
            parts.append(conf.catalogue(groups[name]))
        elif not is_choice:
            raise UsageError(f"--help {setting}: no such group{did_you_mean(name, groups)} ({', '.join(groups)})")
    return "\n\n".join(parts) or conf.overview(command, program, list(groups.values()))


def choices_in(value: str) -> list[str]:
    """The choices that a value names: itself, or those of a list like [tensorboard,wandb]."""
    return value.strip("[]").split(",")


class Conf:
    """Folders of YAML files.

    Args:
        roots: the folders; the first one that has a file wins.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots

    def folders(self) -> list[str]:
        """The folders of all groups, of every command."""
        files = ((root, path) for root in self.roots for path in root.rglob("*/*.yaml"))
        return sorted({path.parent.relative_to(root).as_posix() for root, path in files})

    def choices(self, folder: str) -> list[str]:
        """The choices of a group."""
        return sorted({path.stem for root in self.roots for path in (root / folder).glob("*.yaml")})

    def page(self, name: str, prefix: str = "") -> Page:
        """Reads a file together with the file that it extends.

        Args:
            name: path below a root, without the suffix.
            prefix: dotted path of its settings.
        """
        path = next(path for root in self.roots if (path := root / f"{name}.yaml").is_file())
        page = read_page(path.read_text(), prefix)
        if not page.base:
            return page
        inherited = self.page(f"{name.rpartition('/')[0]}/{page.base}", prefix)
        settings = {setting.path: setting for setting in (*inherited.settings, *page.settings)}
        return page._replace(defaults={**inherited.defaults, **page.defaults}, settings=list(settings.values()))

    def groups(self, command: str) -> Iterator[Group]:
        """Yields the groups of a command, each followed by those of its default choice."""
        defaults = self.page(command).defaults
        if command == "eval":  # all metrics are computed; there is no choice
            yield Group("metric", "metric", "metrics.*", "")
        for name, default in defaults.items():
            if "/" not in name:
                yield from self._with_inner(name, default)

    def _with_inner(self, name: str, default: str) -> Iterator[Group]:
        folder, _, typed = name.partition("@")
        if not (choices := self.choices(folder)):
            return
        typed = typed or folder
        yield Group(typed, folder, typed.replace("/", "."), default)
        if default in choices:
            for inner, choice in self.page(f"{folder}/{default}").defaults.items():
                yield from self._with_inner(f"{folder}/{inner}", choice)

    def explain(self, group: Group, choice: str) -> str:
        """The page of a choice: what it is, and its settings."""
        choices = self.choices(group.folder)
        if choice not in choices:
            hint = did_you_mean(choice, choices)
            raise UsageError(f"{group.name}={choice}: no such choice{hint} ({', '.join(choices)})")
        page = self.page(f"{group.folder}/{choice}", group.prefix.replace("*", choice))
        lines = [f"{group.name}={choice}", fill(page.about, _width()), ""]
        lines += _setting_lines(page.settings)
        inner = [(f"{group.folder}/{name}={default}", "") for name, default in page.defaults.items()]
        lines += ["", "Groups below it", *_columns(inner)] if inner else []
        return "\n".join(lines)

    def catalogue(self, group: Group) -> str:
        """The choices of a group, one line each."""
        choices = self.choices(group.folder)
        rows = [(name + " (default)" * (name == group.default), self._summary(group, name)) for name in choices]
        return "\n".join([f"{group.name}=", *_columns(rows)])

    def _summary(self, group: Group, choice: str) -> str:
        """The first sentence of a choice's page."""
        about = self.page(f"{group.folder}/{choice}").about
        return re.split(r"(?<!et al)\.(?: |$)", about)[0]

    def overview(self, command: str, program: str, groups: Sequence[Group]) -> str:
        """The page of a command: all of its settings and groups."""
        page = self.page(command)
        lines = [page.header, "", *(f"  {line}" for line in page.examples.splitlines()), "", "Settings, name=value"]
        lines += _setting_lines([s for s in page.settings if "$" not in s.value])
        if groups:
            first, is_catalogue = groups[0], "*" in groups[0].prefix
            choice = self.choices(first.folder)[0]
            title = "Metrics; metrics.NAME.enabled=false leaves one out" if is_catalogue else "Groups, group=choice"
            lines += ["", title, *_columns([(group.name, self._choices_text(group)) for group in groups]), ""]
            lines += _columns([
                (f"{program} --help {first.name}", "explains the choices of a group"),
                (f"{program} {first.name}={choice} --help", "lists the settings of a choice"),
            ])  # fmt: skip
        return "\n".join([*lines, "", fill(f"Flags: {FLAGS}", _width())])

    def _choices_text(self, group: Group) -> str:
        choices = self.choices(group.folder)
        default = f"{group.default} (default)"
        return ", ".join(
            [default, *(c for c in choices if c != group.default)] if group.default in choices else choices
        )


def package_in(text: str) -> str:
    """The dotted path that the first line of a YAML file gives to its settings; empty if it gives none."""
    return text.partition("\n")[0].partition("# @package ")[2].strip()


def read_page(text: str, prefix: str = "") -> Page:
    """Reads a YAML file together with its comments.

    Args:
        text: the file.
        prefix: dotted path of its settings, unless the file names another.
    """
    lines, content = text.splitlines(), yaml.safe_load(text) or {}
    package = package_in(text)
    prefix = "" if package == "_global_" else package or prefix
    head = [line for line in lines if not line.startswith("# @package")]
    count = next((number for number, line in enumerate(head) if not line.startswith("#")), len(head))
    entries, texts = content.get("defaults", []), content.get("hydra", {}).get("help", {})
    defaults = {k: "" if v is None else str(v) for e in entries if isinstance(e, dict) for k, v in e.items()}
    return Page(
        about=" ".join(line.lstrip("# ") for line in head[:count]),
        defaults={name: choice for name, choice in defaults.items() if not name.startswith("override ")},
        base=next((e for e in entries if isinstance(e, str) and e not in ("_self_", "command")), ""),
        settings=list(_settings(head[count:], prefix)),
        header=texts.get("header", ""),
        examples=texts.get("footer", ""),
    )


def _settings(lines: Sequence[str], prefix: str) -> Iterator[Setting]:
    """Yields the settings of a file's lines in order. A comment above a section explains the section."""
    parents: list[tuple[int, str]] = []
    above: list[str] = []
    found: list[Setting] = []
    for line in lines:
        match = LINE.match(line)
        if match is None:
            comment = line.strip().removeprefix("#").strip()
            if line.startswith("#"):
                above.append(comment)
            elif line.lstrip().startswith("#") and found:  # continues the comment of the line before
                found[-1] = found[-1]._replace(comment=f"{found[-1].comment} {comment}")
            continue
        indent, key, value, comment = match.group("indent", "key", "value", "comment")
        parents = [*(parent for parent in parents if parent[0] < len(indent)), (len(indent), key)]
        if parents[0][1] not in ("defaults", "hydra") and not key.startswith("_"):
            path = ".".join(filter(None, [prefix, *(name for _, name in parents)]))
            found.append(Setting(path, (value or "").strip(), comment or " ".join(above)))
        above = []
    yield from found


def _setting_lines(settings: Sequence[Setting]) -> list[str]:
    """Settings with defaults and meanings. Those of a section stand together, below its comment."""
    lines: list[str] = []
    for _, members in groupby(settings, key=lambda s: s.path if s.value == "" else s.path.rpartition(".")[0]):
        head, *rest = members
        is_titled = head.value == ""
        lines += [""] if lines else []
        lines += [fill(head.comment, _width(), initial_indent="  ")] if is_titled and head.comment else []
        lines += _columns([_row(setting) for setting in (rest if is_titled else [head, *rest])])
    return lines


def _row(setting: Setting) -> tuple[str, str]:
    """A setting with its default, and its meaning."""
    reference = re.fullmatch(r"\$\{\.*([\w.]+)\}", setting.value)
    if reference:  # ${beta} or ${..encoder.norm}
        return setting.path, f"{setting.comment}{'; ' * bool(setting.comment)}defaults to {reference[1]}"
    return f"{setting.path}: {'required' if setting.value == '???' else setting.value}", setting.comment


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Rows of names and meanings; meanings are wrapped within their column."""
    column = min(MAX_NAME, max((len(name) for name, _ in rows), default=0)) + 4
    lines = []
    for name, meaning in rows:
        start = f"  {name:<{column - 2}}"
        if len(name) > column - 4:
            lines.append(start.rstrip())
            start = " " * column
        text = fill(meaning, _width(), initial_indent=start, subsequent_indent=" " * column, break_on_hyphens=False)
        lines.append(text or start.rstrip())
    return lines


def _width() -> int:
    """Width of the page in characters."""
    return max(60, min(MAX_WIDTH, shutil.get_terminal_size((100, 24)).columns))
