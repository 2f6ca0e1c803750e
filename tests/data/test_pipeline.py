"""From stored pixels to batches: augmentation, corruption, preprocessing, and where pixels are kept."""

from __future__ import annotations

import math
import multiprocessing
import pickle
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import build, compose, load, tensor_images
from vae_train.batch import Batch, Units
from vae_train.data.dataset import TransformedImages, Transforms
from vae_train.data.sources.digits import Digits
from vae_train.data.storage.loader import DEFAULT_LOADER, GIB, Loader
from vae_train.data.storage.stored import ArrayStore, TensorStore
from vae_train.data.stream import Stream, evaluation_batches
from vae_train.distributions.normal import Normal
from vae_train.model.trace import Trace
from vae_train.rng import BlockRng, Rng, Rows, generator
from vae_train.util.errors import RunError

CPU = torch.device("cpu")
OFF = {
    "augmentation": [False, 0, 0.0, 0.0, 0.0, 0.0, "zeros"],
    "corruption": [0.0, 0.0, 1, "observed"],
    "preprocessing": [False, None, None, None],
}


def part(place, **knobs):
    """An augmentation, corruption or preprocessing with some knobs of its YAML changed."""
    node = compose()[place]
    assert [v for k, v in node.items() if k != "_target_"] == OFF[place], "off until asked for"
    node.update(knobs)
    return build(node)


def smooth(count=64, channels=3, height=16, width=16):
    """Images without fine structure."""
    coarse = torch.rand(count, channels, 4, 4, generator=generator(0, "images"))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def numbered(count, levels=256, **transforms):
    pixels = torch.randint(levels, (count, 1, 3, 4), dtype=torch.uint8, generator=generator(1, "pixels"))
    return tensor_images(pixels, levels, torch.arange(count)[:, None], **transforms)


# Augmentation

AUGMENTATIONS = {
    "flip": {"flip": True},
    "crop": {"crop": 3},
    "repeated edge": {"crop": 3, "edge": "repeat"},
    "rotation": {"rotation": 30.0},
    "translation": {"translation": 0.2},
    "brightness": {"brightness": 0.4},
    "contrast": {"contrast": 0.4},
}


@pytest.mark.parametrize("knobs", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_an_augmentation_is_a_function_of_the_draw_and_stays_in_range(knobs):
    augment, x = part("augmentation", **knobs), smooth()
    first, again, other = (augment(x, Rng(0, "data", step)) for step in (1, 1, 2))
    assert augment.active
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, x)
    assert first.shape == x.shape
    assert -1e-6 <= first.min() <= first.max() <= 1 + 1e-6


def test_nothing_is_done_until_it_is_asked_for():
    x = smooth()
    assert part("augmentation")(x, None) is x
    assert not any(part(place).active for place in OFF)


def test_a_flip_mirrors_half_of_the_images():
    x = smooth(1000, 1, 4, 5)
    found = part("augmentation", flip=True)(x, Rng(0, "data", 0))
    mirrored = (found == x.flip(-1)).flatten(1).all(1)
    assert ((found == x).flatten(1).all(1) | mirrored).all()
    assert 400 < mirrored.sum() < 600


@pytest.mark.parametrize("edge", ["zeros", "repeat"])
def test_a_crop_is_a_window_of_the_padded_image(edge):
    x = smooth(400, 2, 5, 6)
    found = part("augmentation", crop=2, edge=edge)(x, Rng(0, "data", 0))
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="constant" if edge == "zeros" else "replicate")
    corners = set()
    for image, frame in zip(found, padded, strict=True):
        fits = [(i, j) for i in range(5) for j in range(5) if torch.equal(frame[:, i : i + 5, j : j + 6], image)]
        assert fits
        corners.update(fits)
    assert len(corners) == 25


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 48)])
def test_a_rotation_keeps_lengths(height, width):
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    disc = (8.5 - ((y - height / 2) ** 2 + (x - width / 2) ** 2).sqrt()).clamp(0, 1).expand(50, 1, -1, -1)
    found = part("augmentation", rotation=180.0)(disc, Rng(0, "data", 0))
    assert (found - disc).abs().mean() < 0.01
    bar = ((y - height / 2).abs() < 1.5).float().expand(50, 1, -1, -1)
    turned = part("augmentation", rotation=180.0)(bar, Rng(0, "data", 0))
    assert (turned - bar).abs().mean() > 0.02


