"""CIFAR-10: 60,000 colour images of 32x32 pixels in ten classes (Krizhevsky, 2009)."""

from vae_train.data.sources.base import CifarSource


class CIFAR10(CifarSource):
    """CIFAR-10, split into 45,000 / 5,000 / 10,000 images by a stored seed."""

    name, folder, num_classes = "CIFAR10", "cifar-10-batches-py", 10
