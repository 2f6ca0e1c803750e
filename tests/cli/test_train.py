from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.commandline import BRIEF, TINY, Answer, Vae, rows
from vae_train import load
from vae_train.runs.config import VERSION
from vae_train.util.errors import RunError
from vae_train.util.runtime import emulated


def test_a_run_leaves_everything_that_it_promises(vae: Vae) -> None:
    answer = vae("train", "epochs=3", "trainer.sample_every=2", "trainer.log_every=5")
    assert answer.code == 0
    (run,) = Path("outputs").glob("*/*-digits-mlp")
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    promised = {
        "config.yaml",
        "metrics.jsonl",
        "metrics.csv",
        "curves.png",
        "train.log",
        "environment.json",
        "summary.json",
    }
    promised |= {
        "reconstructions/epoch-0002.png",
        "reconstructions/final.png",
        "samples/epoch-0002.png",
        "samples/final.png",
    }
    promised |= {"checkpoints/last.pt", "checkpoints/best.pt"}
    assert promised <= names
    assert any(name.startswith("tb/") for name in names)
    assert str(run) in answer.out.splitlines()[-1]
    for part in ("digits-mlp", "8x8x1", "1,257 train / 180 valid / 360 test", "parameters", "cpu"):
        assert part in answer.out.splitlines()[0]


