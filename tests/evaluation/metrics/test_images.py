from __future__ import annotations

import math
import os
import subprocess
import sys
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F

from tests.support import SplitSource, load
from vae_train.data.dataset import Transforms
from vae_train.data.sources.digits import Digits
from vae_train.data.storage.stored import StoredImages, TensorStore
from vae_train.data.transforms.preprocessing import Preprocessing
from vae_train.evaluation.features import InceptionFeatures, LabelFeatures, RandomFeatures, in_chunks
from vae_train.evaluation.metrics.image_similarity import MS_SSIM_MIN_SIDE, ms_ssim, psnr, ssim
from vae_train.evaluation.metrics.sample_quality import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)
from vae_train.rng import generator
from vae_train.util.errors import RunError, UsageError


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=generator(seed, "fidelity"))


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed, "fidelity"), dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


# --- pairs of images


def test_psnr_of_a_constant_offset():
    x = 0.5 * uniform(3, 2, 9, 7)
    y = x + torch.tensor([0.1, 0.01, 0.0]).view(3, 1, 1, 1)
    assert psnr(x, y).tolist() == pytest.approx([20, 40, math.inf], rel=1e-4)


def test_psnr_is_that_of_each_image_with_a_range_of_one():
    x, y = uniform(4, 3, 8, 8), uniform(4, 3, 8, 8, seed=1)
    expected = [-10 * math.log10((a - b).square().mean().item()) for a, b in zip(x, y, strict=True)]
    assert psnr(x, y).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("side", [11, 12, 28])
def test_ssim_of_equal_images_is_one(side):
    x = uniform(3, 1, side, side)
    assert ssim(x, x).tolist() == pytest.approx([1, 1, 1])


def test_ssim_of_flat_images_is_their_luminance_term():
    a, b = 0.2, 0.7
    flat = torch.ones(2, 1, 28, 28, dtype=torch.float64)
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    assert ssim(a * flat, b * flat).tolist() == pytest.approx([expected] * 2, rel=1e-9)


def test_ssim_is_the_mean_over_the_windows_within_the_image():
    x, y = uniform(1, 1, 28, 28).double(), uniform(1, 1, 28, 28, seed=1).double()
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    values = []
    for i in range(18):
        for j in range(18):
            p, q = (image[0, 0, i : i + 11, j : j + 11] for image in (x, y))
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            cov = (window * (p - mean_p) * (q - mean_q)).sum()
            luminance = (2 * mean_p * mean_q + 1e-4) / (mean_p**2 + mean_q**2 + 1e-4)
            values.append((luminance * (2 * cov + 9e-4) / (var_p + var_q + 9e-4)).item())
    assert ssim(x, y).item() == pytest.approx(sum(values) / len(values), rel=1e-9)


@pytest.mark.parametrize(("measure", "side"), [(ssim, 12), (ms_ssim, MS_SSIM_MIN_SIDE)])
def test_similarity_is_measured_image_by_image(measure, side):
    x, y = uniform(2, 1, side, side), uniform(2, 1, side, side, seed=1)
    alone = [measure(x[i : i + 1], y[i : i + 1]).item() for i in range(2)]
    assert measure(x, y).tolist() == pytest.approx(alone, rel=1e-5)
    assert measure(x, x).tolist() == pytest.approx([1, 1])
    assert all(measure(x, 0.9 * x + 0.1 * y) > measure(x, y))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit address space")
def test_structure_of_thousands_of_images_needs_little_memory():
    """The convolutions of 5,000 images at once take 20 GB."""
    code = """if True:
        import resource, torch
        from vae_train.evaluation.metrics.image_similarity import ms_ssim, ssim
        x = torch.rand(5000, 1, 28, 28)
        ssim(x[:9], x[:9])
        used = 1024 * int(open('/proc/self/status').read().split('VmSize:')[1].split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, -1))
        assert len(ssim(x, x.flip(0))) == 5000
        ms_ssim(x[:100].repeat(1, 1, 7, 7), x[1:101].repeat(1, 1, 7, 7))
    """
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


