"""The loop of tutorials: a DataLoader over single images, plain Adam, and the loss read at every step.

After pytorch/examples, vae/main.py, with the layers of the workload.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.utils import save_image
from typing_extensions import override

from benchmarks.implementation import Implementation
from benchmarks.networks import build_networks
from benchmarks.workload import NUM_TEST_IMAGES, Settings, Workload, load_images

LOG_EVERY = 10


class TutorialVAE(nn.Module):
    """The model as a tutorial writes it.

    Args:
        workload: defines the layers and the loss.
    """

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        networks = build_networks(workload)
        self.binary, self.trunk, self.decoder = workload.binary, networks.trunk, networks.decoder
        self.mean, self.log_variance = networks.heads(workload)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns reconstructions with shape `(B, C, H, W)`, and means and log-variances of z."""
        h = self.trunk(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decode(z), mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Returns images for latents."""
        y = self.decoder(z)
        return torch.sigmoid(y) if self.binary else y

    def loss(self, x: Tensor, y: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """The negative ELBO, summed over the batch."""
        rate = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        if self.binary:
            return F.binary_cross_entropy(y, x, reduction="sum") + rate
        return 0.5 * F.mse_loss(y, x, reduction="sum") + rate


class PyTorchLoop(Implementation):
    """Trains as tutorials do.

    Args:
        settings: what is trained, and on what.
        workers: processes of the DataLoader.
    """

    def __init__(self, settings: Settings, workers: int) -> None:
        super().__init__(settings)
        torch.set_num_threads(settings.threads)
        torch.manual_seed(1)
        self.workers = workers
        self.loader = self._loader(load_images(self.workload.shape, settings.num_images).as_dataset(), shuffle=True)
        self.model = TutorialVAE(self.workload).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.num_parameters = sum(p.numel() for p in self.model.parameters())
        self.batches = self._batches()
        self.test_loader: DataLoader | None = None

    @override
    def steps(self, count: int) -> float:
        return sum(self._step(next(self.batches)) for _ in range(count)) / count

    @override
    def epoch(self) -> None:
        if self.test_loader is None:
            test = load_images(self.workload.shape, NUM_TEST_IMAGES, train=False)
            self.test_loader = self._loader(test.as_dataset(), shuffle=False)
        self.model.train()
        total = 0.0
        for number, (x, _) in enumerate(self.loader):
            loss = self._step(x)
            total += loss * len(x)
            if number % LOG_EVERY == 0:
                print(f"batch {number} of {len(self.loader)}, loss {loss:.4f}")
        print(f"average loss {total / len(self.loader.dataset):.4f}")  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder:
            self._test(self.test_loader, folder)

    @torch.no_grad()
    def _test(self, loader: DataLoader, folder: str) -> None:
        self.model.eval()
        total = 0.0
        for number, (x, _) in enumerate(loader):
            x = x.to(self.device)
            y, mean, log_variance = self.model(x)
            total += self.model.loss(x, y, mean, log_variance).item()
            if number == 0:
                save_image(torch.cat([x[:8], y[:8]]).cpu(), f"{folder}/reconstruction.png", nrow=8)
        print(f"test loss {total / len(loader.dataset):.4f}")  # type: ignore[arg-type]
        z = torch.randn(64, self.workload.latent_dim).to(self.device)
        save_image(self.model.decode(z).cpu(), f"{folder}/sample.png")

    def _step(self, x: Tensor) -> float:
        x = x.to(self.device)
        self.optimizer.zero_grad()
        y, mean, log_variance = self.model(x)
        loss = self.model.loss(x, y, mean, log_variance)
        loss.backward()
        self.optimizer.step()
        return loss.item() / len(x)

    def _batches(self) -> Iterator[Tensor]:
        """Yields the batches of an endless sequence of epochs."""
        while True:
            for x, _ in self.loader:
                yield x

    def _loader(self, images: Dataset, shuffle: bool) -> DataLoader:
        pin, size = self.device.type == "cuda", self.workload.batch_size
        return DataLoader(images, batch_size=size, shuffle=shuffle, num_workers=self.workers, pin_memory=pin)
