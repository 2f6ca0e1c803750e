"""MNIST: 70,000 handwritten digits of 28x28 pixels (LeCun et al., 1998), in the protocols of the VAE literature."""

from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from vae_train.batch import DataFacts, Split
from vae_train.data.sources.base import Arrays, IdxSource, class_facts, joined

# Numbers of training images, and of the following images for validation.
SIZES = {"vamp": (50_000, 10_000), "iwae": (59_600, 400), "all": (60_000, 0), "everything": (70_000, 0)}


@dataclass(frozen=True)
class MNIST(IdxSource):
    """MNIST, split as in the literature.

    Args:
        root: folder that contains `MNIST/raw`; missing files are downloaded to it.
        binarize: see `vae_train.data.sources.base.Binarize`. The literature's "dynamic MNIST" is "dynamic".
        protocol: "vamp" trains on the first 50,000 images, validates on the next 10,000 and samples validation and test
            bits once with NumPy's seed 777, validation first, as published ("VAE with a VampPrior",
            arXiv:1705.07120); "iwae" trains on 59,600 and validates on 400 ("Importance Weighted Autoencoders",
            arXiv:1509.00519); "all" trains on 60,000 without validation; "everything" trains on all 70,000 and has no
            test split, like the Keras example.
    """

    protocol: Literal["vamp", "iwae", "all", "everything"]
    name, bits_seed = "MNIST", 777

    @override
    def inspect(self) -> DataFacts:
        return class_facts((1, 28, 28), SIZES[self.protocol][0], 10, self.binarize)

    @override
    def grey_splits(self) -> dict[Split, Arrays]:
        train, test = self.open(train=True), self.open(train=False)
        if self.protocol == "everything":
            return {"train": joined(train, test)}
        num_train, num_valid = self.inspect().num_train, SIZES[self.protocol][1]
        splits: dict[Split, Arrays] = {"train": train.take(slice(num_train)), "test": test}
        if num_valid:
            splits["valid"] = train.take(slice(num_train, num_train + num_valid))
        return splits