# --- the Fréchet distance


def with_moments(num, mean, factor, seed=0):
    """`num` features whose mean is `mean` and whose covariance is `factor` times its transpose, exactly."""
    noise = normal(num, factor.shape[1], seed=seed)
    noise = noise - noise.mean(0)
    white = noise @ torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / (num - 1))).T
    return mean + white @ factor.T


def closed_form(mean, cov, other_mean, other_cov):
    """The trace of the root by the eigenvalues of S S', which are real and not negative."""
    roots = torch.linalg.eigvals(cov @ other_cov).real.clamp(min=0).sqrt().sum()
    return ((mean - other_mean).square().sum() + cov.trace() + other_cov.trace() - 2 * roots).item()


@pytest.mark.parametrize("rank", [6, 3])
def test_frechet_distance_is_the_closed_form(rank):
    means, factors = normal(2, 6, seed=1), normal(2, 6, rank, seed=2)
    sets = [with_moments(n, m, f, n) for n, m, f in zip((50, 70), means, factors, strict=True)]
    covariances = factors @ factors.mT
    expected = closed_form(means[0], covariances[0], means[1], covariances[1])
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-6 if rank < 6 else 1e-10)


def test_frechet_distance_of_commuting_covariances():
    scales, others = torch.tensor([1.0, 2, 0]).double(), torch.tensor([3.0, 0.5, 0]).double()
    shift = torch.tensor([1.0, -2, 0.5]).double()
    one = with_moments(40, torch.zeros(3), torch.diag(scales), 1)
    two = with_moments(60, shift, torch.diag(others), 2)
    expected = (shift.square().sum() + (scales - others).square().sum()).item()
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("num", "size"), [(100, 10), (5, 10), (2, 300)])
def test_frechet_distance_of_a_set_to_itself_is_zero(num, size):
    x = 100 + normal(num, size)
    assert frechet_distance(x, x[torch.randperm(num, generator=generator(0))]) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_with_fewer_images_than_features():
    """Two images span a line: the covariances have one eigenvalue each, |x - x'|² / 2."""
    x, y = normal(2, 50, seed=1), normal(2, 50, seed=2)
    u, v = (x[0] - x[1]) / 2**0.5, (y[0] - y[1]) / 2**0.5
    expected = (x.mean(0) - y.mean(0)).square().sum() + u.square().sum() + v.square().sum() - 2 * (u @ v).abs()
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=1e-12)


def test_frechet_distance_does_not_change_with_order_and_rotation():
    x, y = normal(30, 5, seed=1), 2 * normal(40, 5, seed=2)
    turn = torch.linalg.qr(normal(5, 5, seed=3)).Q
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(x @ turn, y @ turn))


# --- the kernel distance


def slow_discrepancy(x, y):
    def kernel(a, b):
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    x, y = x.tolist(), y.tolist()
    within = [[kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j] for z in (x, y)]
    across = [kernel(a, b) for a in x for b in y]
    return sum(sum(part) / len(part) for part in within) - 2 * sum(across) / len(across)


def test_kernel_distance_equals_a_double_loop():
    x, y = normal(9, 4, seed=1), 1 + normal(9, 4, seed=2)
    found = kernel_distance(x, y)
    assert found[0] == pytest.approx(slow_discrepancy(x, y), rel=1e-12)
    assert found[1] is None


def test_the_mean_of_the_kernel_distance_over_all_halves_of_a_set_is_zero():
    x = normal(8, 3)
    values = []
    for half in combinations(range(8), 4):
        rest = [i for i in range(8) if i not in half]
        values.append(kernel_distance(x[list(half)], x[rest])[0])
    assert sum(values) / len(values) == pytest.approx(0, abs=1e-12)
    assert min(values) < 0 < max(values)


