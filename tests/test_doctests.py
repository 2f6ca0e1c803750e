"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import vae_train.distributions
import vae_train.model
import vae_train.objective
import vae_train.runs

ROOMS = (vae_train.distributions, vae_train.model, vae_train.objective, vae_train.runs)
MODULES = ["vae_train"] + [
    info.name for room in ROOMS for info in pkgutil.walk_packages(room.__path__, f"{room.__name__}.") if not info.ispkg
]


def examples(name: str) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("name", [name for name in MODULES if examples(name)])
def test_examples_print_what_they_say(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # trainings leave their runs in the current folder
    failures, count = doctest.testmod(importlib.import_module(name))
    assert count > 0
    assert failures == 0


def test_distributions_and_objectives_have_examples():
    rooms = {name.split(".")[1] for name in MODULES[1:] if examples(name)}
    assert {"distributions", "objective"} <= rooms
