from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.support import build, compose, load, schema_errors
from vae_train.batch import SPLITS
from vae_train.data.sources.shapes import MAX_PERMUTED, Shapes, square_root
from vae_train.data.storage.loader import Loader
from vae_train.data.stream import evaluation_batches
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

KNOBS = {
    "size": 16,
    "channels": 1,
    "shapes": 4,
    "hues": 3,
    "scales": 2,
    "orientations": 5,
    "positions": 4,
    "num_train": 90,
    "num_valid": 30,
    "num_test": 40,
    "binarize": "none",
}
BINARIZE = pytest.mark.parametrize("binarize", ["none", "dynamic", "threshold"])
CHANNELS = pytest.mark.parametrize("channels", [1, 3])
SIZES = pytest.mark.parametrize("size", [8, 23, 64, 100])
FORMS = ("square", "ellipse", "heart", "triangle")


def shapes(**changes):
    return Shapes(**KNOBS | changes)


def all_of(**changes):
    """The images `(N, C, H, W)` of all combinations of factors in the order of their table, and the values there."""
    changes = {"num_train": 1, "num_valid": 0, "num_test": 0, **changes}
    factors = shapes(**changes).inspect().factors
    count = math.prod(factor.size for factor in factors)
    data = shapes(**changes | {"num_train": count})
    images = data.read().splits["train"]
    order = np.lexsort(images.labels.numpy().T[::-1])
    labels = images.labels[order]
    values = {f.name: [f.values[k] for k in labels[:, column]] for column, f in enumerate(factors)}
    return images.pixels[order].double() / 255, values


def test_the_facts_and_the_sizes_of_the_splits():
    data = load(shapes(channels=3))
    assert (data.facts.data_shape, data.facts.levels, data.facts.classes, data.facts.num_train) == (
        (3, 16, 16),
        256,
        None,
        90,
    )
    assert [len(data.split(name)) for name in SPLITS] == [90, 30, 40]
    assert [factor.name for factor in data.facts.factors] == ["shape", "hue", "scale", "orientation", "x", "y"]
    assert [factor.size for factor in data.facts.factors] == [4, 3, 2, 5, 4, 4]
    assert [factor.name for factor in shapes().inspect().factors] == ["shape", "scale", "orientation", "x", "y"]
    assert data.facts.factors[0].values == FORMS
    assert data.facts.factors[1].values == (0, 120, 240)
    assert all(len(factor.values) == factor.size for factor in data.facts.factors)


@CHANNELS
def test_labels_are_values_of_the_factors_and_all_of_them_occur(channels):
    data = load(shapes(channels=channels))
    labels = torch.cat([data.split(name).stored.labels for name in SPLITS])
    assert labels.dtype == torch.int64
    assert [sorted(set(column.tolist())) for column in labels.T] == [list(range(f.size)) for f in data.facts.factors]


@pytest.mark.parametrize("knobs", [{}, {"positions": 256, "orientations": 360, "scales": 7}])
def test_no_combination_is_drawn_twice(knobs):
    data = shapes(**knobs)
    assert (math.prod(f.size for f in data.inspect().factors) > MAX_PERMUTED) == bool(knobs)
    labels = [tuple(row) for images in data.read().splits.values() for row in images.labels.tolist()]
    assert len(set(labels)) == len(labels) == 160


def test_all_combinations_can_be_asked_for():
    data = load(shapes(num_train=570))
    assert len({tuple(row) for name in SPLITS for row in data.split(name).stored.labels.tolist()}) == 640


@pytest.mark.parametrize("knobs", [{}, {"positions": 256, "orientations": 360, "scales": 7}])
def test_more_training_images_leave_the_others_as_they_are(knobs):
    few, many = shapes(**knobs).read().splits, shapes(**knobs, num_train=300).read().splits
    assert torch.equal(many["train"].labels[:90], few["train"].labels)
    assert all(torch.equal(many[name].labels, few[name].labels) for name in ("valid", "test"))


@BINARIZE
def test_loading_twice_gives_the_same_data(binarize):
    first, second = (load(shapes(binarize=binarize, channels=3)) for _ in range(2))
    assert first.checksum == second.checksum
    assert all(torch.equal(first.split(name).stored.pixels, second.split(name).stored.pixels) for name in SPLITS)


def test_roots_are_rounded_in_one_way_on_every_processor():
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 3
    assert torch.equal(square_root(x), torch.from_numpy(np.sqrt(x.numpy())))


def test_the_checksum_depends_on_what_is_rendered():
    others = [{"binarize": "dynamic"}, {"binarize": "threshold"}, {"channels": 3}, {"orientations": 6}]
    assert len({load(shapes(**knobs)).checksum for knobs in [{}, *others]}) == 5


@pytest.mark.parametrize("size", [8, 30, 64, 256])
@CHANNELS
def test_an_image_is_the_same_whatever_it_is_asked_with(size, channels):
    store = shapes(size=size, channels=channels, num_train=40).read().splits["train"].store
    everything = store.take(torch.arange(40))
    assert everything.dtype == torch.uint8
    assert torch.equal(torch.cat([store.take(torch.tensor([k])) for k in range(40)]), everything)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat([store.take(part) for part in order.split(7)]), everything[order])
    assert torch.equal(store.take(torch.tensor([3, 3])), everything[[3, 3]])


