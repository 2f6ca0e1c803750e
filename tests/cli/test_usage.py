"""What a person types wrong: one line for each error, exit code 2, and nothing left behind."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.commandline import BRIEF, Vae

WRONG = {
    "data=mnits": ["no such data; did you mean mnist?"],
    "latent_dims=8": ["did you mean latent_dim?"],
    "+foo=1": ["no such setting"],
    "model.encoder.hiden=[3]": ["did you mean model.encoder.hidden?"],
    "+model.encoder.hiden=[3]": ["did you mean hidden?"],
    "hidden=[3]": ["did you mean model.encoder.hidden?"],
    "modle=conv": ["did you mean model?"],
    "modle/prior=standard_normal": ["no such group; did you mean model/prior?"],
    "epochs=abc": ["expected a whole number"],
    "epochs=0": ["must be at least 1"],
    "epochs=1e3": ["expected a whole number"],
    "lr=-1": ["must be above 0"],
    "beta=-0.5": ["must be at least 0"],
    "latent_dim=2.5": ["expected a whole number"],
    "latent_dim=65": ["exceeds the 64 values per image"],
    "model=conv_spatial latent_shape=[2,3,3]": ["its scales are 8x8, 4x4, 2x2, 1x1", "use latent_shape=[4,4,4]"],
    "model=conv_spatial": ["needs latents with shape", "use latent_shape=[4,4,4]"],
    "batch_size=2000": ["exceeds the 1,257 training images"],
    "seed=-1": ["must be in [0"],
    "execution=captured": ["must be one of auto, eager, compile, graph"],
    "precision=tf32 device=cpu": ["precision=tf32", "needs CUDA", "float32 or bfloat16"],
    "precision=float16": ["must be one of float32, tf32, bfloat16"],
    "device=gpu": ["unknown device"],
    "optimizer.betas=[0.9]": ["expected 2 values"],
    "model.encoder.hidden=[0]": ["must be at least 1"],
    "model.encoder.activation=rellu": ["must be one of relu"],
    "learner.ema=1": ["must be in (0, 1)"],
    "model=3": ["no such model"],
    "model.encoder=3": ["is a section with the settings hidden, activation"],
    "model/likelihood=bernoulli": ["needs binary pixels", "17 levels"],
    "optimizer.eps=-1": ["optimizer", "Invalid epsilon"],
    "lr_schedule=cosine lr_schedule.warmup=99 epochs=30": ["leaves no epoch"],
    "model=conv model.encoder.depth=9": ["cannot have 9 scales", "3 times"],
    "beta=1 beta=2": ["beta is given twice"],
    "epochs=3 +epochs=4": ["epochs is given twice"],
    "model._target_=os.system": ["os.system is not a component"],
    "model._target_=torch.nn.functional.relu": ["is not a component"],
    "model._target_=torch.optim.adam.torch.load": ["there is no class"],
    "model.encoder._target_=vae_train.model.architecture.mlp.MPL": ["there is no class"],
    "init_from=nothing": ["no run at nothing"],
    "resume=nothing": ["no run at nothing"],
    "threads=0": ["must be in [1, 1024]"],
    "seed=99999999999999999999": ["must be in [0"],
    "name=a/b": ["not a valid folder name"],
    "name=a\\b": ["not a valid folder name"],
    "name=.": ["not a valid folder name"],
    "name=..": ["not a valid folder name"],
    f"name={'x' * 250}": ["is too long: the name of a run has at most 241 bytes"],
    "model=null": ["cannot be null; choose from conv, conv_spatial, convhvae, hvae, ladder, lvae, mlp"],
    "~model": ["deleting settings is not supported"],
    "init_from=[1]": ["no run at [1]"],
    "-cn eval": ["--config-dir adds a folder"],
    "--nonsense": ["unknown flag --nonsense"],
    "epochs": ["settings look like beta=4"],
    "objective=geco objective/beta_schedule=linear": [
        "has no effect with objective=geco; it is a group of objective=balanced, capacity, ",
    ],
    "objective/beta_schedule=linear objective.beta_schedule.epochs=3": [
        "no such setting; objective.beta_schedule has the settings warmup, start",
    ],
    "data.missing=mask": ["data=digits has none; it is a setting of data=arrays"],
    "=4": ["settings look like beta=4"],
    "prior=gmm": ["choose with model/prior= (categorical, "],
    "beta=[1,": ["cannot be parsed"],
    "sweep=first": ["only applies to multirun; add -m"],
    "-m beta=1,-1": ["must be at least 0"],
    "-m beta=1,2 out=there": ["does not work with -m; name the folder with sweep="],
    "-m beta=1,2 plan=true": ["does not work with -m"],
    "-m beta=1,2 sweep=a/b": ["not a valid folder name"],
    "-m beta=1,2 sweep=..": ["not a valid folder name"],
    "-m beta=1,2 sweep=": ["is empty"],
    "--config-dir nowhere": ["no such folder"],
    "beta=1,2": ["is a sweep over several values: add -m"],
    "-m beta=interval(1,2)": ["an interval, from which a search chooses: add search=tpe"],
    "hydra.job.name=x": ["has no effect"],
    "hydra/launcher=basic": ["has no effect"],
    "latent_dim=3 latent_shape=[3]": ["mutually exclusive"],
    "augmentation.crop=100": ["crop=100 can move images of 8x8 pixels out of view; use augmentation.crop=1"],
    "augmentation.edge=repeat": ["has no effect without augmentation.crop or augmentation.rotation or"],
    "augmentation=color data.binarize=threshold model/likelihood=bernoulli": [
        "have no effect on binary images; use augmentation=none"
    ],
    "corruption.patch=2": ["has no effect without corruption.mask"],
    "corruption=denoise corruption.score=all": ["has no effect without corruption.mask"],
    "corruption=inpaint corruption.patch=8": ["completely or not at all; use corruption.patch=2"],
    "data=[digits,mnist]": ["takes one choice; for a run with each add -m: data=digits,mnist"],
    "-m beta=glob(*)": ["glob is not supported"],
    "beta=${nope}": ["cannot be resolved", "nope"],
    f"out={'x' * 4000}": ["is too long", "255 bytes"],
    f"name={'x' * 300}": ["is too long", "255 bytes"],
    "beta=1e300": ["must be finite in float32"],
    "lr=inf": ["must be finite"],
    "lr=1e400": ["lr=1e400 ", "must be finite in float32"],
    "beta=-1e400": ["beta=-1e400 ", "must be finite in float32"],
    "-m lr=1e-3,1e400": ["lr=1e-3,1e400 ", "must be finite in float32"],
    "optimizer.betas=[1e400,.9]": ["optimizer.betas=[1e400,.9] ", "must be finite in float32"],
    "lr=1e300": ["lr=1e300 "],
    "beta=-0.50": ["beta=-0.50 "],
    "lr=nan": ["must be finite"],
    "resume=": ["is empty"],
    "out=": ["is empty"],
    "init_from=": ["is empty"],
    "data=arrays data.path=": ["data.path=", "is empty"],
    "data=folder data.root=": ["data.root=", "is empty"],
    "name=": ["is empty"],
    "threads=100000000": ["must be in [1, 1024]"],
    "data.root=x": ["data=digits has none; it is a setting of data=audio, celeba,", "folder, "],
    "experiment=pytorch_example data=digits model/likelihood=bernoulli": [
        "data.protocol",
        "is set by experiment=pytorch_example",
    ],
    "--beta 4": ["unknown flag --beta; settings have no dashes: beta=4"],
    "--beta=4": ["settings have no dashes: beta=4"],
    "--batch-size 4": ["unknown flag --batch-size; settings have no dashes: batch_size=4"],
    "--learning-rate=3": ["settings have no dashes: lr=3"],
    "--betas 4": ["settings have no dashes: beta=4"],
    "--model conv": ["settings have no dashes: model=conv"],
    "--nonsense 4": ["unknown flag --nonsense; --help lists all settings and flags"],
    "-b 4": ["unknown flag -b; --help lists all settings and flags"],
    "-r a": ["settings have no dashes: resume=a"],
    "latent_shape=[8,9]": ["latent_shape=[8,9]", "exceeds the 64 values per image"],
}


@pytest.mark.parametrize("typed", WRONG)
def test_each_error_is_one_line_and_nothing_is_written(vae: Vae, typed: str) -> None:
    lines = vae("train", *typed.split()).errors()
    assert len(lines) == 1, lines
    for text in WRONG[typed]:
        assert text in lines[0]
    assert os.listdir() == []


SUGGESTED = {
    "beta==4": "beta=4",
    "model.encoder.hidden=[1,2": "model.encoder.hidden=[1,2]",
    "model.encoder.hidden=[1,2,": "model.encoder.hidden=[1,2]",
    "model.encoder.hidden=(1,2)": "model.encoder.hidden=[1,2]",
    "lr=1e-3,": "lr=1e-3",
    "lr=1e-3)": "lr=1e-3",
    "lr=1e-3;": "lr=1e-3",
    "beta=4=": "beta=4",
    "beta=(2)": "beta=2",
    'beta="4': "beta=4",
    "model=(conv)": "model=conv",
    "data=[digits": "data=digits",
    "optimizer.betas=(.9,.99)": "optimizer.betas=[.9,.99]",
    "latent_shape={4,4}": "latent_shape=[4,4]",
    "model.prior=vampprior": "model/prior=vamp",
    "model=convolutional": "model=conv",
    "model.prior=vamp": "model/prior=vamp",
    "prior=vamp": "model/prior=vamp",
    "model.likelihood=bernoulli": "model/likelihood=bernoulli",
    "beta_schedule=linear": "objective/beta_schedule=linear",
    "model/decoder=mlp": "model=mlp",
    "objective=betavae": "objective=elbo beta=4",
    "objective=FactorVAE": "objective=factor_vae",
    "objective=betatcvae": "objective=tcvae",
    "model=cnn": "model=conv",
    "model=Conv": "model=conv",
}


@pytest.mark.parametrize("typed", SUGGESTED)
def test_a_suggestion_works_when_it_is_pasted(vae: Vae, typed: str) -> None:
    (line,) = vae("train", typed).errors()
    (suggestion,) = re.findall(r"did you mean (.*?)\?", line)
    assert shlex.split(suggestion) == SUGGESTED[typed].split()
    assert vae("train", *shlex.split(suggestion), "--cfg", "job").code == 0


@pytest.mark.parametrize(
    ("typed", "instead"),
    [
        ("lr=0,001", "lr=0.001"),
        ("model.encoder.hidden=16,16", "model.encoder.hidden=[16,16]"),
        ("optimizer.betas=.9,.99", "optimizer.betas=[.9,.99]"),
    ],
)
def test_a_comma_that_is_no_sweep_gets_a_value_that_works(vae: Vae, typed: str, instead: str) -> None:
    (line,) = vae("train", typed).errors()
    (suggestion,) = re.findall(r"or write (.*)$", line)
    assert shlex.split(suggestion) == [instead]
    assert vae("train", instead, "--cfg", "job").code == 0


@pytest.mark.parametrize("typed", ["data=(digits,mnist)", "latent_dim=[8,16", "beta=(1,2)"])
def test_a_list_where_one_value_belongs_is_answered_with_a_sweep(vae: Vae, typed: str) -> None:
    (line,) = vae("train", typed).errors()
    assert line.endswith("for a run with each add -m: " + re.sub(r"[()\[]", "", typed))


@pytest.mark.parametrize("typed", ["latent_dim={a", "lr=${beta", "lr=[{"])
def test_no_suggestion_is_made_that_would_not_work(vae: Vae, typed: str) -> None:
    (line,) = vae("train", typed).errors()
    assert line.endswith("cannot be parsed; settings look like beta=4")


@pytest.mark.parametrize("name", ["out", "resume", "init_from", "name"])
@pytest.mark.parametrize("empty", ["''", '""'])
def test_empty_quotes_are_an_empty_setting(vae: Vae, name: str, empty: str) -> None:
    (line,) = vae("train", f"{name}={empty}").errors()
    assert "is empty" in line


@pytest.mark.parametrize("flag", [("--run", "a"), ("--run=a",), ("-r", "a")])
def test_a_setting_with_the_name_of_a_flag_of_hydra(vae: Vae, flag: tuple[str, ...]) -> None:
    (line,) = vae("eval", *flag).errors()
    assert line.endswith("settings have no dashes: run=a")


@pytest.mark.parametrize(
    ("typed", "instead"),
    [("eval --images", "images=true"), ("sample -n 4", "num=4"), ("fit-prior --prior gmm", "prior=gmm")],
)
def test_a_flag_of_another_command_is_answered_with_its_setting(vae: Vae, typed: str, instead: str) -> None:
    (line,) = vae(*typed.split()).errors()
    assert line.endswith(f"settings have no dashes: {instead}")


def test_a_file_or_folder_as_data_is_answered_with_its_settings(vae: Vae) -> None:
    Path("my photos").mkdir()
    Path("x.npy").touch()
    for value, setting in (
        ("my photos", "data=folder data.root='my photos'"),
        ("x.npy", "data=arrays data.path=x.npy"),
    ):
        assert f"did you mean {setting}?" in vae("train", f"data={value}").errors()[0]


@pytest.mark.parametrize("file", ["config.yaml", "checkpoints/best.pt"])
def test_a_file_of_a_run_is_answered_with_the_run(vae: Vae, file: str) -> None:
    assert vae.train("out=r").code == 0
    for command, setting in (("eval", "run"), ("train", "resume"), ("train", "init_from")):
        (line,) = vae(command, f"{setting}=r/{file}").errors()
        assert "is a file of a run; did you mean r?" in line


def test_samples_that_memory_cannot_hold_are_refused(vae: Vae) -> None:
    assert vae.train("out=r").code == 0
    before = sorted(Path().rglob("*"))
    (line, other) = vae("sample", "run=r", f"num={10**12}", "device=gpu").errors()
    assert "unknown device" in line
    assert other.split(maxsplit=1)[1].startswith("needs 238,419 GiB of memory, but only ")
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("flags", [("--cfg",), ("--cfg", "jobs"), ("--config-dir",)])
def test_flags_of_hydra_are_answered_in_one_line(vae: Vae, flags: tuple[str, ...]) -> None:
    (line,) = vae("train", *flags).errors()
    assert flags[0] in line


def test_names_of_settings_in_other_libraries(vae: Vae) -> None:
    typed = {"learning_rate": "lr", "z_dim": "latent_dim", "gpu": "device"}
    lines = vae("train", *(f"{name}=1" for name in typed)).errors()
    assert [re.findall(r"did you mean (.*?)\?", line) for line in lines] == [[name] for name in typed.values()]


def test_quoted_commas_do_not_separate_the_paths_of_a_sweep(vae: Vae) -> None:
    lines = vae("train", "-m", "data=arrays", "data.path='a,b (1).npy',c.npy").errors()
    assert [line.split("  ")[1] for line in lines] == ["data.path=a,b (1).npy", "data.path=c.npy"]


@pytest.mark.parametrize(
    "name", ["übung", "漢字", "a=b", "it's", "x (1)", "a,b", "[x]", "#1", "a\\", "{x}", "~x", "'", "a:b"]
)
def test_paths_are_taken_as_typed(vae: Vae, name: str) -> None:
    assert vae.train(f"out={name}").code == 0
    assert os.listdir() == [name]
    assert vae("sample", f"run={name}", "num=1").code == 0
    assert vae.train(f"init_from={name}", "out=next").code == 0


def test_choices_of_a_further_folder_are_suggested(vae: Vae) -> None:
    Path("yaml/objective").mkdir(parents=True)
    Path("yaml/objective/my_bound.yaml").write_text("defaults: [elbo, _self_]\n")
    (line,) = vae("train", "--config-dir", "yaml", "objective=mybound").errors()
    assert "did you mean objective=my_bound?" in line


@pytest.mark.slow
def test_several_runs_are_a_list_unless_a_folder_has_that_name(vae: Vae) -> None:
    for name in ("a", "b c", "[a,b]"):
        assert vae.train(f"out={name}").code == 0
    answer = vae("eval", "run=[a,b c]", *BRIEF)
    assert answer.code == 0
    assert {line.strip().split("  ")[0] for line in answer.out.splitlines()} >= {"2 runs", "a", "b c"}
    assert vae.train("out=x (1)=#").code == 0
    assert vae("eval", "run=[x (1)=#, a]", *BRIEF).code == 0
    assert vae("eval", "run=[a,b]", *BRIEF).code == 0
    assert Path("[a,b]/eval/test.json").exists()
    assert [line.split()[0] for line in vae("eval", "run=[a,x,y]", *BRIEF).errors()] == ["run=x", "run=y"]


def test_a_path_starts_at_home(vae: Vae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (line,) = vae("train", "data=folder", "data.root=~/photos").errors()
    assert f"data.root={tmp_path}/photos" in line


def test_a_setting_without_effect_is_refused(vae: Vae, trained: Path) -> None:
    for command, *settings in (
        ["eval", "inception=x"],
        ["eval", "k=0", "minutes=3"],
        ["sample", "show=manifold", "num=3"],
    ):
        (line,) = vae(command, f"run={trained}", *settings).errors()
        assert "has no effect" in line


def test_all_errors_are_listed_at_once(vae: Vae) -> None:
    typed = ["data=mnits", "lr=-1", "model.encoder.hiden=3", "+foo=1", "epochs=x", "optimizer.betas=3"]
    lines = vae("train", *typed).errors()
    assert len(lines) == len(typed)
    for argument in typed:
        assert any(line.strip().startswith(argument.split("=")[0]) for line in lines)


def test_a_misspelt_word_does_not_hide_what_does_not_fit(vae: Vae) -> None:
    Path("notes.txt").touch()
    lines = vae("train", "latent_dims=8", "model/likelihood=bernoulli", "batch_size=9999", "out=.").errors()
    assert len(lines) == 4
    assert any("out=." in line and "already exists" in line for line in lines)


def test_all_jobs_of_a_sweep_are_checked_before_the_first(vae: Vae) -> None:
    lines = vae("train", "-m", "model=mlp,conv", "model.encoder.hidden=[8]", "beta=1,2", "lr=1,-1").errors()
    assert any("model.encoder.hidden" in line and "no such setting" in line for line in lines)
    assert any("lr=-1" in line for line in lines)
    assert os.listdir() == []


def test_data_that_is_not_there_names_both_ways(vae: Vae) -> None:
    for name, place in (
        ("mnist", "MNIST/raw"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
    ):
        (line,) = vae("train", f"data={name}", "data.root=nowhere").errors()
        assert f"nowhere/{place}" in line
        assert "could not be downloaded" in line
        assert "data.root=" in line
        assert os.listdir() == []


def test_likelihood_and_missing_data_are_reported_together(vae: Vae) -> None:
    lines = vae("train", "data=cifar10", "data.root=nowhere", "model/likelihood=bernoulli").errors()
    assert len(lines) == 2
    assert "256 levels" in lines[1]


def test_a_knob_that_nothing_reads_is_refused(vae: Vae, tmp_path: Path) -> None:
    (tmp_path / "mine" / "objective").mkdir(parents=True)
    text = "_target_: vae_train.objective.elbo.ELBO\nbeta: 1.0\nnum_samples: 1\n"
    text += "beta_schedule: {_target_: vae_train.objective.schedule.ConstantBeta}\n"
    text += "capacity: null\ncapacity_epochs: 1\nfree_bits: 0\nfree_bits_per: layer\n"
    (tmp_path / "mine" / "objective" / "plain.yaml").write_text(text)
    (line,) = vae("train", "--config-dir", "mine", "objective=plain", "beta=4").errors()
    assert "beta=4" in line
    assert "has no effect" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(vae: Vae, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    (line,) = vae("train", "out=closed/run").errors()
    assert "is not writable" in line


def test_a_file_in_the_way_is_refused(vae: Vae) -> None:
    Path("file").write_text("")
    (line,) = vae("train", "out=file/run").errors()
    assert "is not writable" in line


def test_no_cuda_device_is_one_line(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (line,) = vae("train", "device=cuda").errors()
    assert "no CUDA device is available" in line


@pytest.mark.parametrize("command", ["eval", "sample", "reproduce"])
@pytest.mark.parametrize(
    ("typed", "text"),
    [
        ("", "is required"),
        ("run=nothing", "no run at nothing"),
        ("run=last", "no run under outputs"),
        ("beta=3", "comes from the run"),
        ("data=mnist", "comes from the run"),
    ],
)
def test_other_commands_refuse_in_the_same_way(vae: Vae, command: str, typed: str, text: str) -> None:
    lines = vae(command, *typed.split()).errors()
    assert any(text in line for line in lines)
    assert os.listdir() == []


def test_unknown_command_has_a_hint(vae: Vae) -> None:
    answer = vae("trian")
    assert answer.code == 2
    assert "did you mean train?" in answer.err


def test_debug_shows_the_traceback(vae: Vae) -> None:
    assert "Traceback" in vae("train", "lr=-1", "--debug").err


@pytest.mark.parametrize(("arguments", "unbuffered"), [("--help", "1"), ("train --cfg job", "")])
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, arguments: str, unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "vae_train", *arguments.split()]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("choice", ["mse", "sigma_vae", "gaussian_pixel", "l1", "smooth_l1", "huber"])
def test_a_component_is_named_as_it_was_chosen(vae: Vae, choice: str) -> None:
    """Although other choices have the same class."""
    np.save("x.npy", np.random.default_rng(0).integers(2, size=(200, 8, 8)))
    (line,) = vae("train", "data=arrays", "data.path=x.npy", f"model/likelihood={choice}").errors()
    assert line.split()[0] == f"model/likelihood={choice}"
    assert line.endswith("use model/likelihood=bernoulli")


@pytest.mark.parametrize("choice", ["capacity", "free_bits", "tcvae", "iwae"])
def test_an_objective_is_named_as_it_was_chosen(vae: Vae, choice: str) -> None:
    """With a posterior without a density, which these need."""
    (line,) = vae("train", f"objective={choice}", "model/posterior=deterministic", "plan=true").errors()
    assert line.split()[0] == f"objective={choice}"


def test_a_transform_is_named_as_it_was_chosen(vae: Vae) -> None:
    np.save("x.npy", np.random.default_rng(0).normal(size=(200, 5)))
    for chosen, where in (("=crop_flip", "augmentation=crop_flip"), (".flip=true", "augmentation")):
        (line,) = vae("train", "data=arrays", "data.path=x.npy", "latent_dim=2", f"augmentation{chosen}").errors()
        assert line.split()[0] == where
        assert line.endswith("use augmentation=none")
