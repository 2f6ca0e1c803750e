"""Kuzushiji-MNIST: 70,000 cursive Japanese characters of 28x28 grey pixels in ten classes (Clanuwat et al., 2018)."""

from vae_train.data.sources.base import IdxSource


class KMNIST(IdxSource):
    """Kuzushiji-MNIST, split into 50,000 / 10,000 / 10,000 images by a stored seed."""

    name, num_train = "KMNIST", 50_000
