"""Fashion-MNIST: 70,000 grey images of clothes, 28x28 pixels (Xiao et al., 2017)."""

from vae_train.data.sources.base import IdxSource


class FashionMNIST(IdxSource):
    """Fashion-MNIST, split into 50,000 / 10,000 / 10,000 images by a stored seed."""

    name, num_train = "FashionMNIST", 50_000
