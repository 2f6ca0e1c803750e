"""Suggestions for settings and choices that do not exist."""

import difflib
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from vae_train.cli.help import Conf, package_in
from vae_train.cli.hydra_compat import conf_dir
from vae_train.util.text import did_you_mean

SYNONYMS = {
    ("objective", "betavae"): "objective=elbo beta=4",
    ("objective", "vae"): "objective=elbo",
    ("objective", "wae"): "objective=wae_mmd",
    ("objective", "betatcvae"): "objective=tcvae",
    ("model", "cnn"): "model=conv",
    ("model", "convolutional"): "model=conv",
}
"""Names of choices in other libraries, without underscores -> the settings here."""


SETTINGS = {
    "learning_rate": "lr",
    "z_dim": "latent_dim",
    "latents": "latent_dim",
    "n": "num",
    "n_samples": "num",
    "gpu": "device",
    "fid": "images",
    "val_split": "data.valid",
    "amp": "precision",
    "manifold": "show=manifold",
}
"""Names of settings in other libraries and earlier versions -> those here."""


@cache
def groups() -> Mapping[str, Sequence[str]]:
    """The choices of every group of the package's own configuration."""
    conf = Conf([conf_dir()])
    return {folder: conf.choices(folder) for folder in conf.folders()}


def choice_hint(group: str, value: str, options: Sequence[str]) -> str:
    """A suggestion for a choice that a group does not have, which may be a path instead of a kind of data."""
    if group == "data" and os.path.exists(value):
        from vae_train.data.storage.listing import IMAGES, kind_of  # imports PyTorch

        kind = IMAGES if os.path.isdir(value) else kind_of(os.path.splitext(value)[1])
        setting = "data=arrays data.path=" if kind is None else f"data={kind.source} data.root="
        return f"; did you mean {setting}{shlex.quote(value)}?"
    plain = {_plain(name): name for name in options}
    if _plain(value) in plain:
        return f"; did you mean {group}={plain[_plain(value)]}?"
    if (group, _plain(value)) in SYNONYMS:
        return f"; did you mean {SYNONYMS[group, _plain(value)]}?"
    return did_you_mean(value, options)


def group_hint(group: str, value: str) -> str:
    """A suggestion for a group that does not exist: one that has the choice, or one with a similar name."""
    having = [name for name, options in groups().items() if value in options]
    above = [name for name in having if name.split("/")[0] == group.split("/")[0]]
    return f"; did you mean {above[0]}={value}?" if above else did_you_mean(group, groups())


def chosen_hint(key: str, value: Any, choices: Mapping[str, str]) -> str:
    """A suggestion for a setting that is the last part of a group's name, for instance model.prior=vamp."""
    last = re.split(r"[./]", key)[-1]
    for group, options in groups().items():
        if group in choices and "/" in group and group.rpartition("/")[2] == last:
            near = difflib.get_close_matches(_plain(str(value)), options, n=1)
            choice = f"did you mean {group}={near[0]}?" if near else f"choose with {group}="
            return f"; {choice}" if str(value) in options else f"; {choice} ({', '.join(options)})"
    return ""


def setting_hint(key: str, value: Any, paths: Iterable[str], choices: Mapping[str, str]) -> str:
    """A suggestion for a setting that does not exist.

    Args:
        key: dotted path.
        value: its value.
        paths: dotted paths of all settings, shallow ones first.
        choices: group -> the file that was chosen.
    """
    (section, _, name), paths = key.rpartition("."), list(paths)
    if hint := chosen_hint(key, value, choices):
        return hint
    if SETTINGS.get(key, "").partition("=")[0] in paths:
        return f"; did you mean {SETTINGS[key]}?"
    group, _, rest = key.partition(".")
    if (option := rest.partition(".")[0]) in groups().get(group, ()) and is_named(group, option):
        return f"; add {group}={option}, or {group}=[…,{option}] with others"
    if rest and group in choices:
        having = [option for option in groups().get(group, ()) if rest in _settings(group, option)]
        inside = [path.removeprefix(f"{group}.") for path in paths if path.startswith(f"{group}.")]
        if having and not did_you_mean(rest, inside):
            return f": {group}={choices[group]} has none; it is a setting of {group}={', '.join(having)}"
    if section and (below := [path for path in paths if path.startswith(f"{section}.") and path.endswith(f".{name}")]):
        return f"; did you mean {below[0]}?"
    beside = [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == section]
    if section and beside and not did_you_mean(name, beside):
        return f"; {section} has the settings {', '.join(beside)}"
    if hint := did_you_mean(key, paths):
        return hint
    last = {path.rpartition(".")[2]: path for path in reversed(paths)}
    near = did_you_mean(name, last).removeprefix("; did you mean ").removesuffix("?")
    return f"; did you mean {last[near]}?" if near else ""


def flag_hint(command: str, flag: str, values: Sequence[str]) -> str:
    """A suggestion for a setting that was typed as a flag, such as --beta 4, --batch-size=4, --images or -r RUN.

    Args:
        command: name of the command's YAML file.
        flag: the flag as typed.
        values: other arguments; the first without an equals sign is the flag's value.
    """
    conf = Conf([conf_dir()])
    switches = {setting.path: setting.value in ("true", "false") for setting in conf.page(command).settings}
    known = [*switches, *(group.name for group in conf.groups(command))]
    typed, _, value = flag.lstrip("-").partition("=")
    name = typed.replace("-", "_")
    value = value or next((each for each in values if "=" not in each and each[:1] != "-"), "")
    if name in known or "." in name:
        found = [name]
    elif SETTINGS.get(name) in known:
        found = [SETTINGS[name]]
    elif len(name) == 1:
        is_switch = value in ("", "true", "false")
        found = [each for each in known if each.startswith(name) and (is_switch or not switches.get(each))]
    else:
        found = difflib.get_close_matches(name, known, n=1)
    if len(found) != 1:
        return "; --help lists all settings and flags"
    value = value or ("true" if switches.get(found[0]) else "")
    return (
        f"; settings have no dashes: {shlex.quote(f'{found[0]}={value}')}" if value else f"; did you mean {found[0]}=?"
    )


def is_training_setting(key: str) -> bool:
    """Whether `vae train` has a setting or group of this name."""
    page = Conf([conf_dir()]).page("train")
    names = (*page.defaults, *(setting.path for setting in page.settings))
    return re.split(r"[./]", key)[0] in {re.split(r"[./@]", name)[0] for name in names}


def experiment_sets(experiment: str | None, key: str) -> bool:
    """Whether an experiment's file sets a dotted path."""
    node: Any = _settings("experiment", experiment) if experiment else {}
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node is not None


def is_named(group: str, option: str) -> bool:
    """Whether the settings of a choice are below its name, so that several choices can be combined."""
    return package_in(_text(group, option)) == f"{group}.{option}"


@cache
def _settings(group: str, option: str) -> dict[str, Any]:
    """The settings in the file of a choice; empty if the file is in another folder."""
    text = _text(group, option)
    content: dict[str, Any] = yaml.safe_load(text) or {}
    return content.get(group, content) if package_in(text) == "_global_" else content


def _text(group: str, option: str) -> str:
    """The file of a choice; empty if it is in another folder."""
    path = conf_dir() / group / f"{option}.yaml"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _plain(name: str) -> str:
    return re.sub(r"[_-]", "", name.lower())
