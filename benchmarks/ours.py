"""Ours: `Stream` and `Learner.advance` for steps, `Trainer.fit` for whole epochs, built as `vae train` builds them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from benchmarks.contender import Contender, Missing
from benchmarks.work import NUM_TEST, Setting, Source, Work, load
from benchmarks.writing import accounted
from vae_train.data.dataset import Dataset
from vae_train.data.storage.stored import ArrayImages
from vae_train.data.stream import Stream, evaluation_batches
from vae_train.runs.build import build_learner, build_model
from vae_train.runs.schema import build, conf_dir
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.loggers import Files, Silent, Tee, TensorBoard
from vae_train.training.trainer import Trainer
from vae_train.util.runtime import prepare

LEVELS = 256


class Pixels(Dataset):
    """A data set of ours from images that are in memory, so that every contender sees the same ones.

    Args:
        train: the training images.
        valid: the validation images.
    """

    def __init__(self, train: Source, valid: Source) -> None:
        super().__init__()
        self.sources = {"train": train, "valid": valid, "test": None}
        self.shape, self.levels = tuple(train.pixels.shape[1:]), LEVELS
        self.num_train, self.classes = len(train.pixels), 10

    def read(self) -> dict[str, ArrayImages | None]:
        """See `Dataset.read`."""
        return {k: s and ArrayImages(s.pixels, self.levels, s.labels) for k, s in self.sources.items()}


class Ours(Contender):
    """See the module.

    Args:
        setting: what is trained and on what.
        precision: the setting of that name.
        execution: the setting of that name; "auto" is what users get.
        layout: "contiguous" takes convolutions' weights out of the layout that `hardware.memory_format` chose.
    """

    def __init__(
        self, setting: Setting, precision: str = "float32", execution: str = "auto", layout: str | None = None
    ) -> None:
        super().__init__(setting)
        prepare(setting.threads, precision)  # type: ignore[arg-type]
        self.asked = execution
        self.cfg = composed(self.work, f"device={self.device}", f"precision={precision}", f"execution={execution}")
        source = load(self.work.shape, setting.images)
        num_test = NUM_TEST if source.about == "MNIST" else min(NUM_TEST, setting.images)
        self.data = Pixels(source, load(self.work.shape, num_test, train=False)).load(self.device)
        self.trainer: Trainer = build(self.cfg.trainer)
        train = self.data.split("train")
        assert train is not None
        model = build_model(self.cfg, self.data, self.device)
        model.initialize(train)
        self.learner = build_learner(self.cfg, model, self.trainer, self.data)
        if layout == "contiguous":
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.stream = Stream(train, self.work.batch_size, seed=self.cfg.seed, device=self.device)
        self.taken = 0
        self.parameters = sum(p.numel() for p in model.parameters())

    def steps(self, count: int) -> float:
        """See `Contender.steps`. The figures are fetched from the device as often as the trainer does."""
        total, left, waiting = 0.0, count, list[torch.Tensor]()
        while left:
            limit = min(left, self.trainer.log_every - self.taken % self.trainer.log_every)
            rows = self.learner.advance(self.stream, self.taken, limit)
            waiting.append(rows)
            self.taken, left = self.taken + len(rows), left - len(rows)
            if not left or self.taken % self.trainer.log_every == 0:
                total += torch.cat(waiting)[:, self.learner.names.index("loss")].sum().item()
                waiting = []
        if self.asked not in ("auto", self.learner.execution):
            raise Missing(f"execution={self.asked} is not possible here (is there a C++ compiler?)")
        return total / count - constant(self.work)

    def epoch(self, count: int = 1) -> None:
        """`Trainer.fit` with its log, TensorBoard, a checkpoint per epoch and pictures at the end.

        By default pictures come every tenth epoch: a single one has more of them than it should.
        """
        self.trainer.epochs = count
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            board = TensorBoard(folder, 0, self.cfg.logger.flush_secs) if has_tensorboard() else Silent(folder, 0)
            logger = Tee(Files(folder), board)
            self.trainer.fit(self.learner, self.data, Checkpoints(folder), logger)
            logger.close()

    def timed_whole(self, count: int) -> dict[str, float]:
        """`epoch`, for several; returns "seconds", and "waited" and "beside" of an `Account`."""
        self.wait()
        start = time.perf_counter()
        with accounted(self.wait) as account:
            self.epoch(count)
        self.wait()
        return {"seconds": time.perf_counter() - start, "waited": account.waited, "beside": account.beside}

    def timed_bare(self, count: int) -> dict[str, float]:
        """Epochs of steps and validation alone: what `epoch` needs besides is checkpoints, pictures and logging.

        Like `Trainer.fit` it opens a new stream of batches, for which steps are traced or captured anew.
        """
        train, valid = self.data.split("train"), self.data.split("valid")
        assert train is not None
        assert valid is not None
        self.wait()
        start = time.perf_counter()
        self.stream = Stream(train, self.work.batch_size, seed=self.cfg.seed, device=self.device)
        for _ in range(count):
            self.steps(-(-self.data.num_train // self.work.batch_size))
            for first, batch in evaluation_batches(valid, self.trainer.eval_batch_size, self.device):
                self.learner.evaluate(batch, first, self.taken)
        self.wait()
        return {"seconds": time.perf_counter() - start}

    def about(self) -> dict[str, Any]:
        """See `Contender.about`."""
        return {"parameters": self.parameters, "execution": self.learner.execution}


def composed(work: Work, *words: str) -> DictConfig:
    """The configuration of `vae train` for a work, with further settings."""
    chosen = [f"latent_dim={work.latent_dim}", f"batch_size={work.batch_size}", "seed=1"]
    if work.network == "mlp":
        hidden = f"hidden=[{work.width}]"
        chosen += ["model=mlp", f"model.encoder.{hidden}", f"model.decoder.{hidden}"]
    else:
        chosen += ["model=conv"]
    if work.binary:
        chosen += ["data=mnist", "model/likelihood=bernoulli", "model.likelihood.grey_targets=true"]
    else:
        chosen += ["data=cifar10", "model/likelihood=mse"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", overrides=[*chosen, *words])


def constant(work: Work) -> float:
    """What our loss has and squared error / 2 has not: the normalisation and the dequantisation of each value."""
    if work.binary:
        return 0.0
    c, h, w = work.shape
    return c * h * w * float(0.5 * torch.log(torch.tensor(2 * torch.pi)) + 1 / (24 * LEVELS**2))


def has_tensorboard() -> bool:
    """Whether TensorBoard can be written here."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        return False
    return True
