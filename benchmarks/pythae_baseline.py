"""Training with pythae (Chadebec et al., 2022): its VAE, its BaseTrainer and its loop around the workload's layers.

The images are in memory as float32, as users of pythae pass them. Its progress bar is on, as by default, and goes to a
file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from benchmarks.implementation import Implementation, Unavailable
from benchmarks.networks import Networks, build_networks
from benchmarks.workload import NUM_TEST_IMAGES, Settings, Workload, load_images

try:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
except ImportError as error:
    raise Unavailable("pip install pythae") from error


class Encoder(BaseEncoder):
    """The workload's encoder with pythae's interface.

    Args:
        workload: defines the layers.
        networks: the layers.
    """

    def __init__(self, workload: Workload, networks: Networks) -> None:
        super().__init__()
        self.trunk = networks.trunk
        self.mean, self.log_variance = networks.heads(workload)

    @override
    def forward(self, x: Tensor) -> ModelOutput:
        h = self.trunk(x)
        return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))


class Decoder(BaseDecoder):
    """The workload's decoder with pythae's interface.

    Args:
        workload: defines the layers.
        networks: the layers.
    """

    def __init__(self, workload: Workload, networks: Networks) -> None:
        super().__init__()
        self.binary, self.layers = workload.binary, networks.decoder

    @override
    def forward(self, z: Tensor) -> ModelOutput:
        y = self.layers(z)
        return ModelOutput(reconstruction=torch.sigmoid(y) if self.binary else y)


class PartialLoader:
    """A DataLoader that ends after `count` batches and continues from there when it is iterated over again.

    Args:
        loader: the whole DataLoader.
    """

    def __init__(self, loader: Any) -> None:
        self.loader, self.dataset, self.count = loader, loader.dataset, 0
        self._iterator = self._batches()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return (next(self._iterator) for _ in range(self.count))

    def _batches(self) -> Iterator[Any]:
        while True:
            yield from self.loader


class PythaeBaseline(Implementation):
    """Trains with pythae.

    Args:
        settings: what is trained, and on what.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        torch.set_num_threads(settings.threads)
        torch.manual_seed(1)
        workload, networks = self.workload, build_networks(self.workload)
        loss = "bce" if workload.binary else "mse"
        config = VAEConfig(input_dim=workload.shape, latent_dim=workload.latent_dim, reconstruction_loss=loss)
        self.model = VAE(config, Encoder(workload, networks), Decoder(workload, networks))
        self.folder = tempfile.TemporaryDirectory()
        self.data = self._data(train=True)
        self.trainer = self._trainer(None)
        self.trainer.prepare_training()
        self.trainer.train_loader = self.loader = PartialLoader(self.trainer.train_loader)
        self.epoch_trainer: BaseTrainer | None = None
        self.num_parameters = sum(p.numel() for p in self.model.parameters())

    @override
    def steps(self, count: int) -> float:
        # pythae's train_step is its loop over the batches of an epoch.
        self.loader.count = count
        loss = self.trainer.train_step(epoch=1)
        self.trainer.callback_handler.on_epoch_end(training_config=self.trainer.training_config)
        return float(loss)

    @override
    def epoch(self) -> None:
        self.epoch_trainer = self.epoch_trainer or self._trainer(self._data(train=False))
        self.epoch_trainer.train()

    def close(self) -> None:
        """Removes the output folder before the process ends."""
        self.folder.cleanup()

    def _data(self, train: bool) -> BaseDataset:
        images = load_images(self.workload.shape, self.settings.num_images if train else NUM_TEST_IMAGES, train)
        return BaseDataset(images.pixels.float().div_(255), images.labels)

    def _trainer(self, valid: BaseDataset | None) -> BaseTrainer:
        config = BaseTrainerConfig(
            output_dir=self.folder.name,
            num_epochs=1,
            learning_rate=1e-3,
            per_device_train_batch_size=self.workload.batch_size,
            per_device_eval_batch_size=self.workload.batch_size,
            no_cuda=self.device.type == "cpu",
        )
        return BaseTrainer(self.model, self.data, valid, config)
