"""The loop that tutorials write: a DataLoader over single images, plain Adam, the loss read at every step.

After pytorch/examples, vae/main.py, with the layers of the work.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.utils import save_image

from benchmarks.contender import Contender
from benchmarks.networks import networks
from benchmarks.work import NUM_TEST, Setting, Work, load

LOG_EVERY = 10


class Tutorial(nn.Module):
    """The model as a tutorial writes it.

    Args:
        work: which layers it has.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()
        parts = networks(work)
        self.binary, self.trunk, self.decoder = work.binary, parts.trunk, parts.decoder
        self.mean, self.log_variance = parts.heads(work)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstructions with shape `(B, C, H, W)`, means and log-variances of z."""
        h = self.trunk(x)
        mean, log_variance = self.mean(h), self.log_variance(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return self.decode(z), mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Images from latents."""
        y = self.decoder(z)
        return torch.sigmoid(y) if self.binary else y

    def loss(self, x: Tensor, y: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Summed over the batch."""
        rate = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        if self.binary:
            return F.binary_cross_entropy(y, x, reduction="sum") + rate
        return 0.5 * F.mse_loss(y, x, reduction="sum") + rate


class Plain(Contender):
    """See the module.

    Args:
        setting: what is trained and on what.
        workers: processes of the DataLoader.
    """

    def __init__(self, setting: Setting, workers: int) -> None:
        super().__init__(setting)
        torch.set_num_threads(setting.threads)
        torch.manual_seed(1)
        self.workers = workers
        self.loader = self._loader(load(self.work.shape, setting.images).pictures(), shuffle=True)
        self.model = Tutorial(self.work).to(self.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.batches = self._endless()
        self.test: DataLoader | None = None

    def steps(self, count: int) -> float:
        """See `Contender.steps`."""
        return sum(self._step(next(self.batches)) for _ in range(count)) / count

    def epoch(self) -> None:
        """A pass over the training images with a line per ten batches, one over the test images, and two pictures."""
        self.test = self.test or self._loader(load(self.work.shape, NUM_TEST, train=False).pictures(), shuffle=False)
        self.model.train()
        total = 0.0
        for number, (x, _) in enumerate(self.loader):
            loss = self._step(x)
            total += loss * len(x)
            if number % LOG_EVERY == 0:
                print(f"batch {number} of {len(self.loader)}, loss {loss:.4f}")
        print(f"average loss {total / len(self.loader.dataset):.4f}")
        with tempfile.TemporaryDirectory() as folder:
            self._test(folder)

    @torch.no_grad()
    def _test(self, folder: str) -> None:
        assert self.test is not None
        self.model.eval()
        total = 0.0
        for number, (x, _) in enumerate(self.test):
            x = x.to(self.device)
            y, mean, log_variance = self.model(x)
            total += self.model.loss(x, y, mean, log_variance).item()
            if number == 0:
                save_image(torch.cat([x[:8], y[:8]]).cpu(), f"{folder}/reconstruction.png", nrow=8)
        print(f"test loss {total / len(self.test.dataset):.4f}")
        z = torch.randn(64, self.work.latent_dim).to(self.device)
        save_image(self.model.decode(z).cpu(), f"{folder}/sample.png")

    def _step(self, x: Tensor) -> float:
        x = x.to(self.device)
        self.optimizer.zero_grad()
        y, mean, log_variance = self.model(x)
        loss = self.model.loss(x, y, mean, log_variance)
        loss.backward()
        self.optimizer.step()
        return loss.item() / len(x)

    def _endless(self) -> Iterator[Tensor]:
        """Batches of one pass over the images after the other."""
        while True:
            for x, _ in self.loader:
                yield x

    def _loader(self, images: Dataset, shuffle: bool) -> DataLoader:
        pinned = self.device.type == "cuda"
        size = self.work.batch_size
        return DataLoader(images, batch_size=size, shuffle=shuffle, num_workers=self.workers, pin_memory=pinned)