def test_the_kernel_distance_is_the_mean_over_subsets_with_its_error():
    x, y = normal(400, 3, seed=1), 0.5 + normal(300, 3, seed=2)
    whole = kernel_distance(x[:300], y)[0]
    found = kernel_distance(x, y, num_subsets=200, subset_size=30)
    assert found[1] > 0
    assert abs(found[0] - whole) < 5 * found[1]
    assert found == kernel_distance(x, y, num_subsets=200, subset_size=30)
    assert found != kernel_distance(x, y, num_subsets=200, subset_size=30, seed=1)


# --- neighbours

LINE = column(0, 1, 2, 3, 4)


def neighbors(real, sampled, **options):
    return precision_recall(real, sampled, **options) | density_coverage(real, sampled, **options)


def test_equal_sets_have_everything():
    x = normal(40, 7)
    for sampled in (x, x.flip(0)):
        assert set(neighbors(x, sampled, k=4).values()) == {1.0}


def test_equal_sets_far_from_zero_have_everything():
    x = 1e4 + normal(40, 7)
    assert set(neighbors(x, x.flip(0), k=4).values()) == {1.0}


def test_disjoint_sets_have_nothing():
    assert set(neighbors(LINE, LINE + 100, k=3).values()) == {0.0}


def test_a_mode_that_is_never_sampled_costs_recall_and_coverage():
    found = neighbors(torch.cat([LINE, LINE + 100]), LINE, k=3)
    assert found == {"precision": 1.0, "recall": 0.5, "density": 1.0, "coverage": 0.5}


def test_a_mode_that_is_not_real_costs_precision_and_density():
    found = neighbors(LINE, torch.cat([LINE, LINE + 100]), k=3)
    assert found == {"precision": 0.5, "recall": 1.0, "density": 0.5, "coverage": 1.0}


def test_samples_of_one_image():
    """Balls of radius 2, 1, 1, 1, 2 around 0 to 4 for k = 2: those of 0, 2 and 4 hold 2, and 0's and 4's end there."""
    sampled = column(2, 2, 2)
    assert precision_recall(LINE, sampled, k=2) == {"precision": 1.0, "recall": 0.2}
    assert density_coverage(LINE, sampled, k=2) == {"density": 0.5, "coverage": 0.2}
    assert density_coverage(LINE, sampled - 0.25, k=2) == {"density": 1.5, "coverage": 0.6}


def test_an_outlier_among_the_samples_raises_recall_but_not_coverage():
    real, sampled = torch.cat([LINE, LINE + 100]), column(0, 1, 2, 300)
    assert precision_recall(real, sampled[:3], k=1)["recall"] == 0.4
    assert precision_recall(real, sampled, k=1)["recall"] == 1.0  # the ball of 300 reaches to 2
    assert density_coverage(real, sampled, k=1)["coverage"] == 0.3


@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
def test_chunks_change_nothing(chunk):
    real, sampled = normal(30, 3, seed=1), 0.7 * normal(23, 3, seed=2)
    assert neighbors(real, sampled, k=3, chunk=chunk) == neighbors(real, sampled, k=3)


def test_neighbours_equal_a_loop():
    real, sampled, k = normal(25, 3, seed=1), 0.5 + 0.7 * normal(20, 3, seed=2), 3
    radii = [[sorted((a - b).norm().item() for b in z)[k] for a in z] for z in (real, sampled)]
    inside = [[(a - b).norm().item() < r for b in sampled] for a, r in zip(real, radii[0], strict=True)]
    within = [[(a - b).norm().item() <= r for a in real] for b, r in zip(sampled, radii[1], strict=True)]
    assert neighbors(real, sampled, k=k) == pytest.approx(
        {
            "precision": sum(map(any, zip(*inside, strict=True))) / 20,
            "recall": sum(map(any, zip(*within, strict=True))) / 25,
            "density": sum(map(sum, inside)) / (k * 20),
            "coverage": sum(map(any, inside)) / 25,
        }
    )


