"""The first stage of latent generators: its weights, its perceptual distances and its critic."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.vgg import cfgs, make_layers

from tests.support import SMALL, binary_batch, build_learner, build_model, build_objective, compose, update
from vae_train.batch import Batch
from vae_train.objective.perceptual import Perceptual, Pyramid
from vae_train.rng import Rng, generator
from vae_train.training.epochs import Epochs
from vae_train.training.monitor import Judge

TOY = (
    *("model=conv_spatial", "latent_shape=[2,4,4]", "model.encoder.channels=4", "objective=first_stage"),
    *("model/likelihood=laplace", "data.binarize=none", "objective.channels=4"),
)
LDM = (*TOY, "model.likelihood.scale=0.5", "model.likelihood.scale_mode=fixed", "beta=1e-6", "objective.start_step=3")


def random_images(count, shape=(3, 8, 8), seed=0):
    return torch.rand(count, *shape, generator=generator(seed, "pictures"))


def built(*overrides, shape=(3, 8, 8), levels=None):
    cfg = compose(*overrides)
    return build_model(cfg, shape, levels), build_objective(cfg, shape)


def terms_of(model, objective, x, step):
    rng = Rng(0, "x")
    trace = model(Batch(x), rng, objective.num_samples)
    return objective(model, trace, step, rng), trace


def test_weights_in_the_convention_of_latent_diffusion_give_its_gradients():
    """An independent formulation, with pixels in [-1, 1], sums over an image and the weights of the KL-f8 recipe."""
    model, objective = built(*LDM)
    x = random_images(4)
    terms, trace = terms_of(model, objective, x, 5)
    (latent,) = trace.latents
    real, fake = 2 * x - 1, 2 * trace.px.mean[0] - 1
    distance = objective.perceptual(trace.px.mean[0], x)
    nll = ((real - fake).abs() + distance.view(-1, 1, 1, 1)).sum() / 4
    mean, variance = latent.q.mean, latent.q.variance
    kl = 0.5 * (mean.square() + variance - 1 - variance.log()).sum() / 4
    generator_loss = -objective.critic(fake).mean()
    last = model.decoder.layers[-1].weight
    norms = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (nll, generator_loss)]
    ratio = torch.clamp(norms[0] / (norms[1] + 1e-4), 0, 1e4)
    expected = nll + 1e-6 * kl + 0.5 * ratio.detach() * generator_loss
    assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (
        torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in (terms["loss"], expected)
    )
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(ours, theirs, strict=True))
    critic = 0.5 * (F.relu(1 - objective.critic(real)).mean() + F.relu(1 + objective.critic(fake.detach())).mean())
    assert torch.allclose(terms["critic_loss"], critic)


def test_the_critic_is_absent_before_its_step():
    model, objective = built(*LDM)
    terms, _ = terms_of(model, objective, random_images(4), 2)
    assert torch.equal(terms["loss"], terms["reconstruction"])
    assert terms["critic_loss"] == 0
    captured, _ = terms_of(model, objective, random_images(4), torch.tensor(2))
    assert torch.equal(captured["loss"], terms["loss"])
    assert captured["critic_loss"] == 0
    later, _ = terms_of(model, objective, random_images(4), torch.tensor(3))
    assert not torch.equal(later["loss"], later["reconstruction"])
    assert later["critic_loss"] > 0


def test_the_critic_stays_as_it_is_before_its_step():
    """Not even weight decay moves it, and its optimiser begins with its first gradient."""
    cfg = compose(*LDM, "optimizer=adamw", "optimizer.weight_decay=0.5")
    learner = build_learner(cfg, build_model(cfg, (3, 8, 8), None))
    before = [p.clone() for p in learner.objective.parameters()]
    for step in range(5):
        scalars = update(learner, Batch(random_images(4)), step)
        same = [torch.equal(a, b) for a, b in zip(before, learner.objective.parameters(), strict=True)]
        assert all(same) if step < 3 else not any(same)
        assert {"critic_loss", "adversarial", "balance"} <= scalars.keys()


def test_the_adaptive_weight_is_bounded():
    model, objective = built(*LDM)
    for p in objective.critic.parameters():
        torch.nn.init.zeros_(p)  # no gradient of the critic balances anything
    terms, _ = terms_of(model, objective, random_images(4), 5)
    assert 0 < terms["balance"] <= 1e4
    assert terms["loss"].isfinite()


def test_weights_in_nats_are_those_of_an_image():
    model, objective = built(*TOY, "objective.convention=nats", "objective.perceptual.weight=3", "beta=0.5")
    terms, trace = terms_of(model, objective, random_images(4), 0)
    expected = trace.distortion().mean() + 0.5 * trace.rate().mean() + 3 * terms["perceptual"]
    assert torch.allclose(terms["reconstruction"], expected)


def test_a_learned_scale_stays_that_of_the_pixels_and_scales_the_perceptual_distance():
    model, objective = built(*TOY, "model.likelihood.scale=0.2", "beta=0")
    terms, trace = terms_of(model, objective, random_images(4), 0)
    expected = trace.distortion().mean() + 192 / (2 * 0.2) * terms["perceptual"]
    assert torch.allclose(terms["reconstruction"], expected)
    (scale,) = model.likelihood.parameters()
    both, alone = (
        torch.autograd.grad(loss, scale, retain_graph=True)[0] for loss in (terms["loss"], trace.distortion().mean())
    )
    assert torch.allclose(both, alone)


def test_metrics_are_those_of_the_likelihood_alone():
    words = [word for word in LDM if not word.startswith("objective.")]
    configurations = compose(*LDM), compose(*words, "objective=elbo")
    learners = [build_learner(cfg, build_model(cfg, (3, 8, 8), None)) for cfg in configurations]
    found, expected = (learner.evaluate(Batch(random_images(4)), 0, 100) for learner in learners)
    assert all(torch.equal(found[name], expected[name]) for name in ("elbo", "rate", "distortion"))


def test_without_a_critic_there_is_nothing_to_train_but_the_model():
    cfg = compose(*TOY, "objective.weight=0", "learner.grad_accumulation=2")
    learner = build_learner(cfg, build_model(cfg, (3, 8, 8), None))
    assert list(learner.objective.parameters()) == []
    scalars = update(learner, Batch(random_images(4)), 0)
    assert torch.equal(scalars["loss"], scalars["reconstruction"])
    assert "critic_loss" not in scalars


def test_microbatches_give_the_gradients_of_the_batch_without_an_adaptive_weight():
    learners = []
    for count in (1, 2):
        cfg = compose(*TOY, "objective.adaptive=false", "objective.start_step=0", f"learner.grad_accumulation={count}")
        learners.append(build_learner(cfg, build_model(cfg, (3, 8, 8), None)))
        update(learners[-1], Batch(random_images(4)), 0)
    for a, b in zip(*(learner.parameters for learner in learners), strict=True):
        assert torch.allclose(a.grad, b.grad, rtol=1e-3, atol=1e-5)


def test_validations_are_compared_without_the_adversarial_loss():
    _, objective = built(*TOY, "objective.start_step=30")
    judge = Judge("objective", objective, Epochs(5, 100, 10))
    row = {"loss": 1.0, "reconstruction": 2.0, "elbo": -3.0}
    assert judge.value(row, row) == 2
    assert not judge.settled(29), "epochs before the critic started do not compare with those after"
    assert judge.settled(30)


# The pyramid.


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 37, 53), (1, 1, 9)])
def test_the_pyramid_is_a_distance(shape):
    distance, (x, y) = Pyramid(shape), random_images(2, shape)
    assert distance(x[None], x[None]) == 0
    assert torch.equal(distance(x[None], y[None]), distance(y[None], x[None]))
    assert distance(x[None], y[None]) > 0
    z = x[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(z, x[None]).sum(), z)
    assert gradient.isfinite().all()


def test_the_pyramid_sees_blur_rather_than_brightness():
    """Of two errors with equal squares, the blurred image is farther."""
    x = random_images(1, (3, 32, 32)) * 0.5
    blurred = F.avg_pool2d(x, 3, 1, 1)
    error = (blurred - x).square().mean().sqrt()
    distance = Pyramid((3, 32, 32))
    assert distance(blurred, x) > 5 * distance(x + error, x)


# LPIPS.


def vgg_layers():
    """The feature layers of torchvision's VGG16 with random weights, without its large classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_layers(cfgs["D"])


