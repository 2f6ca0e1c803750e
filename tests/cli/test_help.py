"""`--help` names everything that a command takes, with the comments of the YAML files."""

from pathlib import Path

import pytest
import yaml

from vae_train.cli.help import Conf, help_text, read_page
from vae_train.cli.hydra_compat import conf_dir

COMMANDS = ["train", "eval", "sample", "fit_prior", "data", "reproduce"]
CONF = Conf([conf_dir()])
CHOICES = [
    (command, group, choice)
    for command in COMMANDS
    for group in CONF.groups(command)
    for choice in CONF.choices(group.folder)
]
LINES = Path(conf_dir()).rglob("*.yaml")


def plain(text):
    return " ".join(text.split())


def paths(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}.")
        elif not key.startswith("_"):
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_lists_its_settings_and_choices(command):
    text = help_text(command, f"vae {command}", [])
    content = yaml.safe_load((conf_dir() / f"{command}.yaml").read_text())
    settings = {k: v for k, v in content.items() if k not in ("defaults", "hydra")}
    for path, value in paths(settings):
        assert f"  {path}: " in text or "${" in str(value)
    for group in CONF.groups(command):
        assert all(choice in text for choice in CONF.choices(group.folder)), group
    assert content["hydra"]["help"]["header"] in text
    assert "$" not in text
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("path", sorted(LINES), ids=lambda path: str(path.relative_to(conf_dir())))
def test_every_comment_is_in_its_page(path):
    page = read_page(path.read_text())
    shown = plain(" ".join([page.about, *(setting.comment for setting in page.settings)]))
    inside, skipped = False, ("# @package",)
    for line in path.read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            inside = line.startswith(("defaults:", "hydra:"))
        comment = line.partition("# ")[2]
        if comment and not inside and not line.startswith(skipped):
            assert plain(comment) in shown
    assert page.about


@pytest.mark.parametrize(("command", "group", "choice"), CHOICES, ids=lambda value: getattr(value, "name", value))
def test_a_choice_is_explained_with_all_its_settings(command, group, choice):
    text = help_text(command, f"vae {command}", [f"{group.name}={choice}"])
    content = yaml.safe_load((conf_dir() / group.folder / f"{choice}.yaml").read_text())
    names = [path for path, _ in paths({k: v for k, v in content.items() if k != "defaults"})]
    assert text.startswith(f"{group.name}={choice}\n")
    assert all(name in text or name.rpartition(".")[0] in text for name in names)  # encoder: {hidden: [400]}


def test_a_group_lists_its_choices_with_what_they_are():
    lines = help_text("train", "vae train", ["objective"]).splitlines()
    assert lines[0] == "objective="
    assert "  elbo (default)      The (negative) evidence lower bound" in "\n".join(lines)
    assert [line.split()[0] for line in lines[1:] if line[2] != " "] == CONF.choices("objective")


def test_settings_that_a_choice_inherits_are_shown_once():
    text = help_text("train", "vae train", ["objective=free_bits"])
    assert text.count("objective.free_bits: 0.1 ") == 1
    assert "objective.num_samples: 1 " in text
    assert "objective/beta_schedule=constant" in text


def test_a_further_folder_is_listed_and_explained(vae, tmp_path):
    (tmp_path / "mine/model/prior").mkdir(parents=True)
    (tmp_path / "mine/model/prior/student.yaml").write_text("# A Student t.\n_target_: mine.T\ndf: 3   # freedom\n")
    answer = vae("train", "--config-dir", "mine", "--help", "model/prior")
    assert (answer.code, "student" in answer.out, "A Student t" in answer.out) == (0, True, True)
    answer = vae("train", "model/prior=student", "--config-dir=mine", "--help")
    assert "model.prior.df: 3  freedom" in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["objectiv"], "--help objectiv: no such group; did you mean objective?"),
        (["objective=elbow"], "objective=elbow: no such choice; did you mean elbo?"),
        (["model.prior"], "--help model.prior: no such group; did you mean model/prior?"),
    ],
)
def test_a_name_that_does_not_exist_is_an_error_with_a_suggestion(vae, arguments, message):
    (line,) = vae("train", "--help", *arguments).errors()
    assert line.strip().startswith(message)


def test_flags_and_settings_do_not_matter(vae):
    answer = vae("fit-prior", "run=last", "-m", "prior=kde", "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("prior=kde\n")
