"""Training with pythae (Chadebec et al., 2022): its VAE, its BaseTrainer and its loop, around the layers of the work.

The images lie in memory as float32, as its users hand them over. Its progress bar is on, as always, and goes to a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Contender, Missing
from benchmarks.networks import Networks, networks
from benchmarks.work import NUM_TEST, Setting, Work, load

try:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
except ImportError as error:
    raise Missing("pip install pythae") from error


class Encoder(BaseEncoder):
    """The work's encoder as pythae wants it.

    Args:
        work: which layers it has.
        parts: these layers.
    """

    def __init__(self, work: Work, parts: Networks) -> None:
        super().__init__()
        self.trunk = parts.trunk
        self.mean, self.log_variance = parts.heads(work)

    def forward(self, x: Tensor) -> ModelOutput:
        """See pythae's `BaseEncoder.forward`."""
        h = self.trunk(x)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))


class Decoder(BaseDecoder):
    """The work's decoder as pythae wants it.

    Args:
        work: which layers it has.
        parts: these layers.
    """

    def __init__(self, work: Work, parts: Networks) -> None:
        super().__init__()
        self.binary, self.layers = work.binary, parts.decoder

    def forward(self, z: Tensor) -> ModelOutput:
        """See pythae's `BaseDecoder.forward`."""
        y = self.layers(z)
        return ModelOutput(reconstruction=torch.sigmoid(y) if self.binary else y)


class Some:
    """A DataLoader that ends after some batches and goes on there the next time.

    Args:
        loader: the whole one.
    """

    def __init__(self, loader: Any) -> None:
        self.loader, self.dataset, self.count = loader, loader.dataset, 0
        self._batches = self._endless()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return (next(self._batches) for _ in range(self.count))

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader


class Pythae(Contender):
    """See the module.

    Args:
        setting: what is trained and on what.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        torch.set_num_threads(setting.threads)
        torch.manual_seed(1)
        work, parts = self.work, networks(self.work)
        loss = "bce" if work.binary else "mse"
        config = VAEConfig(input_dim=work.shape, latent_dim=work.latent_dim, reconstruction_loss=loss)
        self.model = VAE(config, Encoder(work, parts), Decoder(work, parts))
        self.folder = tempfile.TemporaryDirectory()
        self.data = self._data(train=True)
        self.trainer = self._trainer(None)
        self.trainer.prepare_training()
        self.whole: BaseTrainer | None = None
        self.trainer.train_loader = self.some = Some(self.trainer.train_loader)
        self.parameters = sum(p.numel() for p in self.model.parameters())

    def steps(self, count: int) -> float:
        """Its `train_step`, which is its loop over the batches of an epoch, with `count` batches."""
        self.some.count = count
        loss = self.trainer.train_step(epoch=1)
        self.trainer.callback_handler.on_epoch_end(training_config=self.trainer.training_config)
        return float(loss)

    def epoch(self) -> None:
        """Its `train` with one epoch and a validation set; writes the final model."""
        self.whole = self.whole or self._trainer(self._data(train=False))
        self.whole.train()

    def close(self) -> None:
        """Removes what was written, which otherwise the end of the process does."""
        self.folder.cleanup()

    def _data(self, train: bool) -> BaseDataset:
        source = load(self.work.shape, self.setting.images if train else NUM_TEST, train)
        return BaseDataset(source.pixels.float().div_(255), source.labels[:, 0])

    def _trainer(self, valid: BaseDataset | None) -> BaseTrainer:
        size = self.work.batch_size
        config = BaseTrainerConfig(
            output_dir=self.folder.name,
            num_epochs=1,
            learning_rate=1e-3,
            per_device_train_batch_size=size,
            per_device_eval_batch_size=size,
            no_cuda=self.device.type == "cpu",
        )
        return BaseTrainer(self.model, self.data, valid, config)