def vgg_state():
    return {f"features.{name}": value for name, value in vgg_layers().state_dict().items()}


def heads(seed=0):
    source = generator(seed, "heads")
    widths = (64, 128, 256, 512, 512)
    return {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1, generator=source) for i, width in enumerate(widths)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder, vgg = tmp_path_factory.mktemp("lpips"), vgg_state()
    torch.save({**vgg, "classifier.0.bias": torch.zeros(3)}, folder / "vgg16.pth")
    torch.save(heads(), folder / "heads.pth")
    return folder


def lpips(files, weights, shape=(3, 32, 32), sha256=None):
    return Perceptual(1.0, [str(files / name) for name in weights], sha256, shape, 256)


def test_lpips_is_its_formula(files):
    """Against torchvision's layers and the sum of equation 1, written out."""
    x, y = random_images(4, (3, 32, 32)).chunk(2)
    features, weights = vgg_layers().requires_grad_(False), heads()
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    a, b = (((2 * image - 1).permute(0, 2, 3, 1) - shift) / scale for image in (x, y))
    a, b, expected = a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), torch.zeros(2)
    taken = 0
    for number, layer in enumerate(features[:30]):
        a, b = layer(a), layer(b)
        if number in (3, 8, 15, 22, 29):  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
            difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
            w = weights[f"lin{taken}.model.1.weight"].flatten()
            expected += torch.einsum("c,nchw->n", w, difference.square()) / math.prod(a.shape[2:])
            taken += 1
    distance = lpips(files, ["vgg16.pth", "heads.pth"])
    assert taken == 5
    assert torch.allclose(distance(x, y), expected, rtol=1e-4)
    assert list(distance.parameters()) == []
    assert distance.state_dict() == {}, "checkpoints do not grow"
    assert distance.note is None