@CHANNELS
def test_rendering_waits_for_nothing(channels):
    """Tensors without values have nothing to read on the host."""
    store = shapes(channels=channels).read().splits["train"].store.on(torch.device("meta"))
    assert store.device.type == "meta"
    found = store.take(torch.arange(12, device="meta"))
    assert (found.device.type, tuple(found.shape), found.dtype) == ("meta", (12, channels, 16, 16), torch.uint8)


@SIZES
def test_a_form_covers_its_area(size):
    """To 1.5 %: at 45° the shares of the pixels along an edge do not add up to it exactly."""
    images, values = all_of(size=size, positions=2, orientations=8, scales=3)
    areas = size**2 * torch.tensor(values["scale"], dtype=torch.float64) ** 2
    assert (images.sum((1, 2, 3)) / areas - 1).abs().max() < 0.015


@SIZES
def test_the_centre_of_mass_is_the_position(size):
    """To a tenth of a pixel. So a step of x or y moves it by the difference of the two values."""
    images, values = all_of(size=size, positions=3)
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    mass = images[:, 0] / images.sum((1, 2, 3))[:, None, None]
    for name, along in (("x", 1), ("y", 2)):
        found = (mass.sum(along) * centers).sum(1)
        assert (found - torch.tensor(values[name], dtype=torch.float64)).abs().max() < 0.1 / size


@pytest.mark.parametrize("size", [64, 100, 256])
def test_no_form_reaches_the_border(size):
    """(A coarser image is the average of one with 64 pixels or more.)"""
    images, _ = all_of(size=size, scales=1 if size == 256 else 2, positions=2, orientations=24)
    outermost = F.pad(torch.zeros(size - 2, size - 2, dtype=torch.bool), (1, 1, 1, 1), value=True)
    assert images[:, 0, outermost].max() < 0.02


def test_edges_are_grey_and_inside_and_outside_are_not():
    images, _ = all_of(size=64)
    grey = ((images > 0) & (images < 1)).sum((1, 2, 3))
    assert (grey > 15).all()
    assert (grey < 120).all()
    assert (images == 1).flatten(1).any(1).all()
    assert len(images.unique()) > 200


@SIZES
def test_an_upright_square_is_the_product_of_two_intervals(size):
    """Every pixel is exactly the share that the square covers."""
    images, values = all_of(shapes=1, orientations=1, size=size, positions=3, scales=3)
    edges = torch.arange(size + 1, dtype=torch.float64) / size
    for image, x, y, scale in zip(images[:, 0], values["x"], values["y"], values["scale"], strict=True):
        across, down = ((edges.clamp(c - scale / 2, c + scale / 2).diff() * size) for c in (x, y))
        assert (image - down[:, None] * across).abs().max() < 0.6 / 255


def test_forms_have_their_symmetries():
    """At half of its turn, or a quarter of the heart's, every form is the upright one, mirrored or turned."""
    images, values = all_of(size=33, positions=1, scales=1, orientations=4)
    found = dict(zip(zip(values["shape"], values["orientation"], strict=True), images[:, 0], strict=True))
    upright = {name: found[name, 0.0] for name in FORMS}
    for image in upright.values():
        assert torch.allclose(image, image.flip(1), atol=1.01 / 255)
    expected = {
        ("heart", 0.25): upright["heart"].rot90(1),  # counter-clockwise
        ("heart", 0.5): upright["heart"].rot90(2),
        ("heart", 0.75): upright["heart"].rot90(3),
        ("ellipse", 0.5): upright["ellipse"].rot90(1),
        ("ellipse", 0.75): found["ellipse", 0.25].flip(1),
        ("triangle", 0.5): upright["triangle"].flip(0),
        ("triangle", 0.75): found["triangle", 0.25].flip(1),
        ("square", 0.75): found["square", 0.25].flip(1),
    }
    for key, image in expected.items():
        assert torch.allclose(found[key], image, atol=1.01 / 255), key


def test_the_heart_and_the_triangle_stand_upright():
    images, values = all_of(size=64, positions=1, scales=1, orientations=1)
    found = dict(zip(values["shape"], images[:, 0], strict=True))
    widths = {name: (image > 0.5).sum(1) for name, image in found.items()}
    assert widths["heart"][:32].sum() > 1.1 * widths["heart"][32:].sum()
    assert widths["heart"].argmax() < 32 < widths["triangle"].argmax()
    lengths = (found["ellipse"] > 0.5).sum(1).max(), (found["ellipse"] > 0.5).sum(0).max()
    assert lengths[0] / lengths[1] == pytest.approx(1.6, rel=0.05)


def test_no_two_combinations_are_the_same_image():
    images, _ = all_of(size=64, orientations=40, positions=2, scales=3)
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 1920


