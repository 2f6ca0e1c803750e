"""-E[1/M sum_m log 1/K sum_k p(x, z_mk) / q(z_mk | x)]      (MIWAE).

Rainforth et al., 2018, Tighter Variational Bounds are Not Necessarily Better, arXiv:1802.04537.
"""

from vae_train.objective.bounds import ImportanceWeighted


class MIWAE(ImportanceWeighted):
    """The mean of M negative importance-weighted bounds, of K samples each.

    One group is IWAE, and groups of one sample each are the ELBO: more groups give the encoder a less noisy gradient,
    larger groups a tighter bound.

    Args:
        num_samples: M · K, samples of z per image.
        groups: M, number of groups.
        gradient: gradient estimator for q(z | x), see `vae_train.objective.bounds`.

    Raises:
        ValueError: the samples do not form groups of equal size.
    """