# --- what is no pair of sets of features


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance, precision_recall, density_coverage])
def test_sets_that_cannot_be_compared_are_refused(distance):
    x = normal(10, 3)
    with pytest.raises(ValueError, match=r"\(10, 3\) and \(10, 2\)"):
        distance(x, x[:, :2])
    with pytest.raises(ValueError, match="got 10 and 1"):
        distance(x, x[:1])
    with pytest.raises(RunError, match="of the samples are not finite"):
        distance(x, x / 0)


# --- feature networks


@pytest.fixture(scope="module")
def digits():
    return load(Digits("none"))


@pytest.fixture(scope="module")
def labeled(digits):
    return LabelFeatures(digits, steps=150)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 20), (2, 1, 100), (1, 1, 13), (3, 64, 64)])
def test_random_features_are_a_function_of_the_seed(shape):
    x = uniform(5, *shape)
    first, again, other = (RandomFeatures(shape, seed)(x) for seed in (0, 0, 1))
    assert (first.shape, first.dtype) == ((5, 128), torch.float64)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.std(0) > 0).any()


def test_features_are_named():
    assert RandomFeatures((1, 8, 8)).name == "random conv features (seed 0)"
    assert RandomFeatures((1, 8, 8), 7).name == "random conv features (seed 7)"


def test_features_go_through_in_chunks():
    x, network = uniform(11, 1, 8, 8), RandomFeatures((1, 8, 8))
    assert torch.allclose(in_chunks(network.net, x, 3, network.device), network(x), atol=1e-5)


