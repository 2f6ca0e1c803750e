"""Invertible maps, and the densities made of them, against autograd, quadrature and PyTorch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.func import functional_call, grad, stack_module_state, vmap

from tests.examples import numbers
from vae_train.distributions.flows.base import Chain, Planar, Reversed, Scale, Sylvester, Transformed
from vae_train.distributions.flows.convolutional import ConvFlow
from vae_train.distributions.flows.masked import MaskedFlow
from vae_train.distributions.kl import kl
from vae_train.distributions.multivariate import LowRankNormal, MultivariateNormal, lower_triangle
from vae_train.distributions.normal import Normal
from vae_train.rng import Rng

BATCH, SIZE = 5, 4


def masked(size=SIZE, context=0, bins=None, coupling=False, transforms=2):
    torch.manual_seed(0)
    made = MaskedFlow(size, context, transforms, [16, 16], bins, coupling).double()
    with torch.no_grad():  # far from the identity, which it starts near
        for name, parameter in made.named_parameters():
            if parameter.dim() == 2 and name.split(".")[2] == "2":
                parameter.mul_(100)
    return made


MAPS = {2: (1, 1, 2), 3: (1, 3, 1), 4: (2, 2, 1)}
"""Sizes of maps."""


def convolutional(size=SIZE, bins=None, transforms=4, shape=None):
    torch.manual_seed(0)
    made = ConvFlow(shape or MAPS[size], transforms, [16, 16], bins).double()
    with torch.no_grad():  # far from the identity, which it starts near
        for network in made.networks:
            network[-1].weight.mul_(40)
        for constants in made.constants:
            constants.add_(0.3 * torch.randn_like(constants))
    return made


def planar(size=SIZE, batch=(BATCH,)):
    return Planar(*(2 * numbers((*batch, n), 3, key) for key, n in enumerate((size, size, 1))))


def sylvester(size=SIZE, batch=(BATCH,)):
    triangle = size * (size + 1) // 2
    first, second, b = (numbers((*batch, n), 4, key) for key, n in enumerate((triangle, triangle, size)))
    return Sylvester(numbers((*batch, 3, size), 5), first, second, b)


def scale(size=SIZE, batch=(BATCH,)):
    return Scale(numbers((*batch, size), 6, 0), numbers((*batch, size), 6, 1))


KINDS = {
    "planar": planar,
    "sylvester": sylvester,
    "scale": scale,
    "chain": lambda size=SIZE: Chain([scale(size), planar(size), sylvester(size)]),
    "maf": lambda size=SIZE: masked(size)(),
    "iaf": lambda size=SIZE: masked(size, 3)(numbers((BATCH, 3), 7)),
    "realnvp": lambda size=SIZE: masked(size, coupling=True, transforms=3)(),
    "spline": lambda size=SIZE: masked(size, bins=5)(),
    "realnvp of maps": lambda size=SIZE: convolutional(size)(),
    "spline of maps": lambda size=SIZE: convolutional(size, bins=5, transforms=3)(),
    "spline with a context": lambda size=SIZE: masked(size, 3, bins=2)(numbers((BATCH, 3), 7)),
    "reversed": lambda size=SIZE: Reversed(masked(size, 3)(numbers((BATCH, 3), 7))),
}
COUPLINGS = ("realnvp", "realnvp of maps", "spline of maps")
INVERTIBLE = [name for name in KINDS if name not in ("planar", "sylvester", "chain")]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_the_log_determinant_is_that_of_autograd(kind, size):
    if kind in COUPLINGS and size == 1:
        return
    flow, z = KINDS[kind](size), 2 * numbers((BATCH, size), 1)
    _, log_det = flow.forward(z)
    whole = jacobian(lambda z: flow.forward(z)[0], z)
    expected = torch.stack([torch.linalg.slogdet(whole[i, :, i]).logabsdet for i in range(BATCH)])
    assert log_det.shape == (BATCH,)
    assert torch.allclose(log_det, expected, rtol=1e-9, atol=1e-9)
    assert expected.abs().max() > 0.05  # not the identity


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", INVERTIBLE)
def test_flows_invert(kind, size):
    if kind in COUPLINGS and size == 1:
        return
    flow, z = KINDS[kind](size), 3 * numbers((6, BATCH, size), 1)
    y, log_det = flow.forward(z)
    back, log_back = flow.inverse(y)
    assert torch.allclose(back, z, rtol=0, atol=1e-9)
    assert torch.allclose(log_back, -log_det, rtol=0, atol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_values_broadcast_against_the_parameters(kind):
    flow, z = KINDS[kind](), numbers((SIZE,), 1)
    y, log_det = flow.forward(z)
    whole, log_whole = flow.forward(z.expand(BATCH, SIZE))
    assert torch.allclose(y.expand(BATCH, SIZE), whole)
    assert torch.allclose(log_det.expand(BATCH), log_whole)


@pytest.mark.parametrize("kind", KINDS)
def test_held_parameters_get_no_gradient(kind):
    flow = KINDS[kind]().detach()
    z = numbers((BATCH, SIZE), 1).requires_grad_()
    assert not any(t.requires_grad for t in flow.forward(z.detach()))
    y, log_det = flow.forward(z)
    (gradient,) = torch.autograd.grad(y.sum() + log_det.sum(), z)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("kind", ["planar", "sylvester"])
def test_flows_without_an_inverse_say_so(kind):
    with pytest.raises(NotImplementedError, match="at its own samples"):
        KINDS[kind]().inverse(numbers((BATCH, SIZE), 1))


@pytest.mark.parametrize("kind", ["planar", "sylvester"])
def test_flows_stay_invertible_with_extreme_parameters(kind):
    """A map of the line is invertible where it rises: for D = 1 the derivative must be positive."""
    line = torch.linspace(-20, 20, 2001, dtype=torch.float64)[:, None, None]
    big = 50.0
    if kind == "planar":
        flow = Planar(*(big * numbers((40, n), 8, key) for key, n in enumerate((1, 1, 1))))
    else:
        flow = Sylvester(numbers((40, 1, 1), 9), *(big * numbers((40, 1), 9, key) for key in (1, 2, 3)))
    y, log_det = flow.forward(line.expand(-1, 40, 1))
    assert (y[1:] >= y[:-1] - 1e-6).all()
    assert log_det.isfinite().all()


def test_householder_products_are_orthogonal():
    flow = sylvester()
    identity = torch.eye(SIZE, dtype=torch.float64)[:, None].expand(-1, BATCH, -1)
    turned = flow._reflect(identity, range(3)).transpose(0, 1)
    assert torch.allclose(turned @ turned.mT, torch.eye(SIZE, dtype=torch.float64).expand(BATCH, -1, -1), atol=1e-6)
    back = flow._reflect(flow._reflect(identity, range(3)), reversed(range(3)))
    assert torch.allclose(back, identity, atol=1e-6)


@pytest.mark.parametrize(("bins", "coupling"), [(None, False), (None, True), (5, False)])
def test_new_flows_are_near_the_identity_and_all_their_parameters_are_reached(bins, coupling):
    torch.manual_seed(0)
    made = MaskedFlow(SIZE, 2, 2, [16, 16], bins, coupling)
    z = numbers((50, SIZE), 1).float()
    y, log_det = made(torch.randn(50, 2)).forward(z)
    assert (y - z).abs().max() < 0.2
    (y.square().sum() + log_det.sum()).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("make", [masked, convolutional])
def test_a_flow_keeps_its_precision_under_autocast(make):
    flow, z = make().float()(), numbers((BATCH, SIZE), 1).float()
    alone = flow.forward(z)
    with torch.autocast("cpu", torch.bfloat16):
        found = flow.forward(z)
    assert all(torch.equal(a, b) for a, b in zip(alone, found, strict=True))


def test_masks_are_neither_saved_nor_whole_numbers():
    made = MaskedFlow(SIZE, 2, 2, [16, 16], None, False)
    assert all(name.endswith(("weight", "bias")) for name in made.state_dict())
    assert all(buffer.is_floating_point() for buffer in made.buffers())


def test_a_masked_flow_is_made_on_the_meta_device_for_checks():
    with torch.device("meta"):
        made = MaskedFlow(SIZE, 0, 2, [16], None, True)
    assert {t.device.type for t in (*made.parameters(), *made.buffers())} == {"meta"}


@pytest.mark.parametrize("bins", [None, 5])
def test_new_flows_of_maps_are_near_the_identity_and_all_their_parameters_are_reached(bins):
    torch.manual_seed(0)
    made = ConvFlow((3, 4, 5), 4, [8], bins)
    z = numbers((20, 60), 1).float()
    y, log_det = made().forward(z)
    assert (y - z).abs().max() < 0.2
    (y.square().sum() + log_det.sum()).backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 2, 2), (4, 1, 1)])
def test_every_element_of_a_map_depends_on_every_other(shape):
    flow, z = convolutional(shape=shape)(), numbers((math.prod(shape),), 1)
    assert (jacobian(lambda z: flow.forward(z)[0], z) != 0).all()


def test_a_flow_of_maps_learns_a_density_of_dependent_neighbours():
    """The best code length of a normal distribution is its entropy."""
    torch.manual_seed(0)
    factor = torch.eye(8) + 0.9 * torch.eye(8).roll(1, 0)
    exact = torch.distributions.MultivariateNormal(torch.zeros(8), factor @ factor.T)
    made = ConvFlow((2, 2, 2), 4, [16], None)
    optimizer = torch.optim.Adam(made.parameters(), 0.02)
    for _ in range(150):
        y, log_det = made().forward(exact.sample((128,)))
        loss = -(torch.distributions.Normal(0, 1).log_prob(y).sum(-1) + log_det).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    z = exact.sample((4000,))
    y, log_det = made().forward(z)
    code = -(torch.distributions.Normal(0, 1).log_prob(y).sum(-1) + log_det)
    independent = torch.distributions.Normal(0, z.std(0)).log_prob(z).sum(-1)
    assert (code + exact.log_prob(z)).mean() < 0.3
    assert (-independent + exact.log_prob(z)).mean() > 1


def test_a_flow_of_maps_has_the_gradients_of_each_when_stacked():
    models = [ConvFlow((2, 3, 3), 2, [8], bins) for bins in (None, None)]
    z = numbers((2, 5, 18), 1).float()

    def loss(parameters, buffers, z):
        y, log_det = functional_call(models[0], (parameters, buffers), ()).forward(z)
        return (y.square().sum(-1) - log_det).sum()

    stacked = vmap(grad(loss))(*stack_module_state(models), z)
    for i, model in enumerate(models):
        y, log_det = model().forward(z[i])
        (y.square().sum(-1) - log_det).sum().backward()
        for name, parameter in model.named_parameters():
            assert torch.allclose(stacked[name][i], parameter.grad, atol=1e-4, rtol=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("bins", [None, 5])
def test_a_flow_of_maps_compiles_to_one_graph(bins):
    made, z = ConvFlow((2, 3, 3), 2, [8], bins), numbers((5, 18), 1).float()

    def loss(z):
        y, log_det = made().forward(z)
        return (y.square().sum(-1) - log_det).sum()

    torch.compiler.reset()
    eager, fast = loss(z), torch.compile(loss, fullgraph=True)(z)
    assert fast.item() == pytest.approx(eager.item(), rel=1e-5)
    parameters = list(made.parameters())
    expected, found = torch.autograd.grad(eager, parameters), torch.autograd.grad(fast, parameters)
    assert all(torch.allclose(a, b, atol=1e-4, rtol=1e-4) for a, b in zip(expected, found, strict=True))


def test_what_a_flow_of_maps_cannot_be():
    with pytest.raises(ValueError, match="need at least 2 latents"):
        ConvFlow((1, 1, 1), 2, [8], None)
    with pytest.raises(ValueError, match="at least 2"):
        ConvFlow((1, 2, 2), 2, [8], 1)


def test_what_a_masked_flow_cannot_be():
    with pytest.raises(ValueError, match="need at least 2 latents"):
        MaskedFlow(1, 0, 2, [16], None, coupling=True)
    with pytest.raises(ValueError, match="at least 2"):
        MaskedFlow(2, 0, 2, [16], 1, coupling=False)


def plane(reach, count):
    axis = torch.linspace(-reach, reach, count, dtype=torch.float64)
    return axis, torch.cartesian_prod(axis, axis)


def total(log_density, axis):
    density = log_density.exp().view(len(axis), len(axis))
    return torch.trapezoid(torch.trapezoid(density, axis), axis)


@pytest.mark.parametrize("kind", ["maf", "realnvp", "spline", "reversed"])
def test_densities_of_flows_integrate_to_1(kind):
    axis, points = plane(16, 501)
    base = Normal(torch.zeros(2).double(), torch.zeros(2).double())
    flow = KINDS["maf"](2) if kind == "reversed" else Reversed(KINDS[kind](2))
    with torch.no_grad():
        assert total(Transformed(base, flow).log_prob(points), axis).item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("kind", ["realnvp of maps", "spline of maps"])
def test_densities_of_flows_of_maps_integrate_to_1(kind):
    axis, points = plane(10, 201)
    base = Normal(torch.zeros(2).double(), torch.zeros(2).double())
    with torch.no_grad():
        log_density = Transformed(base, Reversed(KINDS[kind](2))).log_prob(points)
    assert total(log_density, axis).item() == pytest.approx(1, abs=5e-4)
    assert (log_density - base.log_prob(points)).abs().max() > 1  # not the identity


@pytest.mark.parametrize("kind", ["maf", "spline", "planar", "sylvester", "chain", *COUPLINGS])
def test_draws_come_with_their_density(kind):
    flow = KINDS[kind]()
    found = Transformed(Normal(numbers((BATCH, SIZE), 2), 0.3 * numbers((BATCH, SIZE), 3)), flow)
    z, log_q = found.rsample_and_log_prob(Rng(0, "x"), 4)
    assert torch.equal(z, found.sample(Rng(0, "x"), 4))
    if kind in INVERTIBLE:
        assert torch.allclose(log_q, found.log_prob(z), rtol=0, atol=1e-8)
    base = found.base.sample(Rng(0, "x"), 4)
    assert torch.allclose(log_q, found.base.log_prob(base) - flow.forward(base)[1])


@pytest.mark.parametrize("kind", ["planar", "sylvester"])
def test_densities_of_draws_are_normalised_where_there_is_no_inverse(kind):
    """E_q[g(z) / q(z)] is the integral of g, 1 for a normal density g that is narrower than q."""
    flow = KINDS[kind](2, (1,))
    found = Transformed(Normal(torch.zeros(1, 2).double(), torch.ones(1, 2).double()), flow)
    z, log_q = found.rsample_and_log_prob(Rng(0, "x"), 200_000)
    center = found.mean
    weight = (Normal(center, torch.zeros(1, 2).double()).log_prob(z) - log_q).exp()[:, 0]
    error = weight.std() / math.sqrt(len(weight))
    assert error < 0.05
    assert abs(weight.mean() - 1) < 5 * error


def test_some_elements_cannot_be_left_out():
    found = Transformed(Normal(torch.zeros(SIZE).double(), torch.zeros(SIZE).double()), KINDS["maf"]())
    mask = torch.ones(SIZE, dtype=torch.bool)
    for q in (found, MultivariateNormal(torch.zeros(2), torch.eye(2))):
        with pytest.raises(NotImplementedError, match="not independent"):
            q.log_prob(torch.zeros(q.event_shape), mask[: q.event_shape[0]])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_value_has_its_place_in_a_triangle(size):
    values = torch.arange(1.0, 1 + size * (size + 1) // 2)
    found = lower_triangle(values, size)
    assert torch.equal(found, found.tril())
    assert torch.equal(found[found > 0].sort().values, values)


def dependent(kind, batch=(3, BATCH)):
    if kind is MultivariateNormal:
        free = numbers((*batch, SIZE, SIZE), 1)
        factor = free.tril(-1) + torch.diag_embed(free.diagonal(dim1=-2, dim2=-1).exp())
        return MultivariateNormal(numbers((*batch, SIZE), 2), factor), factor @ factor.mT
    log_scale, directions = 0.5 * numbers((*batch, SIZE), 1), numbers((*batch, SIZE, 2), 3)
    found = LowRankNormal(numbers((*batch, SIZE), 2), log_scale, directions)
    return found, torch.diag_embed(torch.exp(2 * log_scale)) + directions @ directions.mT


@pytest.mark.parametrize("kind", [MultivariateNormal, LowRankNormal])
def test_normals_with_dependent_elements_equal_torch(kind):
    found, covariance = dependent(kind)
    theirs = torch.distributions.MultivariateNormal(found.mean, covariance)
    x = numbers((7, 3, BATCH, SIZE), 5)
    assert torch.allclose(found.log_prob(x), theirs.log_prob(x), rtol=0, atol=1e-9)
    assert torch.allclose(found.variance, theirs.variance, rtol=0, atol=1e-12)
    scale = torch.full((SIZE,), 2.0, dtype=torch.float64)
    other = torch.distributions.MultivariateNormal(torch.ones_like(scale), torch.diag(scale**2))
    expected = torch.distributions.kl_divergence(theirs, other)
    assert torch.allclose(kl(found, Normal(torch.ones_like(scale), scale.log())), expected, rtol=0, atol=1e-9)
    samples = found.sample(Rng(0, "x"), 40_000)[:, 0, 0]
    assert torch.allclose(torch.cov(samples.T), covariance[0, 0], rtol=0.05, atol=0.1 * covariance[0, 0].max())


def test_a_normal_scores_its_own_draws_without_solving():
    found, _ = dependent(MultivariateNormal)
    z, log_q = found.rsample_and_log_prob(Rng(0, "x"), 2)
    assert torch.equal(z, found.sample(Rng(0, "x"), 2))
    assert torch.allclose(log_q, found.log_prob(z), rtol=0, atol=1e-9)