def test_rotations_reach_their_angle_and_no_further():
    """A point on the x axis moves to the angle by which the image was turned."""
    size, radius = 64, 24
    y, x = torch.meshgrid(torch.arange(size) + 0.5 - 32, torch.arange(size) + 0.5 - 32, indexing="ij")
    dot = (3 - ((x - radius) ** 2 + y**2).sqrt()).clamp(0, 1).expand(300, 1, -1, -1)
    found = part("augmentation", rotation=25.0)(dot, Rng(0, "data", 0))[:, 0]
    total = found.sum((1, 2))
    angle = torch.atan2((found * y).sum((1, 2)) / total, (found * x).sum((1, 2)) / total) * 180 / math.pi
    assert 24 < angle.max() <= 25.2
    assert -25.2 <= angle.min() < -24
    assert abs(float(angle.mean())) < 3


def test_translations_move_the_centre_by_their_share_of_the_side():
    y, x = torch.meshgrid(torch.arange(40) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    dot = (4 - ((x - 40) ** 2 + (y - 20) ** 2).sqrt()).clamp(0, 1).expand(500, 1, -1, -1)
    found = part("augmentation", translation=0.1)(dot, Rng(0, "data", 0))[:, 0]
    total = found.sum((1, 2))
    across = (found * x).sum((1, 2)) / total - 40
    down = (found * y).sum((1, 2)) / total - 20
    assert 7.8 < across.abs().max() <= 8.05
    assert 3.9 < down.abs().max() <= 4.05


def test_brightness_and_contrast_are_factors():
    x = 0.4 + 0.2 * smooth(200, 1, 4, 4)
    brighter = part("augmentation", brightness=0.3)(x, Rng(0, "data", 0)) / x
    factors = brighter.flatten(1)
    assert torch.allclose(factors, factors[:, :1].expand_as(factors), atol=1e-5)
    assert 0.7 <= factors.min() < 0.72
    assert 1.28 < factors.max() <= 1.3
    contrasted = part("augmentation", contrast=0.3)(x, Rng(0, "data", 0))
    assert torch.allclose(contrasted.mean((1, 2, 3)), x.mean((1, 2, 3)), atol=1e-6)
    spread = contrasted.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.7 - 1e-4 <= spread.min() < 0.75 < 1.25 < spread.max() <= 1.3 + 1e-4


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_augmented_pixels_stay_on_their_levels(levels):
    images = numbered(50, levels, augmentation=part("augmentation", rotation=40.0))
    grid = images.fetch(torch.arange(50), Rng(0, "data", 0)).x * (levels - 1)
    assert torch.allclose(grid, grid.round(), atol=1e-4)


def test_augmented_grey_values_are_what_bits_are_drawn_from():
    pixels = torch.full((100, 1, 8, 8), 255, dtype=torch.uint8)
    augmented = tensor_images(pixels, 256, None, True, augmentation=part("augmentation", brightness=1.0))
    x = augmented.fetch(torch.arange(100), Rng(0, "data", 0)).x
    assert set(x.unique().tolist()) == {0.0, 1.0}


def test_training_alone_is_augmented_and_evaluation_alone_is_not():
    transforms = Transforms(part("augmentation", flip=True), part("corruption", mask=0.5))
    data, index = load(Digits("dynamic"), transforms=transforms), torch.arange(20)
    rng = Rng(0, "data", 0)
    assert data.training().fetch(index, rng).encoder_input is not None
    for name in ("train", "valid", "test"):
        assert data.split(name).fetch(index, rng).encoder_input is None
    assert data.preview().fetch(index, rng).encoder_input is not None


# Corruption


def test_noise_is_what_the_encoder_sees_and_the_target_is_clean():
    images, noisy = numbered(400), numbered(400, corruption=part("corruption", noise=0.25))
    batch, clean = noisy.fetch(torch.arange(400), Rng(0, "data", 0)), images.fetch(torch.arange(400))
    assert torch.equal(batch.x, clean.x)
    assert batch.mask is None
    noise = batch.encoder_input - batch.x
    assert noise.std() == pytest.approx(0.25, rel=0.05)
    assert abs(float(noise.mean())) < 0.02


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("score", ["observed", "all"])
def test_hidden_pixels_are_zero_to_the_encoder_and_missing_to_the_likelihood(patch, score):
    x = 0.5 + 0.4 * smooth(500, 3, 8, 9)
    corruption = part("corruption", mask=0.3, patch=patch, score=score)
    images = tensor_images(x, None, corruption=corruption)
    batch = images.fetch(torch.arange(500), Rng(0, "data", 0))
    hidden = (batch.encoder_input == 0).all(1, keepdim=True)
    assert torch.equal(batch.encoder_input, torch.where(hidden, 0.0, batch.x))
    assert hidden.float().mean() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(batch.x, x)
    assert batch.mask is None if score == "all" else torch.equal(batch.mask, ~hidden)
    squares = hidden[:, 0, : 8 // patch * patch, : 9 // patch * patch].unfold(1, patch, patch).unfold(2, patch, patch)
    assert (squares.flatten(3).all(-1) == squares.flatten(3).any(-1)).all()


def test_missing_pixels_do_not_change_the_likelihood():
    x, other = torch.rand(2, 5, 1, 4, 4).unbind(0)
    mask = torch.rand(5, 1, 4, 4) < 0.5
    px = Normal(torch.zeros(1, 5, 1, 4, 4), torch.zeros(()), 3)
    mixed = torch.where(mask, x, other)
    assert torch.equal(Trace(x, mask, (), px).log_likelihood(), Trace(mixed, mask, (), px).log_likelihood())


def test_everything_hidden_is_refused():
    from vae_train.util.errors import UsageError

    with pytest.raises(UsageError, match="mask=1 would hide every pixel"):
        part("corruption", mask=1.0)


# Preprocessing

PREPROCESSINGS = {
    "dequantized": {"dequantize": True},
    "logit": {"dequantize": True, "logit": 0.05},
    "standardised": {"dequantize": True, "mean": 0.4, "std": 0.3},
    "all": {"dequantize": True, "logit": 1e-6, "mean": [-1.0, 0.0, 2.0], "std": [2.0, 0.5, 3.0]},
}


@pytest.mark.parametrize("knobs", PREPROCESSINGS.values(), ids=PREPROCESSINGS)
def test_a_jacobian_is_autograds(knobs):
    prepare = part("preprocessing", **knobs)
    x = (torch.randint(256, (4, 3, 2, 3), generator=generator(0, "x")) / 255).double()

    def image(flat):
        return prepare(Batch(flat.view(1, 3, 2, 3)), 256, None).x.flatten()

    for number in range(4):
        jacobian = torch.autograd.functional.jacobian(image, x[number].flatten())
        # d v / d x of the dequantisation is (levels - 1) / levels, which belongs to the levels and not to log_det.
        expected = torch.linalg.slogdet(jacobian).logabsdet - 18 * math.log(255 / 256)
        found = prepare(Batch(x[number : number + 1]), 256, None).log_det
        assert float(0 if found is None else found) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("knobs", PREPROCESSINGS.values(), ids=PREPROCESSINGS)
def test_the_inverse_gives_back_the_pixels(knobs):
    prepare = part("preprocessing", **knobs)
    x = torch.randint(256, (8, 3, 4, 4)) / 255
    y = prepare(Batch(x), 256, Rng(0, "data", 0)).x
    back = (prepare.inverse(y) * 256).floor() / 255
    assert ((back - x).abs() < 1e-3).float().mean() > 0.999  # rounding may cross an edge


@pytest.mark.parametrize("knobs", PREPROCESSINGS.values(), ids=PREPROCESSINGS)
def test_bits_per_dimension_are_those_of_the_data(knobs):
    """A uniform density on the unit cube costs log2(levels) bits whatever x is a map of it to."""
    prepare = part("preprocessing", **knobs)
    batch = prepare(Batch(torch.randint(256, (6, 3, 2, 2)) / 255), 256, Rng(0, "data", 0))

    class Pushed(Normal):
        """The uniform density on [0, 1], taken to where x is."""

        def log_prob(self, x, mask=None):
            v = prepare.inverse(x.double()).requires_grad_()
            y = v
            if prepare.logit is not None:
                y = torch.logit(prepare.logit + (1 - 2 * prepare.logit) * v)
            mean, std = (torch.tensor(s).view(1, -1, 1, 1) for s in prepare.channel_scales)
            y = (y - mean) / std
            (slope,) = torch.autograd.grad(y.sum(), v)
            return -slope.abs().log().flatten(1).sum(1)[None]

    px = Pushed(torch.zeros(1, 6, 3, 2, 2), torch.zeros(()), 3)
    trace = Trace(batch.x, None, (), px, batch.log_det, batch.log_bins)
    trace._rate = torch.zeros(6)
    assert torch.allclose(trace.bits_per_dim(), torch.full((6,), 8.0, dtype=torch.float64), atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255), st.floats(0, 1, exclude_max=True, allow_subnormal=False))
def test_dequantisation_stays_within_the_level(level, u):
    class Fixed(Rng):
        def uniform(self, shape, dtype=torch.float32):
            return torch.full(tuple(shape), u)

    prepare = part("preprocessing", dequantize=True)
    x = prepare(Batch(torch.full((1, 1, 1, 1), level / 255)), 256, Fixed(0, "data")).x
    assert level / 256 - 1e-6 <= float(x) <= (level + 1) / 256 + 1e-6


def test_evaluation_dequantises_the_same_way_every_time_and_in_any_batch():
    images = numbered(100, preprocessing=part("preprocessing", dequantize=True))
    whole = torch.cat([batch.x for _, batch in evaluation_batches(images, 100)])
    pieces = torch.cat([batch.x for _, batch in evaluation_batches(images, 7)])
    assert torch.equal(whole, pieces)
    assert not torch.equal(whole, images.fetch(torch.arange(100), BlockRng(1, "data", 0)).x)


def test_hidden_pixels_leave_the_jacobian():
    prepare = part("preprocessing", dequantize=True, logit=0.05)
    x, mask = torch.rand(4, 3, 2, 2), torch.rand(4, 1, 2, 2) < 0.5
    whole = prepare(Batch(x), 256, None)
    visible, rest = (prepare(Batch(x, mask=o), 256, None).log_det for o in (mask, ~mask))
    assert torch.allclose(visible + rest, whole.log_det, atol=1e-4)


@pytest.mark.parametrize(("knobs", "levels", "channels", "why"), [
    ({"logit": 0.1}, 256, 3, "would fit a density to pixels with 256 levels"),
    ({"mean": 0.5}, 256, 3, "would fit a density to pixels with 256 levels"),
    ({"dequantize": True}, None, 1, "cannot dequantise continuous values"),
    ({"dequantize": True, "std": [1.0, 2.0]}, 256, 3, "2 values for std, but the images have 3 channels"),
    ({"mean": 0.5}, None, 3, None),
    ({"dequantize": True}, 2, 1, None),
])  # fmt: skip
def test_what_cannot_be_preprocessed_is_refused(knobs, levels, channels, why):
    refused = part("preprocessing", **knobs).check_compatible(levels, channels)
    assert refused is None if why is None else why in refused.reason


def test_continuous_numbers_keep_their_density():
    """log p of the numbers in the file, computed directly and from x in [0, 1]."""
    v = torch.rand(10, 1, 2, 3) * 7 - 3
    units = Units((), (-3.0,), (7.0,), (-3.0,), (4.0,))
    images = tensor_images(torch.from_numpy(units.to_model(v.numpy())), None, units=units)
    batch = images.fetch(torch.arange(10))
    mean, sd = 1.2, 0.8
    direct = Normal(torch.full((1, 10, 1, 2, 3), mean), torch.tensor(math.log(sd)), 3).log_prob(v)
    scaled = Normal(torch.full((1, 10, 1, 2, 3), (mean + 3) / 7), torch.tensor(math.log(sd / 7)), 3)
    found = Trace(batch.x, None, (), scaled, batch.log_det).log_likelihood()
    assert torch.allclose(found, direct, atol=1e-4)


# Where pixels are kept


def hosted(count=40, mapped=None):
    """The images of `numbered`, in an array of the host."""
    stored = numbered(count).stored
    return replace(stored, store=ArrayStore(stored.pixels.numpy(), mapped=mapped))


def streamed(stored, workers):
    return TransformedImages(stored.streamed_to(CPU), CPU, loader=Loader("host", None, workers, 2))


def batches(images, steps, size=12, seed=0):
    stream = Stream(images, size, seed=seed)
    found = [stream.batch(step) for step in steps]
    stream.close()
    return found


def same(a, b):
    return all(torch.equal(x.x, y.x) and torch.equal(x.y, y.y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("steps", [range(9), [5, 6, 7], [0, 1, 4, 5, 2, 3]])
def test_batches_are_the_same_wherever_the_images_lie(workers, steps):
    expected = batches(numbered(40), steps)
    assert same(batches(streamed(hosted(), workers), steps), expected)


@pytest.mark.parametrize("workers", [None, 0, 1])
def test_ranks_take_rows_of_the_same_batches(workers):
    images = numbered(40) if workers is None else streamed(hosted(), workers)
    whole = batches(numbered(40), range(5))
    for rows in (Rows(0, 5, 12), Rows(5, 12, 12)):
        with closing(Stream(images, 12, seed=0, rows=rows)) as stream:
            parts = [stream.batch(step) for step in range(5)]
            assert same(parts, [batch.part(rows.start, rows.stop) for batch in whole])
            index = torch.cat([batch.y.flatten() for batch in parts[1:4]])
            assert torch.equal(stream.index(1, 3), index)


def test_images_that_stream_know_how_long_they_were_waited_for():
    stream = Stream(streamed(hosted(), 0), 12, seed=0)
    stream.batch(0)
    assert stream.waited > 0
    resident = Stream(numbered(40), 12, seed=0)
    resident.batch(0)
    assert resident.waited == 0


def test_workers_end_with_the_stream():
    before = set(multiprocessing.active_children())
    with closing(Stream(streamed(hosted(), 2), 12, seed=0)) as stream:
        stream.batch(0)
        workers = set(multiprocessing.active_children()) - before
        assert len(workers) == 2
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive()


def test_a_store_that_fails_is_said():
    class Broken(ArrayStore):
        def take(self, index):
            raise OSError("Input/output error")

    stored = hosted()
    stream = Stream(streamed(replace(stored, store=Broken(stored.store.array)), 1), 12, seed=0)
    with pytest.raises(RunError, match="the data could not be read"):
        stream.batch(0)


@pytest.mark.parametrize(("storage", "memory", "mapped", "resident"), [
    ("auto", None, False, True),
    ("auto", None, True, True),
    ("auto", 1e-9, True, False),
    ("auto", 1e-9, False, False),
    ("device", 1e-9, True, True),
    ("host", None, True, False),
])  # fmt: skip
def test_where_images_are_kept_is_a_rule_of_sizes(storage, memory, mapped, resident):
    splits, where = Loader(storage, memory, 0, 2).place({"train": hosted(40, mapped)}, CPU)
    images = TransformedImages(splits["train"], CPU)
    assert images.resident is resident
    assert isinstance(images.stored.store, TensorStore) is resident
    assert ("on cpu" in where) is resident
    assert same(batches(images, range(5)), batches(numbered(40), range(5)))


def test_a_large_mapped_file_stays_one_and_what_is_in_memory_stays_there():
    loader = DEFAULT_LOADER
    assert loader.keeps_on_device(GIB, CPU, in_memory=False)
    assert not loader.keeps_on_device(GIB + 1, CPU, in_memory=False)
    assert loader.keeps_on_device(100 * GIB, CPU, in_memory=True)


def test_the_loader_of_the_yaml_is_the_default():
    assert build(compose().loader) == DEFAULT_LOADER


def test_the_checksum_is_that_of_the_pixels_wherever_they_lie():
    import hashlib

    def digest(stored):
        found = hashlib.sha256()
        stored.update(found)
        return found.hexdigest()

    assert digest(numbered(40).stored) == digest(hosted()) == digest(hosted(mapped=True))
    assert digest(numbered(40).stored) != digest(numbered(39).stored)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_worker_is_sent_the_name_of_a_file_and_not_what_is_in_it(order, tmp_path):
    array = np.random.RandomState(0).randint(0, 256, (500, 3, 16, 16), np.uint8)
    np.save(tmp_path / "x.npy", np.asarray(array, order=order))
    store = ArrayStore(np.load(tmp_path / "x.npy", mmap_mode="r"), np.arange(10, 20))
    sent = pickle.dumps(store)
    assert len(sent) < 2000 < array.nbytes
    assert np.array_equal(pickle.loads(sent).take(torch.arange(10)).numpy(), array[10:20])
    part = ArrayStore(np.load(tmp_path / "x.npy", mmap_mode="r")[100:])
    assert np.array_equal(pickle.loads(pickle.dumps(part)).take(torch.arange(10)).numpy(), array[100:110])


@pytest.mark.parametrize(("layout", "order"), [("NHWC", (0, 2, 3, 1)), ("NCHW", (0, 1, 2, 3))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64, np.uint16, np.bool_])
def test_any_layout_is_put_in_order(layout, order, dtype):
    images = np.random.RandomState(0).randint(0, 2, (7, 3, 4, 5)).astype(dtype)
    store = ArrayStore(np.ascontiguousarray(images.transpose(order)), np.array([5, 0, 6]), layout)
    found = store.take(torch.tensor([2, 0]))
    assert store.shape == (3, 4, 5)
    assert found.is_contiguous()
    assert found.dtype == (torch.uint8 if dtype in (np.uint8, np.bool_) else torch.float32)
    assert np.array_equal(found.numpy(), images[[6, 5]].astype(found.numpy().dtype))
