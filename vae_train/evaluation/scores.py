"""How likely single images are under a model: bounds of log p(x), and its importance-weighted estimate."""

from collections.abc import Callable

from torch import Tensor

from vae_train.batch import Fetched
from vae_train.evaluation.bounds import bits_of_nats, image_bounds
from vae_train.evaluation.metrics.nll import estimate_log_likelihood
from vae_train.evaluation.subject import Noise
from vae_train.model.base import LatentVariableModel


def image_scores(
    model: LatentVariableModel,
    images: Fetched,
    *,
    noise: Noise,
    k: int = 0,
    num_samples: int = 1,
    batch_size: int = 512,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, Tensor]:
    """Scores every image, as `vae eval` does before it averages.

    Args:
        model: the model.
        images: N images.
        noise: noise of z and of the binarisation.
        k: importance samples per image for -log p(x); 0 for none.
        num_samples: samples of z per image for the ELBO and its terms.
        batch_size: images per pass; only affects rounding.
        progress: called with the number of images after every pass; an image counts twice if there are importance
            samples.

    Returns:
        The result of `image_bounds`, and with importance samples "nll" (nats) and "nll_bits_per_dim", each `(N,)`.
    """
    scores = image_bounds(model, images, noise=noise, num_samples=num_samples, batch_size=batch_size, progress=progress)
    if k and "elbo" in scores:
        log_p = estimate_log_likelihood(model, images, k, noise=noise, progress=progress).log_p[-1]
        scores["nll"] = -log_p
        if "bits_per_dim" in scores:
            scores["nll_bits_per_dim"] = bits_of_nats(log_p, scores)
    return scores
