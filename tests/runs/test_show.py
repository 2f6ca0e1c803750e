"""The catalogue of plots: one file each, nothing else to edit."""

import ast
from dataclasses import fields

import pytest
import torch
import yaml

from tests.support import CONF, PACKAGE
from vae_train.cli.help import read_page
from vae_train.plotting.sheet import Sheet
from vae_train.runs.show.base import SHARED_FILES, Plot, PlotContents, animation, find_plot, plot_names
from vae_train.runs.show.options import Options
from vae_train.runs.show.writing import Writer

FOLDER = PACKAGE / "runs/show"
DEFAULTS = yaml.safe_load((CONF / "sample.yaml").read_text())


def test_every_file_is_a_plot():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", *SHARED_FILES}
    assert set(plot_names()) == files
    assert {find_plot(name).name() for name in files} == files


@pytest.mark.parametrize("name", plot_names())
def test_a_plot_reads_options_and_imports_no_other(name):
    plot = find_plot(name)
    assert isinstance(plot, Plot)
    assert set(plot.reads) <= {option.name for option in fields(Options)}
    tree = ast.parse((FOLDER / f"{name}.py").read_text())
    imported = {node.module.rpartition(".")[2] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported.isdisjoint(plot_names())


def test_the_help_names_every_plot():
    (comment,) = [s.comment for s in read_page((CONF / "sample.yaml").read_text()).settings if s.path == "show"]
    assert set(comment.partition(";")[0].split(", ")) == set(plot_names())


def test_python_and_the_command_line_have_the_same_defaults():
    options = Options()
    assert {option.name: getattr(options, option.name) for option in fields(Options)}.items() <= DEFAULTS.items()


@pytest.mark.parametrize(
    ("options", "described"),
    [
        ({}, "-seed0"),
        ({"num": 10, "columns": 5, "temperature": 0.5, "use_mean": False}, "-seed0-num10-columns5-t0.5-pixels"),
        ({"label": 3, "seed": 7, "prior": "gmm", "checkpoint": "last"}, "-seed7-label3-gmm-last"),
        (
            {"images": [3, 17], "factors": [0, "big"], "interpolation": "spherical"},
            "-seed0-factors0-big-images3-17-spherical",
        ),
        ({"label": "../a b/$c"}, "-seed0-label..-a-b-c"),
    ],
)
def test_settings_stand_in_the_names_of_files(options, described):
    names = [option.name for option in fields(Options)]
    assert Options(**options).described(names) == described
    assert Options(**options).described([]) == ""


def noise() -> PlotContents:
    return PlotContents("noise", Sheet(torch.rand(4, 1, 8, 8), 2), animation([torch.rand(3, 1, 8, 8)]))


def test_nothing_is_overwritten_unless_asked(tmp_path):
    writer = Writer(tmp_path, ["png", "pdf"])
    (tmp_path / "a.gif").write_text("mine")
    first, second = writer.write(noise(), "a"), writer.write(noise(), "a")
    assert [path.name for path in first] == ["a-2.png", "a-2.pdf", "a-2.gif"]
    assert [path.name for path in second] == ["a-3.png", "a-3.pdf", "a-3.gif"]
    assert (tmp_path / "a.gif").read_text() == "mine"
    replaced = Writer(tmp_path, ["png"], overwrite=True).write(noise(), "a")
    assert [path.name for path in replaced] == ["a.png", "a.gif"]
    assert (tmp_path / "a.gif").read_bytes()[:3] == b"GIF"
    assert len(list(tmp_path.iterdir())) == 8


def test_all_images_of_an_animation_move_at_once():
    rows = [torch.arange(4.0).view(4, 1, 1, 1), torch.arange(4.0, 8).view(4, 1, 1, 1)]
    frames = list(animation(rows, ["a", "b"]))
    assert [frame.images.flatten().tolist() for frame in frames] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert {tuple(frame.captions) for frame in frames} == {("a", "b")}