def test_feature_networks_leave_the_global_generator_alone(digits):
    before = torch.get_rng_state()
    RandomFeatures((1, 8, 8))(uniform(2, 1, 8, 8))
    LabelFeatures(digits, steps=2)(uniform(2, 1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)


def test_label_features_tell_classes_apart(digits, labeled):
    assert labeled.name == "features of a classifier of this data's labels (seed 0)"
    found = [digits.split(name).fetch(torch.arange(180)) for name in ("train", "test")]
    centers = torch.stack([labeled(found[0].x)[found[0].y[:, 0] == label].mean(0) for label in range(10)])
    nearest = torch.cdist(labeled(found[1].x), centers).argmin(1)
    assert (nearest == found[1].y[:, 0]).double().mean() > 0.85


def test_label_features_are_a_function_of_the_seed(digits, labeled):
    x = digits.split("test").fetch(torch.arange(50)).x
    with torch.no_grad():  # as an evaluation may
        again, other = (LabelFeatures(digits, seed, steps=150)(x) for seed in (0, 1))
    assert torch.equal(labeled(x), again)
    assert not torch.equal(again, other)
    assert not again.requires_grad


def test_label_features_see_pixels_whatever_models_see(digits):
    preprocessing = Preprocessing(dequantize=False, logit=None, mean=0.5, std=2.0)
    halved = load(Digits("none"), transforms=Transforms(preprocessing=preprocessing))
    x = digits.split("test").fetch(torch.arange(20)).x
    assert not torch.equal(halved.split("test").fetch(torch.arange(20)).x, x)
    assert torch.equal(LabelFeatures(halved, steps=20)(x), LabelFeatures(digits, steps=20)(x))


def test_label_features_need_labels():
    unlabeled = StoredImages(TensorStore(torch.zeros(10, 1, 8, 8, dtype=torch.uint8)), 2)
    with pytest.raises(UsageError, match="the data has no labels"):
        LabelFeatures(load(SplitSource(unlabeled)))


def test_samples_that_are_real_images_are_nearer_than_noise(digits, labeled):
    x = digits.split("train").fetch(torch.arange(600)).x
    for network in (labeled, RandomFeatures((1, 8, 8))):
        real, held, noise = network(x[:300]), network(x[300:]), network(uniform(300, 1, 8, 8))
        assert frechet_distance(real, held) < 0.2 * frechet_distance(real, noise)
        assert kernel_distance(real, held)[0] < 0.1 * kernel_distance(real, noise)[0]
        assert precision_recall(real, held)["precision"] > 0.6 > precision_recall(real, noise)["precision"]
        assert density_coverage(real, held)["coverage"] > 0.6 > density_coverage(real, noise)["coverage"]


# --- Inception


def written(path, num_classes, auxiliary=False):
    """The state dict of an untrained Inception v3 in a file, as torchvision writes it."""
    from torchvision.models import inception_v3

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = inception_v3(weights=None, init_weights=False, num_classes=num_classes, aux_logits=auxiliary)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.mul_(2.4)  # or the activations would vanish on their way
    torch.save(net.state_dict(), path)
    return net.eval()


@pytest.fixture(scope="module")
def torchvision_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "torchvision.pth"
    return path, written(path, 1000, auxiliary=True)


@pytest.fixture(scope="module")
def tensorflow_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    return path, written(path, 1008)


@torch.no_grad()
def before_the_last_layer(net, x):
    found = []
    handle = net.fc.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    net(2 * x - 1)
    handle.remove()
    return found[0].double()


def test_inception_features_are_those_of_torchvision(torchvision_file):
    path, net = torchvision_file
    before = torch.get_rng_state()
    network = InceptionFeatures(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert network.name == "Inception v3 features (torchvision's weights, not those of published FIDs)"
    assert not network.is_fid
    x = uniform(1, 3, 299, 299)
    found = network(x)
    assert (found.shape, found.dtype) == ((1, 2048), torch.float64)
    assert torch.allclose(found, before_the_last_layer(net, x), rtol=1e-3, atol=1e-5)
    assert found.std() > 1e-3


def test_inception_sees_grey_images_as_coloured_ones(torchvision_file):
    network, x = InceptionFeatures(torchvision_file[0]), uniform(1, 1, 28, 20)
    assert torch.equal(network(x), network(x.expand(1, 3, 28, 20)))
    with pytest.raises(UsageError, match="1 or 3 channels, not 2"):
        network(x.expand(1, 2, 28, 20))


def test_inception_of_fid_pools_as_its_weights_expect(tensorflow_file):
    path, net = tensorflow_file
    network, x = InceptionFeatures(path), uniform(1, 3, 40, 40)
    assert network.name == "Inception v3 features (TensorFlow's weights of 2015)"
    assert network.is_fid
    resized = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False)
    usual = before_the_last_layer(net, resized)
    average, maximum = F.avg_pool2d, F.max_pool2d
    with pytest.MonkeyPatch.context() as patch:
        # The network itself with other pooling: only its last block has 2,048 channels and takes averages.
        def pooled(h, kernel_size, stride, padding):
            if h.shape[1] == 2048:
                return maximum(h, kernel_size, stride, padding)
            return average(h, kernel_size, stride, padding, count_include_pad=False)

        patch.setattr(F, "avg_pool2d", pooled)
        expected = before_the_last_layer(net, resized)
    assert torch.allclose(network(x), expected, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(usual, expected, rtol=1e-2, atol=1e-4)


def test_what_holds_no_inception_weights_is_refused(tmp_path):
    missing, text, other, head = (tmp_path / name for name in ("missing.pth", "text.pth", "other.pth", "head.pth"))
    text.write_text("no weights")
    torch.save({"weight": torch.zeros(3)}, other)
    torch.save({"fc.bias": torch.zeros(1000), "fc.weight": torch.zeros(1000, 2048)}, head)
    cases = {missing: "no such file", text: "contains no weights", other: "is not a state dict", head: "does not fit"}
    for path, reason in cases.items():
        with pytest.raises(UsageError, match=reason):
            InceptionFeatures(path)