def test_a_hue_changes_the_colour_and_nothing_else():
    """The largest channel is the white form; the others are a constant share of it."""
    grey, _ = all_of(size=32)
    colored, values = all_of(size=32, channels=3)
    hues = torch.tensor(values["hue"])
    for hue in hues.unique():
        images = colored[hues == hue]
        assert torch.equal(images.amax(1), grey[:, 0])
        share = images.amax((0, 2, 3))
        assert (images - share[:, None, None] * grey).abs().max() < 1.5 / 255
    assert len({tuple(colored[hues == hue].amax((0, 2, 3)).tolist()) for hue in hues.unique()}) == 3


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
def test_a_coarse_image_is_the_average_of_a_fine_one(size):
    images, fine = (shapes(size=s, num_train=20, num_valid=0, num_test=0).read().splits["train"] for s in (size, 256))
    assert torch.equal(images.labels, fine.labels)
    difference = F.avg_pool2d(fine.pixels.double(), 256 // size) - images.pixels.double()
    assert difference.abs().mean() / 255 < 0.001
    assert difference.abs().max() / 255 < 0.12
    assert fine.pixels.float().mean() / 255 > 0.03


def test_one_value_is_the_middle():
    data = shapes(positions=1, scales=1, orientations=1, num_train=4, num_valid=0, num_test=0)
    assert [factor.values for factor in data.inspect().factors[1:]] == [
        pytest.approx((v,)) for v in (0.24, 0, 0.5, 0.5)
    ]
    assert list(data.read().splits) == ["train"]


@CHANNELS
@BINARIZE
def test_values_are_levels_between_0_and_1(binarize, channels):
    data = load(shapes(binarize=binarize, channels=channels))
    for name in SPLITS:
        batch = data.split(name).fetch(torch.arange(30), Rng(0, "data", 0))
        steps = batch.x.double() * (data.facts.levels - 1)
        assert (batch.x.dtype, batch.x.shape, batch.y.shape) == (
            torch.float32,
            (30, *data.facts.data_shape),
            (30, 4 + channels // 2 + 1),
        )
        assert (steps - steps.round()).abs().max() < 1e-4
        assert (batch.x.min(), batch.x.max()) == (0, 1)
        assert (data.facts.levels == 2) == (len(batch.x.unique()) == 2)


def test_threshold_cuts_at_one_half():
    grey, bits = load(shapes(channels=3)), load(shapes(channels=3, binarize="threshold"))
    for name in SPLITS:
        assert torch.equal(bits.split(name).stored.pixels, (grey.split(name).stored.pixels >= 128).to(torch.uint8))


def test_dynamic_training_bits_change_and_evaluation_bits_do_not():
    data, grey = load(shapes(binarize="dynamic")), load(shapes())
    index = torch.arange(30)
    first, second = (data.split("train").fetch(index, Rng(0, "data", step)).x for step in (0, 1))
    assert not torch.equal(first, second)
    for name in ("valid", "test"):
        split = data.split(name)
        bits = split.fetch(index).x
        assert torch.equal(bits, split.fetch(index, Rng(0, "data", 1)).x)
        share = grey.split(name).fetch(index).x
        assert (bits[share == 0] == 0).all()
        assert (bits[share == 1] == 1).all()
        assert abs((bits - share).sum()) < 4 * (share * (1 - share)).sum().sqrt()


@BINARIZE
def test_stored_and_rendered_on_the_fly_are_the_same(binarize):
    kept = load(shapes(binarize=binarize))
    drawn = load(shapes(binarize=binarize), loader=Loader("host", None, 2, 2))
    assert kept.checksum == drawn.checksum
    for name in SPLITS:
        assert kept.split(name).resident
        assert drawn.split(name).resident
        batches = [list(evaluation_batches(data.split(name), 32)) for data in (kept, drawn)]
        for (_, one), (_, other) in zip(*batches, strict=True):
            assert torch.equal(one.x, other.x)
            assert torch.equal(one.y, other.y)


def test_more_images_than_combinations_are_refused():
    assert shapes(num_train=570).inspect().num_train == 570
    with pytest.raises(ValueError, match=r"641 images exceed the 640 combinations of the factors"):
        shapes(num_train=571)
    with pytest.raises(UsageError, match=r"1,000,000.*737,280"):
        build(compose("data=shapes", "data.num_train=998000").data)


@pytest.mark.parametrize(
    "knob", ["size=7", "size=257", "channels=2", "shapes=5", "scales=0", "positions=0", "num_train=0", "binarize=maybe"]
)
def test_what_cannot_be_is_refused(knob):
    found = schema_errors(compose("data=shapes", f"data.{knob}"))
    assert [mistake.where for mistake in found] == [f"data.{knob.split('=')[0]}"]


@BINARIZE
def test_the_yaml_is_built(binarize):
    cfg = compose("data=shapes", f"data.binarize={binarize}", "data.num_train=50", "data.num_valid=9", "data.size=24")
    data = load(build(cfg.data))
    assert math.prod(factor.size for factor in data.facts.factors) == 737_280  # those of dSprites
    assert data.split("train").resident
    assert data.training().fetch(torch.arange(5), Rng(0, "data", 0)).x.shape == (5, 1, 24, 24)
