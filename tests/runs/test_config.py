from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import BUILDER, compose, plain
from vae_train.runs.config import VERSION, Config
from vae_train.util.errors import UsageError

NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_subnormal=False)
AMBIGUOUS = ["1e-3", "1e5", ".5", "yes", "null", "2026-11-20", "12:30:00", "0x10", "~", "- a", "a: b", ".inf"]
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=8) | st.sampled_from(AMBIGUOUS)
TREES = st.recursive(
    SCALARS, lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text("abc_"), children, max_size=3)
)


def tree() -> dict:
    return {"model": {"hidden": [8, 8], "prior": {"std": 1e-3}}, "data": {"root": None}, "lr": 1e-3}


@given(value=TREES)
def test_a_file_holds_the_same_tree(tmp_path_factory, value):
    config = Config(tree() | {"value": value})
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write(path)
    assert Config.read(path) == config
    assert Config.read(path).to_dict() == config.to_dict()


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(f"version: {VERSION}\nmodel: {{a: 1e-3, b: 1E5, c: .5, d: -2., e: '1e-3'}}\ndata: {{}}\n")
    assert Config.read(path)["model"].to_dict() == {"a": 1e-3, "b": 1e5, "c": 0.5, "d": -2.0, "e": "1e-3"}


def test_a_configuration_is_frozen():
    source = tree()
    config = Config(source)
    source["model"]["hidden"].append(3)
    config.to_dict()["model"]["hidden"].append(3)
    assert config["model"]["hidden"] == (8, 8)
    with pytest.raises(TypeError):
        config["lr"] = 3  # type: ignore[index]


def test_values_are_changed_in_a_copy():
    config = Config(tree())
    changed = config.with_values({"model.prior.std": 2.0, "model.new.deep": [1], "lr": 3})
    assert (changed.at("model.prior.std"), changed.at("model.new.deep"), changed["lr"]) == (2.0, (1,), 3)
    assert config == Config(tree())
    assert config.at("model.prior.std") == 1e-3


def test_paths_lead_to_values_or_defaults():
    config = Config(tree())
    assert config["model"]["prior"].path == "model.prior"
    assert config.at("model.nothing.std", 5) == 5
    assert config.at("lr.nothing") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1,", "cannot read"),
        ("a: 1", "is not the configuration of a run"),
        ("[1]", "is not the configuration of a run"),
        ("{model: {}, data: {}}", "was written by an older version"),
        ("{version: 2, model: {}, data: {}}", "was written by an older version"),
        ("{version: 99, model: {}, data: {}}", "was written by a newer version"),
        (f"{{version: {VERSION}, model: !!python/object:os.system {{}}, data: {{}}}}", "cannot read"),
    ],
)
def test_a_file_that_cannot_be_opened_is_a_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        Config.read(path)
    assert "\n" not in str(caught.value)


def test_settings_that_were_added_since_a_run_do_what_it_did_without(tmp_path: Path):
    config = plain(compose())
    older = Config({**config.to_dict(), "learner": {k: v for k, v in config["learner"].items() if k != "skip_norm"}})
    older.write(tmp_path / "config.yaml")
    read = Config.read(tmp_path / "config.yaml")
    assert read["learner"]["skip_norm"] is None
    assert BUILDER.errors(read) == []