def test_rows_have_the_promised_metrics(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    train = [row for row in lines if row["split"] == "train"]
    valid = [row for row in lines if row["split"] == "valid"]
    assert len(valid) == 2
    shared = {"step", "epoch", "split", "scope", "loss", "elbo", "distortion", "rate", "bits_per_dim", "beta"}
    for row in train:
        assert shared | {"lr", "grad_norm", "images_per_second"} <= set(row)
    for row in valid:
        assert shared <= set(row)
        assert row["elbo"] == pytest.approx(-row["distortion"] - row["rate"], rel=1e-6)
        assert row["bits_per_dim"] == pytest.approx(-row["elbo"] / 64 / np.log(2), rel=1e-6)
    with (trained / "metrics.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(lines)


def test_saved_configuration_is_complete_and_resolved(trained: Path) -> None:
    cfg = OmegaConf.load(trained / "config.yaml")
    assert "${" not in (trained / "config.yaml").read_text()
    assert cfg.device == "cpu" or cfg.device.startswith(("cuda", "mps"))
    assert list(cfg.model.latent_shape) == [2]


def test_environment_is_a_receipt(trained: Path) -> None:
    environment = json.loads((trained / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.split("+")[0] or environment["packages"]["torch"]
    assert environment["data_checksum"].startswith("sha256:")
    assert environment["threads"] >= 1


def test_two_latents_have_a_manifold(trained: Path) -> None:
    with Image.open(trained / "samples" / "manifold.png") as image:
        assert image.size[0] > 1000


def test_the_same_command_gives_the_same_run(vae: Vae) -> None:
    for name in ("a", "b"):
        assert vae.train(f"out={name}").code == 0
    assert rows(Path("a")) == rows(Path("b"))
    a, b = (load(name).model.state_dict() for name in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_the_seed_changes_the_run(vae: Vae) -> None:
    for seed in (0, 1):
        vae.train(f"out=seed{seed}", f"seed={seed}")
    assert rows(Path("seed0")) != rows(Path("seed1"))


def test_resuming_with_more_epochs_equals_training_that_long(vae: Vae) -> None:
    vae("train", *TINY[1:], "epochs=4", "out=long", "trainer.log_every=3")
    vae.train("out=short", "trainer.log_every=3")
    assert vae("train", "resume=short", "epochs=4").code == 0
    assert rows(Path("short")) == rows(Path("long"))
    long, short = (load(name, "last").model.state_dict() for name in ("long", "short"))
    assert all(torch.equal(long[key], short[key]) for key in long)


def test_resume_lists_what_it_cannot_change(vae: Vae, trained: Path) -> None:
    lines = vae("train", f"resume={trained}", "beta=3", "model=conv", "epochs=4").errors()
    assert len(lines) == 2
    assert all("cannot change on resume" in line for line in lines)


def test_resume_of_a_finished_run_says_what_to_do(vae: Vae, trained: Path) -> None:
    (line,) = vae("train", f"resume={trained}").errors()
    assert "add epochs=4" in line


def test_epochs_may_only_be_raised(vae: Vae, trained: Path) -> None:
    (line,) = vae("train", f"resume={trained}", "epochs=1").errors()
    assert "can only be raised" in line


def test_a_run_killed_after_its_last_checkpoint_can_be_resumed(vae: Vae, trained: Path) -> None:
    (trained / "summary.json").unlink()
    before = rows(trained)
    answer = vae("train", f"resume={trained}")
    assert answer.code == 0, answer.err
    assert rows(trained) == before
    assert json.loads((trained / "summary.json").read_text())["status"] == "done"


@pytest.mark.parametrize(("line", "writer"), [("", "an older"), ("version: 99", "a newer")])
def test_a_run_of_another_version_is_one_line(vae: Vae, trained: Path, line: str, writer: str) -> None:
    text = (trained / "config.yaml").read_text()
    assert text.startswith(f"version: {VERSION}\n")
    (trained / "config.yaml").write_text(text.replace(f"version: {VERSION}", line, 1))
    for command, setting in (("eval", "run"), ("train", "resume")):
        (error,) = vae(command, f"{setting}={trained}").errors()
        assert f"was written by {writer} version of vae_train" in error


def test_init_from_copies_weights_only(vae: Vae, trained: Path) -> None:
    assert vae.train("out=warm", f"init_from={trained}", "lr=1e-12").code == 0
    warm, cold = load("warm").model.state_dict(), load(trained).model.state_dict()
    assert all(torch.allclose(warm[key], cold[key], atol=1e-6) for key in cold)
    assert rows(Path("warm"))[-1]["step"] == rows(trained)[-1]["step"]


def test_init_from_a_model_that_computes_otherwise_says_so(vae: Vae, trained: Path) -> None:
    answer = vae.train("out=warm", f"init_from={trained}", "model.encoder.activation=tanh")
    assert "another model: model.encoder.activation is relu there and tanh here" in answer.out
    assert "another model" not in vae.train("out=same", f"init_from={trained}").out


def test_init_from_another_architecture_is_refused(vae: Vae, trained: Path) -> None:
    (line,) = vae("train", *TINY[1:3], "latent_dim=3", f"init_from={trained}").errors()
    assert "has another architecture: " in line
    assert "model.latent_shape is [2] there and [3] here" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("optimizer=adamw", "lr_schedule=cosine", "lr_schedule.warmup=1"),
        ("optimizer=adamax", "lr_schedule=step"),
        ("optimizer=sgd", "lr=1e-4", "lr_schedule=plateau"),
        ("optimizer=rmsprop", "learner.clip_norm=1"),
        ("learner.ema=0.9", "learner.grad_accumulation=3"),
        ("objective/beta_schedule=linear", "beta=4"),
        ("objective/beta_schedule=cyclical", "objective.num_samples=3"),
        ("objective/beta_schedule=sigmoid",),
        ("trainer.patience=1", "trainer.monitor=loss"),
        ("precision=bfloat16",),
        ("model/likelihood=gaussian",),
        ("model/likelihood=mse",),
        ("model/likelihood=bernoulli", "model.likelihood.grey_targets=true"),
        ("data.binarize=threshold", "model/likelihood=bernoulli"),
    ],
    ids=" ".join,
)
def test_every_knob_trains(vae: Vae, arguments: tuple[str, ...]) -> None:
    answer = vae.train("out=run", *arguments)
    assert answer.code == 0, answer.err
    assert vae("eval", "run=run", *BRIEF).code == 0


def test_conv_trains_and_shares_its_knobs(vae: Vae) -> None:
    answer = vae("train", "model=conv", "model.encoder.channels=[4,8]", "model.encoder.dense=0", "epochs=1", "out=run")
    assert answer.code == 0, answer.err
    assert list(OmegaConf.load("run/config.yaml").model.decoder.channels) == [4, 8]


def test_grey_targets_are_named_beside_every_metric(vae: Vae) -> None:
    arguments = ("model/likelihood=bernoulli", "model.likelihood.grey_targets=true")
    assert "grey targets: not a likelihood" in vae.train("out=run", *arguments).out
    assert "grey targets: not a likelihood" in vae("eval", "run=run", *BRIEF).out
    metrics = json.loads(Path("run/eval/test.json").read_text())
    assert metrics["bits_per_dim"] is None
    assert metrics["warnings"] == ["grey targets: not a likelihood"]


def test_plan_prints_and_writes_nothing(vae: Vae) -> None:
    answer = vae("train", "plan=true", "data=mnist", "data.root=nowhere", "model=conv", "batch_size=8")
    assert answer.code == 0, answer.err
    for text in ("ConvTranspose2d", "32x14x14", "parameters", "memory", "optimiser", "time"):
        assert text in answer.out
    assert not Path("outputs").exists()


def activations(answer: Answer) -> float:
    """The memory of activations in a plan, in bytes."""
    assert answer.code == 0, answer.err
    value, unit = re.search(r"activations ([\d.,]+) (\w+)", answer.out).groups()
    return float(value.replace(",", "")) * 1024 ** ["B", "KiB", "MiB", "GiB"].index(unit)


@pytest.fixture
def _brief_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times few steps, for plans of which only the memory matters."""
    for name in ("WARM", "TIMED"):
        monkeypatch.setattr(f"vae_train.runs.plan.{name}", 1)


@pytest.mark.usefixtures("_brief_timing")
def test_a_plan_measures_what_the_backward_pass_needs(vae: Vae) -> None:
    net = ("model=resnet", "model.encoder.channels=[8,8]", "model.encoder.blocks=2", "model.encoder.norm=group")
    plan = ("train", "plan=true", *net, "batch_size=256")
    whole = activations(vae(*plan))
    assert activations(vae(*plan, "model.encoder.checkpointing=true")) < 0.6 * whole
    assert activations(vae(*plan, "learner.grad_accumulation=4")) == pytest.approx(whole / 4, rel=0.1)


@pytest.mark.usefixtures("_brief_timing")
def test_a_plan_lists_the_networks_of_a_flow_over_maps(vae: Vae) -> None:
    spatial = ("model=conv_spatial", "latent_shape=[2,4,4]", "model.encoder.channels=4")
    answer = vae("train", "plan=true", *spatial, "model/prior=realnvp", "model.prior.hidden=[8]", "batch_size=64")
    assert answer.code == 0, answer.err
    assert re.search(r"prior\.flow\.networks\.0\.0 +Conv2d +224\n", answer.out)  # 3 x 8 kernels of 3 x 3, and 8 biases
    assert activations(answer) > activations(vae("train", "plan=true", *spatial, "batch_size=64"))


def test_cfg_job_works_without_data(vae: Vae) -> None:
    answer = vae("train", "--cfg", "job", "data=cifar10", "data.root=nowhere")
    assert answer.code == 0
    assert "DequantizedNormal" not in answer.out
    assert "likelihood.gaussian.Gaussian" in answer.out


def test_damaged_checkpoint_falls_back_or_is_one_line(vae: Vae, trained: Path) -> None:
    best, last = trained / "checkpoints" / "best.pt", trained / "checkpoints" / "last.pt"
    best.write_bytes(best.read_bytes()[:-1000])
    assert vae("eval", f"run={trained}", *BRIEF).code == 0
    last.write_bytes(b"nonsense")
    answer = vae("eval", f"run={trained}", *BRIEF)
    assert answer.code == 1
    assert "damaged" in answer.err
    assert len(answer.err.splitlines()) == 1
    with pytest.raises(RunError):
        load(str(trained))


def test_nan_stops_with_a_line_and_exit_code_1(vae: Vae) -> None:
    answer = vae.train("optimizer=sgd", "lr=1e8", "out=run")
    assert answer.code == 1
    (line,) = answer.err.strip().splitlines()
    assert "became NaN or infinite at step" in line
    assert "Try a lower lr=" in line
    assert json.loads(Path("run/summary.json").read_text())["status"] == "failed"
    assert "Traceback" in Path("run/train.log").read_text()


def test_full_disk_is_one_line(vae: Vae, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("vae_train.training.checkpoint.os.fsync", full)
    answer = vae.train("out=run")
    assert answer.code == 1
    (line,) = answer.err.strip().splitlines()
    assert "No space left on device" in line


def test_foreign_class_in_a_saved_configuration_is_refused(vae: Vae, trained: Path) -> None:
    text = (trained / "config.yaml").read_text()
    (trained / "config.yaml").write_text(text.replace("vae_train.model.vae.VAE", "os.path.join"))
    for command in ("eval", "sample", "reproduce"):
        (line,) = vae(command, f"run={trained}").errors()
        assert "os.path.join is not a component of vae_train" in line


def test_broken_saved_configuration_is_one_line(vae: Vae, trained: Path) -> None:
    (trained / "config.yaml").write_text("a: [1,\n")
    (line,) = vae("eval", f"run={trained}").errors()
    assert "cannot read" in line


def test_a_precision_that_is_slow_here_is_said_at_the_start(vae: Vae) -> None:
    answer = vae("train", *TINY[1:], "epochs=1", "precision=bfloat16", "out=run")
    assert answer.code == 0, answer.err
    message = emulated("bfloat16", torch.device("cpu"))
    assert message is None or message in answer.out.splitlines()