def test_lpips_reads_one_combined_file_in_published_names_and_grey_images(files):
    slices = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4, 24: 5, 26: 5, 28: 5}
    state = {}
    for key, value in vgg_state().items():
        _, number, kind = key.split(".")
        state[f"loss.net.slice{slices[int(number)]}.{number}.{kind}"] = value
    torch.save({"state_dict": state | {f"loss.{k}": v for k, v in heads().items()}}, files / "combined.ckpt")
    one, two = lpips(files, ["combined.ckpt"]), lpips(files, ["vgg16.pth", "heads.pth"], (1, 32, 32))
    x, y = random_images(2, (1, 32, 32)).chunk(2)
    assert one.resolved["sha256"] == two.resolved["sha256"]
    colour = [image.expand(-1, 3, -1, -1) for image in (x, y)]
    assert torch.equal(one(*colour), two(x, y))


def test_wrong_weights_of_lpips_are_refused(files):
    def message(*arguments, **changes):
        with pytest.raises(ValueError, match=r"LPIPS|sha256|weights") as caught:
            lpips(files, *arguments, **changes)
        return str(caught.value)

    assert "no such file" in message(["absent.pth"])
    assert "LPIPS also needs the weights of the linear heads" in message(["vgg16.pth"])
    assert "VGG16" in message(["heads.pth"])
    torch.save(heads() | {"lin2.model.1.weight": torch.zeros(1, 8, 1, 1)}, files / "small.pth")
    assert "lin2.weight has the shape [1, 8, 1, 1], LPIPS needs [1, 256, 1, 1]" in message(["vgg16.pth", "small.pth"])
    (files / "text.pth").write_text("nothing")
    assert "no weights that can be loaded safely" in message(["text.pth"])
    assert "restore the files of this run" in message(["vgg16.pth", "heads.pth"], sha256="0" * 64)
    assert "at least 16x16 pixels" in message(["vgg16.pth", "heads.pth"], (3, 8, 8))
    assert "1 or 3 channels" in message(["vgg16.pth", "heads.pth"], (4, 32, 32))


def test_other_likelihoods_take_part():
    model, objective = built(*SMALL, "objective=first_stage", "objective.channels=4", shape=(1, 8, 8), levels=2)
    terms, _ = terms_of(model, objective, binary_batch(4).x, 0)
    assert terms["loss"].isfinite()
