"""A run knows what it needs of its data: its model is opened and sampled after the data was deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import vae_train
from tests.commandline import Vae
from tests.data.pictures import fill
from tests.data.sounds import fill as fill_with_tones
from tests.support import build, choices, compose, locate
from vae_train.batch import DataFacts
from vae_train.data.sources.base import Contents
from vae_train.data.storage.stored import StoredImages, TensorStore
from vae_train.runs.facts import facts_to_dict, read_facts
from vae_train.util.errors import UsageError

TINY = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "latent_dim=2", "logger=none", "epochs=1")
TINY += ("batch_size=8",)

ARGUMENTS = {
    "folder": ["data.root=data/photos", "data.size=8"],
    "audio": ["data.root=data/sounds"],
    "arrays": ["data.path=data/x.npz"],
}
"""Where the data of a source is that has no default."""


def in_memory(facts: DataFacts) -> Contents:
    """Random images and labels that fit the facts."""

    def images(count: int) -> StoredImages:
        pixels = torch.randint(facts.levels, (count, *facts.data_shape), dtype=torch.uint8)
        labels = [torch.randint(size, (count,)) for size in facts.factor_sizes]
        return StoredImages(TensorStore(pixels), facts.levels, torch.stack(labels, 1) if labels else None)

    return Contents({"train": images(facts.num_train), "valid": images(8)})


@pytest.mark.parametrize("name", choices("data"))
def test_a_run_is_sampled_after_its_data_was_deleted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data").mkdir()
    arguments = ARGUMENTS.get(name, [])
    source = locate(compose(f"data={name}").data._target_)
    if name == "folder":
        fill(Path("data/photos"), 40)
    elif name == "audio":
        pytest.importorskip("soundfile")
        fill_with_tones(Path("data/sounds"), 40)
    elif name == "arrays":
        np.savez("data/x.npz", x=10 * np.random.rand(50, 4), y=np.repeat(["a", "b"], 25))
    else:
        facts = build(compose(f"data={name}").data).inspect()._replace(num_train=16)
        monkeypatch.setattr(source, "inspect", lambda _: facts)
        monkeypatch.setattr(source, "read", lambda _: in_memory(facts))
    known = build(compose(f"data={name}", *arguments).data).inspect()
    condition = ["model.condition=label"] if known.classes else ["model.condition=factors"] if known.factors else []
    run = vae_train.train(*TINY, f"data={name}", *arguments, *condition, out="run")
    before = vae_train.load("run").sample(4)
    shutil.rmtree("data")

    def deleted(_: object) -> None:
        raise UsageError("the data was deleted")

    for method in ("inspect", "read"):
        monkeypatch.setattr(source, method, deleted)
    assert torch.equal(vae_train.load("run").sample(4), before)
    facts = run.facts()
    assert facts is not None
    assert facts.factors == known.factors
    assert (facts.data_shape, facts.levels, facts.sample_rate) == (known.data_shape, known.levels, known.sample_rate)


def test_the_command_line_samples_a_label_of_deleted_data(vae: Vae) -> None:
    np.savez("x.npz", x=10 * np.random.rand(50, 4) - 90, y=np.repeat(["a", "b"], 25))
    answer = vae("train", *TINY, "data=arrays", "data.path=x.npz", "model.condition=label", "out=run")
    assert answer.code == 0, answer.err
    Path("x.npz").unlink()
    answer = vae("sample", "run=run", "label=1", "num=3", "npz=true")
    assert answer.code == 0, answer.err
    array = np.load("run/samples/prior-seed0-num3-label1.npz")["images"]
    assert array.shape == (3, 4)
    assert -95 < array.min() <= array.max() < -75
    (line,) = vae("sample", "run=run", "label=2").errors()
    assert "label=2  no such class; use 0 to 1, or a, b" in line


def test_other_data_is_judged_in_the_units_of_the_run(vae: Vae) -> None:
    x = np.random.RandomState(0).randn(200, 3)
    np.save("x.npy", x)
    np.save("far.npy", 10 + x)
    assert vae("train", *TINY, "data=arrays", "data.path=x.npy", "out=run").code == 0
    answer = vae("eval", "run=run", "k=0", "latents=false", "ood=far.npy")
    assert answer.code == 0, answer.err
    assert json.loads(Path("run/eval/test.json").read_text())["auroc"]["value"] > 0.99


def test_facts_are_exact_and_damage_is_seen(tmp_path: Path) -> None:
    np.save("x.npy", np.random.randn(50, 4) / 3)
    facts = build(compose("data=arrays", "data.path=x.npy", "data.scaling=standard").data).inspect()
    path = tmp_path / "facts.json"
    text = json.dumps(facts_to_dict(facts))
    path.write_text(text)
    assert read_facts(path) == facts
    for damaged in (text.replace("1", "2"), text[:-5], "[]", "{}", text.replace("shift", "shirt")):
        path.write_text(damaged)
        with pytest.raises(ValueError):  # noqa: PT011
            read_facts(path)


def test_lost_facts_are_measured_again(caplog: pytest.LogCaptureFixture) -> None:
    np.save("x.npy", np.random.randn(50, 4) / 3)
    run = vae_train.train(*TINY, "data=arrays", "data.path=x.npy", out="run")
    before = vae_train.load("run").sample(4)
    run.facts_file.write_text(run.facts_file.read_text()[:-9])
    assert torch.equal(vae_train.load("run").sample(4), before)
    assert "facts.json is damaged; using the data instead" in caplog.text
