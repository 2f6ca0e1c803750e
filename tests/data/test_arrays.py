"""Array files: what is recognised in them, what becomes of their numbers, what is refused."""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.support import build, compose, load
from vae_train.data.sources.arrays import ArrayFile
from vae_train.data.storage.array_names import MAX_VALUES
from vae_train.data.storage.loader import Loader
from vae_train.data.storage.stored import ArrayStore
from vae_train.data.stream import Stream
from vae_train.rng import Rng
from vae_train.util.errors import UsageError

SPLITS = ("train", "valid", "test")
SUFFIXES = (".npy", ".npz", ".pt")
WHOLE = ("valid=0", "test=0")
HOST = Loader("host", None, 0, 2)

STORED = {"NCHW": (6, 3, 8, 9), "NHWC": (6, 8, 9, 3), "NHW": (6, 9, 9), "NCT": (6, 2, 20), "ND": (6, 5)}
"""A shape of every layout that can be inferred."""
CHW = {
    "NCHW": lambda a: a, "NHWC": lambda a: np.moveaxis(a, 3, 1), "NHW": lambda a: a[:, None],
    "NCT": lambda a: a[:, :, None], "ND": lambda a: a[:, None, None],
}  # fmt: skip
DTYPES = ("bool", "uint8", "int8", "uint16", "int32", "int64", "float16", "float32", "float64")


@cache
def composed():
    return compose("data=arrays").data


def settings(path, *overrides):
    cfg = composed().copy()
    cfg.path = str(path)
    cfg.merge_with_dotlist(list(overrides))
    return cfg


def described(path, *overrides):
    return build(settings(path, *overrides))


def opened(path, *overrides):
    return load(described(path, *overrides))


def refused(path, *overrides):
    """The message, which must be one line that a person can read."""
    with pytest.raises(UsageError) as caught:
        opened(path, *overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert 10 < len(message) < 300
    return message


def saved(path, *arrays, **named):
    """A file with one array, or with arrays by name."""
    content = named or arrays[0]
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **(named or {"data": arrays[0]}))
    else:
        tensors = {k: torch.as_tensor(v) for k, v in named.items()}
        torch.save(tensors or torch.as_tensor(content), path)
    return path


def numbers(dtype, shape, seed=0):
    """Random numbers that a pixel of this type may be."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.uniform(-3, 5, shape).astype(dtype)
    most = {"bool": 1, "uint8": 255, "int8": 127}.get(np.dtype(dtype).name, 65535)
    return rng.integers(0, most, shape, endpoint=True).astype(dtype)


def bounds(data):
    """The numbers that become 0 and 1 in every column."""
    ((low,), (high,)) = map(set, (data.facts.units.low, data.facts.units.high))
    return low, high


def marked(count, start=0):
    """Images that can be told apart: number i has pixels of i alone."""
    return np.arange(start, start + count, dtype=np.int64)[:, None, None] * np.ones((1, 6, 6), np.int64)


def marks(data, split):
    images = data.split(split)
    return [] if images is None else images.stored.pixels[:, 0, 0, 0].long().tolist()


# What becomes of the numbers


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pixels_are_those_that_were_saved(dtype, suffix, tmp_path):
    for layout, shape in STORED.items():
        array = numbers(dtype, shape)
        data = opened(saved(tmp_path / f"x{suffix}", array), *WHOLE)
        pixels, expected = data.split("train").stored.pixels, CHW[layout](array)
        assert (data.resolved["layout"], data.facts.data_shape) == (layout, expected.shape[1:])
        units, levels, x = data.facts.units, data.facts.levels, data.split("train").fetch(torch.arange(6)).x
        assert x.dtype == torch.float32
        if levels is None:
            assert torch.allclose(units.to_file(x), torch.from_numpy(expected.astype(np.float64)), atol=1e-2, rtol=1e-6)
        else:
            assert pixels.dtype == (torch.uint8 if dtype in ("bool", "uint8") else torch.float32)
            assert np.array_equal(pixels.numpy(), expected.astype(pixels.numpy().dtype))
            assert np.abs(x.numpy() - expected.astype(np.float64) / (levels - 1)).max() < 1e-6


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [">u2", ">i8", ">f2", ">f4", ">f8", "longdouble"])
def test_foreign_types_of_numbers_are_converted(dtype, suffix, tmp_path):
    array = numbers(dtype, (6, 3, 8, 9))
    overrides = () if array.dtype.kind in "ui" else ("range=[0,1]",) if array.dtype.kind == "f" else ()
    array = array % 1 if overrides else array
    found = opened(saved(tmp_path / f"x{suffix}", array), *WHOLE, *overrides).split("train").stored.pixels
    assert np.array_equal(found.numpy(), array.astype(np.float32))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("overrides", [WHOLE, ("valid=0.3", "test=0.3")])
def test_the_order_in_memory_does_not_matter(overrides, suffix, tmp_path):
    array = numbers("float32", (10, 3, 8, 9))
    if suffix == ".pt":  # keeps strides, also those of a part of something larger
        odd = torch.from_numpy(array.transpose(3, 2, 1, 0).copy()).permute(3, 2, 1, 0)
        others = [odd, torch.from_numpy(np.repeat(array, 2, axis=3))[..., ::2]]
        assert not any(tensor.is_contiguous() for tensor in others)
    else:
        others = [np.asfortranarray(array), np.repeat(array, 2, axis=0)[::-2][::-1]]
    want = opened(saved(tmp_path / f"a{suffix}", array), *overrides)
    for other in others:
        found = opened(saved(tmp_path / f"b{suffix}", other), *overrides)
        assert found.checksum == want.checksum
        assert all(
            torch.equal(found.split(s).stored.pixels, want.split(s).stored.pixels) for s in SPLITS if want.split(s)
        )


def test_tensors_of_every_kind_are_read(tmp_path):
    path, array = tmp_path / "x.pt", torch.from_numpy(numbers("float32", (6, 3, 8, 9))) / 8 + 0.375
    whole = (*WHOLE, "range=[0,1]")
    for tensor in (array.bfloat16(), torch.nn.Parameter(array), array[:1].expand(6, -1, -1, -1)):
        torch.save(tensor, path)
        assert torch.equal(opened(path, *whole).split("train").stored.pixels, tensor.detach().float())
    torch.save(array, path, _use_new_zipfile_serialization=False)
    assert torch.equal(opened(path, *whole).split("train").stored.pixels, array)
    for odd in (torch.eye(5).to_sparse(), torch.zeros(4, 5).to(torch.float8_e4m3fn)):
        torch.save({"x": odd}, path)
        assert "which is not supported; convert it first" in refused(path)


@pytest.mark.parametrize(
    ("shape", "stated"),
    [((6, 3, 8, 9), None), ((6, 3, 8, 9), (-20.0, 50.0)), ((6, 2, 20), (-20.0, 50.0)), ((6, 5), (-20.0, 50.0))],
)
def test_densities_are_those_of_the_numbers_in_the_file(stated, shape, tmp_path):
    """log N(v; m, s) of the file's numbers, computed from them and from what a model is given."""
    array = 10 + 3 * np.random.default_rng(0).normal(size=shape)
    overrides = () if stated is None else (f"range=[{stated[0]},{stated[1]}]",)
    data = opened(saved(tmp_path / "x.npy", array), *WHOLE, *overrides)
    low, high = data.facts.units.low[0], data.facts.units.high[0]
    assert (low, high) == (stated or (array.min(), array.max()))
    assert data.facts.levels is None
    batch, dims = data.split("train").fetch(torch.arange(6)), math.prod(shape[1:])
    assert batch.log_det.shape == (6,)
    assert batch.log_det.tolist() == pytest.approx([-dims * math.log(high - low)] * 6)
    ours = torch.distributions.Normal(0.4, 0.2).log_prob(batch.x.double()).flatten(1).sum(1) + batch.log_det
    mean, scale = low + 0.4 * (high - low), 0.2 * (high - low)
    theirs = torch.distributions.Normal(mean, scale).log_prob(torch.from_numpy(array)).flatten(1).sum(1)
    assert (ours - theirs).abs().max() < 1e-5 * dims


@pytest.mark.parametrize("overrides", [("scaling=range",), ("range=[0,1]",)])
def test_numbers_from_0_to_1_are_left_alone(overrides, tmp_path):
    array = np.linspace(0, 1, 96, dtype=np.float32).reshape(6, 16)
    array[0], array[-1] = 0, 1
    batch = opened(saved(tmp_path / "x.npy", array), *WHOLE, *overrides).split("train").fetch(torch.arange(6))
    assert np.array_equal(batch.x[:, 0, 0].numpy(), array)
    assert not batch.log_det.any()


def test_levels_have_no_log_det(tmp_path):
    data = opened(saved(tmp_path / "x.npy", numbers("uint8", (6, 8, 8))))
    assert data.split("train").fetch(torch.arange(2)).log_det is None


def test_dynamic_bits_are_sampled_with_the_probability_of_the_pixel(tmp_path):
    for array in (numbers("uint8", (6, 8, 8)), np.linspace(0, 1, 384, dtype=np.float32).reshape(6, 8, 8)):
        data = opened(saved(tmp_path / "x.npy", array), "binarize=dynamic", *WHOLE)
        train, index = data.split("train"), torch.arange(6).repeat(400)
        assert data.facts.levels == 2
        grey, bits = train.fetch(torch.arange(6)).x, train.fetch(index, Rng(0, "data")).x
        assert set(bits.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(bits, train.fetch(index, Rng(0, "data")).x)
        assert not torch.equal(bits, train.fetch(index, Rng(1, "data")).x)
        assert (bits.view(400, *grey.shape).mean(0) - grey).abs().max() < 0.13  # 5 standard deviations


# Layouts


def test_channels_tell_the_layout_of_an_image(tmp_path):
    for channels in (1, 2, 3, 4):
        for layout, shape in (("NCHW", (4, channels, 16, 12)), ("NHWC", (4, 16, 12, channels))):
            source = described(saved(tmp_path / "x.npy", np.zeros(shape, np.uint8)))
            assert (source.resolved()["layout"], source.inspect().data_shape) == (layout, (channels, 16, 12))


@pytest.mark.parametrize(
    ("shape", "layout", "found"),
    [
        ((4, 16, 12, 8), "NCHW", (16, 12, 8)),
        ((4, 16, 12, 8), "NHWC", (8, 16, 12)),
        ((4, 3, 16, 3), "NCHW", (3, 16, 3)),
        ((4, 3, 16, 3), "NHWC", (3, 3, 16)),
        ((4, 100, 2), "NHW", (1, 100, 2)),
        ((4, 100, 2), "NCT", (100, 1, 2)),
        ((4, 100, 2), "NTC", (2, 1, 100)),
    ],
)
def test_what_may_be_either_is_asked_for(shape, layout, found, tmp_path):
    path = saved(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    assert "data.layout=: is needed" in refused(path)
    assert described(path, f"layout={layout}").inspect().data_shape == found


@pytest.mark.parametrize("layout", STORED)
def test_layouts_that_do_not_fit_are_refused(layout, tmp_path):
    for other, shape in STORED.items():
        path = saved(tmp_path / "x.npy", np.zeros(shape, np.uint8))
        if len(other) == len(layout):
            assert len(opened(path, f"layout={layout}").facts.data_shape) == 3
        else:
            message = refused(path, f"layout={layout}")
            assert f"data.layout={layout}: has shape {shape}: {layout} has {len(layout)} dimensions" in message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 5, 6)])
def test_other_numbers_of_dimensions_are_refused(shape, suffix, tmp_path):
    path = saved(tmp_path / f"x{suffix}", np.ones(shape, np.float32))
    assert f"has shape {shape}: images are NCHW, NHWC or NHW, signals NCT or NTC, vectors ND" in refused(path)
    assert "NHW has 3 dimensions" in refused(path, "layout=NHW")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (5, 0), (4, 8, 0), (0, 0)])
def test_empty_arrays_are_refused(shape, suffix, tmp_path):
    assert "is empty" in refused(saved(tmp_path / f"x{suffix}", np.zeros(shape, np.uint8)))


def test_a_single_image_trains(tmp_path):
    data = opened(saved(tmp_path / "x.npy", numbers("uint8", (1, 8, 8))), "valid=0.45", "test=0.45")
    assert [data.split(name) is None for name in SPLITS] == [False, True, True]


# Levels and ranges


MOST = {
    "bool": (0, 1),
    "uint8": (0, 1, 2, 255),
    "int64": (1, 2, 256, 16384, 65536),
    "uint16": (1, 2, 255, 256, 1023, 1024, 4095, 4096, 16383, 16384, 65535),
}
HELD = {2: 256, 255: 256, 1023: 1024, 4095: 4096, 16383: 16384, 65535: 65536}
"""Levels by the largest integer that they hold."""


@pytest.mark.parametrize(("dtype", "most"), [(dtype, most) for dtype in MOST for most in MOST[dtype]])
def test_integers_say_how_many_levels_there_are(dtype, most, tmp_path):
    levels = 2 if most == 1 or dtype == "bool" else next((HELD[high] for high in HELD if most <= high), None)
    path = saved(tmp_path / "x.npy", np.linspace(0, most, 360).round().astype(dtype).reshape(10, 6, 6))
    if levels is None:
        assert "has integers up to 65536; set the number of levels with data.levels=" in refused(path)
    else:
        assert opened(path).facts.levels == levels


def test_levels_that_are_stated(tmp_path):
    path = saved(tmp_path / "x.npy", np.arange(17).repeat(4).reshape(17, 4))
    assert opened(path, "levels=17").facts.levels == 17
    assert opened(path, "levels=17", *WHOLE).split("train").fetch(torch.arange(17)).x.unique().numel() == 17
    assert "data.levels=16: the data has integers up to 16, which need at least 17" in refused(path, "levels=16")
    for wrong in ("1", str(2**24 + 1)):
        assert "must be 2 to 16,777,216" in refused(path, f"levels={wrong}")


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32"])
def test_levels_may_start_and_step_elsewhere(dtype, tmp_path):
    path = saved(tmp_path / "x.npy", np.arange(-128, 128, 2).astype(dtype).reshape(16, 8))
    data = opened(path, "range=[-128,126]", "levels=128", *WHOLE)
    assert data.facts.levels == 128
    batch = data.split("train").fetch(torch.arange(16))
    assert batch.log_det is None
    assert (batch.x.flatten() * 127 - torch.arange(128)).abs().max() < 1e-4
    assert "between the levels" in refused(path, "range=[-128,126]", "levels=100")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_floating_point_numbers_can_be_levels(levels, dtype, tmp_path):
    path = saved(tmp_path / "x.npy", (np.arange(240) % levels / (levels - 1)).astype(dtype).reshape(20, 12))
    assert opened(path, f"levels={levels}", "range=[0,1]").facts.levels == levels
    assert "data.range=: is needed" in refused(path, f"levels={levels}")
    random = saved(tmp_path / "y.npy", np.random.default_rng(0).uniform(size=(20, 12)).astype(dtype))
    assert "between the levels" in refused(random, f"levels={levels}", "range=[0,1]")


@pytest.mark.parametrize(("low", "high", "dtype"), [(0, 255, "uint8"), (3, 7, "uint8"), (0, 65535, "uint16")])
def test_two_integers_are_black_and_white(low, high, dtype, tmp_path):
    bits = numbers("bool", (6, 8, 8))
    path = saved(tmp_path / "x.npy", np.where(bits, high, low).astype(dtype))
    for overrides in ((), ("levels=2",), ("levels=2", f"range=[{low},{high}]")):
        data = opened(path, *overrides, *WHOLE)
        assert data.facts.levels == 2
        assert np.array_equal(data.split("train").fetch(torch.arange(6)).x[:, 0].numpy(), bits)
    (note,) = opened(path).notes
    assert note == f"all pixels are {low} or {high} and taken as binary; for more levels set data.levels="
    assert opened(path, f"levels={high + 1}").facts.levels == high + 1


def test_the_range_is_that_of_all_splits(tmp_path):
    dim, bright = (numbers("uint16", (6, 8, 8)) % most for most in (1000, 4000))
    assert opened(saved(tmp_path / "x.npz", x_train=dim, x_test=bright)).facts.levels == 4096
    dim, bright = (np.where(numbers("bool", (6, 8, 8)), 255, low).astype(np.uint8) for low in (0, 9))
    assert opened(saved(tmp_path / "x.npz", x_train=dim, x_test=bright)).facts.levels == 256


SETS = {
    "10 bits": (1024, None, numbers("uint16", (6, 8, 8)) % 1020),
    "12 bits": (4096, None, numbers("uint16", (6, 8, 8)) % 4000),
    "14 bits": (16384, None, numbers("int32", (6, 8, 8)) % 16000),
    "16 bits": (65536, None, numbers("int64", (6, 8, 8))),
    "12 bits shifted to 16": (65536, 4096, numbers("uint16", (6, 8, 8)) % 4000 * 16),
    "8 bits spread over 16": (65536, 256, numbers("uint16", (6, 8, 8)) % 255 * 257),
    "4 bits": (256, 16, numbers("uint8", (6, 8, 8)) % 16),
    "4 bits spread over 8": (256, 16, numbers("uint8", (6, 8, 8)) % 16 * 17),
    "17 levels": (256, 17, numbers("uint8", (6, 8, 8)) % 17),
    "4 levels in 32 bits": (256, 4, numbers("int32", (6, 8, 8)) % 4 * 64),
}


@pytest.mark.parametrize("name", SETS)
def test_other_sets_of_levels_are_suggested_in_one_line(name, tmp_path):
    levels, suggested, array = SETS[name]
    path, index = saved(tmp_path / "x.npy", array), torch.arange(6)
    data = opened(path, *WHOLE)
    (note,) = data.notes
    assert data.facts.levels == levels
    assert data.split("train").fetch(index).x.max().item() * (levels - 1) == pytest.approx(array.max())
    if suggested is None:
        assert note.startswith(f"pixels up to {array.max():,} are taken as ")
        assert f"{levels:,} levels; otherwise set data.levels=" in note
        return
    assert note.endswith(f"for {suggested:,} levels set data.levels={suggested}")
    chosen = opened(path, f"levels={suggested}", *WHOLE)
    step = np.gcd.reduce(array.ravel())
    assert chosen.facts.levels == suggested
    found = chosen.split("train").fetch(index).x[:, 0].double() * (suggested - 1)
    assert (found - torch.from_numpy((array // step).astype(np.float64))).abs().max() < 1e-3
    assert chosen.notes == ()


def test_levels_of_floating_point_numbers_are_suggested(tmp_path):
    for count in (2, 16, 256):
        array = (numbers("int64", (60, 8, 8)) % count / (count - 1)).astype(np.float32)
        (note,) = opened(saved(tmp_path / "x.npy", array)).notes
        assert note.endswith(f"to use them set data.levels={count} data.range=[0,1]")
        assert opened(tmp_path / "x.npy", f"levels={count}", "range=[0,1]").facts.levels == count
    for array in (numbers("float32", (60, 8, 8)), numbers("float32", (60, 1, 1)).repeat(64, 1).reshape(60, 8, 8)):
        assert opened(saved(tmp_path / "x.npy", array)).notes == ()


def test_negative_integers_want_a_range(tmp_path):
    array = np.arange(-30, 30).reshape(15, 2, 2)
    path = saved(tmp_path / "x.npy", array)
    assert "has integers from -30 to 29; set their range with data.range=[-30,29]" in refused(path)
    assert "has integers from -30" in refused(path, "levels=256")
    data = opened(path, "range=[-30,30]", *WHOLE)
    assert data.facts.levels is None
    assert np.allclose(data.split("train").fetch(torch.arange(15)).x[:, 0], (array + 30) / 60)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int16"])
def test_numbers_outside_of_the_stated_range_are_refused(dtype, tmp_path):
    path = saved(tmp_path / "x.npy", np.linspace(-100, 100, 60).astype(dtype).reshape(10, 6))
    assert bounds(opened(path, "range=[-100,100]")) == (-100, 100)
    for overrides in ("range=[-99,100]", "range=[-100,99]", "range=[0,1]"):
        assert f"has numbers from -100 to 100, outside data.{overrides[:7]}" in refused(path, overrides)


def test_a_range_need_not_be_a_number_that_the_file_can_hold(tmp_path):
    for dtype in ("float16", "float32"):
        path = saved(tmp_path / "x.npy", np.linspace(-0.7, 0.1, 60).astype(dtype).reshape(10, 6))
        assert bounds(opened(path, "range=[-0.7,0.1]")) == (-0.7, 0.1)


@pytest.mark.parametrize("overrides", ["range=[1,0]", "range=[1,1]", "range=[1]", "range=[0,.inf]", "range=[.nan,1]"])
def test_ranges_that_are_none_are_refused(overrides, tmp_path):
    path = saved(tmp_path / "x.npy", numbers("float32", (10, 6)))
    assert "is not [smallest, largest]" in refused(path, overrides)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_no_number_is_refused(dtype, bad, suffix, tmp_path):
    array = numbers(dtype, (10, 6))
    array[7, 3] = bad
    path = saved(tmp_path / f"x{suffix}", array)
    for overrides in ((), ("range=[-5,5]",)):
        kind = "missing numbers (NaN)" if np.isnan(bad) else "infinite numbers"
        assert f"has {kind}: 1 in column 3; " in refused(path, *overrides)


def test_numbers_that_float32_cannot_tell_apart_are_refused(tmp_path):
    for array in (1e9 + np.arange(60.0), 1e300 * np.arange(60.0), 1e-40 * np.arange(60.0)):
        assert "shift or scale" in refused(saved(tmp_path / "x.npy", array.reshape(15, 2, 2)))


def test_constant_data_wants_a_range(tmp_path):
    path = saved(tmp_path / "x.npy", np.full((10, 6, 6), 0.5, np.float32))
    assert "only contains the number 0.5" in refused(path)
    batch = opened(path, "range=[0,2]").split("train").fetch(torch.arange(2))
    assert batch.x.unique().tolist() == [0.25]
    assert opened(saved(tmp_path / "x.npy", np.full((10, 6, 6), 9, np.uint8))).facts.levels == 256


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", ["complex64", "U3", "S3", "M8[s]", "m8[s]", "i4,f4"])
def test_what_is_no_image_is_refused(dtype, suffix, tmp_path):
    path = saved(tmp_path / f"x{suffix}", np.zeros((10, 6), dtype))
    assert "images consist of integers or floating-point numbers" in refused(path)


# Splits


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_splits_are_disjoint_and_a_function_of_the_seed(suffix, tmp_path):
    path, sets = saved(tmp_path / f"x{suffix}", marked(50)), {}
    for seed in (0, 0, 1):
        data = opened(path, f"split_seed={seed}", "valid=0.2", "test=0.3")
        found = [marks(data, name) for name in SPLITS]
        assert [len(f) for f in found] == [25, 10, 15]
        assert data.facts.num_train == 25
        assert sorted(chain(*found)) == list(range(50))
        assert sets.setdefault(seed, found) == found
    assert sets[0] != sets[1]


def test_shares_must_leave_something(tmp_path):
    path = saved(tmp_path / "x.npy", marked(10))
    assert "leave no images for training" in refused(path, "valid=0.5", "test=0.5")
    assert [opened(path, *WHOLE).split(name) is None for name in SPLITS] == [False, True, True]


KERAS = {"train": "x_train", "test": "x_test"}
NAMED = {
    "keras": (KERAS, {"train": "y_train", "test": "y_test"}),
    "capitals": ({"train": "X_train", "test": "X_test"}, {"train": "Y_train", "test": "Y_test"}),
    "medmnist": (
        {"train": "train_images", "valid": "val_images", "test": "test_images"},
        {"train": "train_labels", "valid": "val_labels", "test": "test_labels"},
    ),
    "bare": ({"train": "train", "valid": "valid", "test": "test"}, {}),
    "plain": ({"train": "images"}, {"train": "labels"}),
    "xy": ({"train": "X"}, {"train": "Y"}),
}


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize("names", NAMED)
def test_names_say_what_is_what(names, suffix, tmp_path):
    images, labels = NAMED[names]
    content, start, want = {}, 0, {}
    for split, count in zip(images, (20, 7, 5), strict=False):
        content[images[split]] = marked(count, start)
        if split in labels:
            content[labels[split]] = (np.arange(start, start + count) % 3)[:, None]
        want[split], start = list(range(start, start + count)), start + count
    data = opened(saved(tmp_path / f"x{suffix}", **dict(reversed(content.items()))))
    for split in SPLITS:
        found = marks(data, split)
        assert found == want[split] if split in want and split != "train" else set(found) <= set(want["train"])
        if labels:
            assert (data.split(split).stored.labels[:, 0] == torch.tensor(found) % 3).all()
    assert sorted(chain(*(marks(data, split) for split in SPLITS))) == list(range(start))
    assert data.facts.classes == (3 if labels else None)


def test_one_array_may_be_called_anything(tmp_path):
    for name in ("arr_0", "y", "test", "some name", "factors"):
        assert opened(saved(tmp_path / "x.npz", **{name: marked(10)})).facts.num_train == 8


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_a_key_chooses(suffix, tmp_path):
    path = saved(tmp_path / f"x{suffix}", a=marked(10), b=marked(10, 10), b_test=marked(10, 20), y=np.arange(10))
    assert "data.key=: must name the images; the file has a, b, b_test, y" in refused(path)
    assert marks(opened(path, "key=a", *WHOLE), "train") == list(range(10))
    assert marks(opened(path, "key=b", *WHOLE), "train") == list(range(10, 20))
    assert "data.key=c: no such array; the file has a, b" in refused(path, "key=c")
    other = saved(tmp_path / f"y{suffix}", a_train=marked(9), a_test=marked(5, 9), b_train=marked(8), b_test=marked(4))
    assert "must name the images" in refused(other)
    assert marks(opened(other, "key=a"), "test") == list(range(9, 14))
    assert len(opened(other, "key=b_test", *WHOLE).split("train")) == 4


def test_a_long_list_of_names_is_cut(tmp_path):
    path = saved(tmp_path / "x.npz", **{f"array{i}": marked(2) for i in range(100)})
    assert "array11, …" in refused(path)
    torch.save({"epoch": 3, "name": "a text"}, tmp_path / "none.pt")
    assert "no arrays" in refused(tmp_path / "none.pt")


def test_splits_must_be_alike(tmp_path):
    train, path = numbers("uint8", (10, 8, 8)), tmp_path / "x.npz"
    for test, why in [
        (numbers("uint8", (4, 8, 9)), r"has images of shape (1, 8, 8) for training, but (1, 8, 9) in x_test"),
        (numbers("uint8", (4, 8, 8, 1)), "x_test has shape (4, 8, 8, 1): NHW has 3 dimensions"),
        (numbers("uint8", (4, 64)), "x_test has shape (4, 64): NHW has 3 dimensions"),
        (numbers("float32", (4, 8, 8)), "mixes integers and floating-point numbers"),
        (numbers("uint8", (0, 8, 8)), "x_test is empty: it has shape (0, 8, 8)"),
        (np.zeros((4, 8, 8), "S1"), "x_test has the type |S1"),
    ]:
        assert why in refused(saved(path, x_train=train, x_test=test))
    assert opened(saved(path, x_train=train // 255, x_test=train)).facts.levels == 256


# Labels


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize(
    "values", [(0, 1, 2), (7, -3, 10**12), (0.25, 0.5, -1e-3), (False, True)], ids=["int", "gaps", "float", "bool"]
)
def test_labels_are_numbered_in_ascending_order(values, suffix, tmp_path):
    column = np.random.default_rng(0).choice(np.array(values), 60)
    data = opened(saved(tmp_path / f"x{suffix}", images=marked(60), labels=column))
    assert data.facts.classes == len(values)
    assert data.facts.factors[0].values == tuple(sorted(values))
    assert data.facts.factors[0].name == "class"
    for split in SPLITS:
        found = [data.facts.factors[0].values[i] for i in data.split(split).stored.labels[:, 0].tolist()]
        assert found == column[marks(data, split)].tolist()
        assert data.split(split).stored.labels.dtype == torch.int64


@pytest.mark.parametrize("kind", ["U", "S"])
def test_labels_may_be_names(kind, tmp_path):
    column = np.array(["dog", "cat", "bird"] * 10).astype(kind)
    data = opened(saved(tmp_path / "x.npz", images=marked(30), labels=column), *WHOLE)
    assert data.facts.factors[0].values == ("bird", "cat", "dog")
    assert data.split("train").stored.labels[:3, 0].tolist() == [2, 1, 0]


@pytest.mark.parametrize("off_on", [(0, 1), (False, True), (-1.0, 1.0)])
@pytest.mark.parametrize("shape", [(60, 1, 8, 8), (60, 7)])
def test_one_hot_columns_are_one_class_label(shape, off_on, tmp_path, caplog):
    numbers_of_classes = np.arange(60) * 7 % 24  # the last of 25 classes has no image
    table = np.where(np.arange(25) == numbers_of_classes[:, None], off_on[1], off_on[0])
    with caplog.at_level("INFO", "vae_train"):
        data = opened(saved(tmp_path / "x.npz", images=numbers("float32", shape), labels=table))
    (factor,) = data.facts.factors
    assert (factor.name, factor.size, data.facts.classes) == ("class", 25, 25)
    assert caplog.text.count("25 one-hot columns are one class label") == 1
    found = [label for split in SPLITS for label in data.split(split).stored.labels[:, 0].tolist()]
    assert sorted(found) == sorted(numbers_of_classes.tolist())


def test_columns_that_are_not_one_hot_are_factors(tmp_path):
    table = np.eye(4, dtype=int)[np.arange(60) % 4]
    table[5] = [1, 1, 0, 0]
    data = opened(saved(tmp_path / "x.npz", images=marked(60), labels=table))
    assert [factor.size for factor in data.facts.factors] == [2, 2, 2, 2]


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_factors_are_numbered_column_by_column(suffix, tmp_path):
    rng = np.random.default_rng(0)
    table = np.stack([rng.integers(0, 4, 60) * 3 - 2, rng.choice([0.1, 0.7], 60), np.full(60, 5)], 1)
    data = opened(saved(tmp_path / f"x{suffix}", images=marked(60), factors=table))
    assert data.facts.classes is None
    assert [f.size for f in data.facts.factors] == [4, 2, 1]
    assert [f.name for f in data.facts.factors] == ["factor 0", "factor 1", "factor 2"]
    for split in SPLITS:
        batch = data.split(split).fetch(torch.arange(len(data.split(split))))
        found = [[data.facts.factors[i].values[v] for i, v in enumerate(row)] for row in batch.y.tolist()]
        assert np.array_equal(found, table[marks(data, split)])


def test_values_that_only_one_split_has_are_counted(tmp_path):
    path = saved(
        tmp_path / "x.npz", x_train=marked(10), y_train=np.arange(10) % 2 + 5, x_test=marked(3), y_test=[4, 5, 9]
    )
    data = opened(path)
    assert data.facts.factors[0].values == (4, 5, 6, 9)
    assert data.split("test").stored.labels[:, 0].tolist() == [0, 1, 3]


def test_arrays_that_are_not_used_are_named(tmp_path, caplog):
    content = {"x_train": marked(60), "y_train": np.arange(60) % 3, "x_test": marked(9)}
    with caplog.at_level("INFO", "vae_train"):
        data = opened(saved(tmp_path / "x.npz", **content))
    assert data.facts.classes is None  # since the test images have no labels
    assert caplog.text.count("unused arrays: y_train; data.key= and data.labels= choose others") == 1
    caplog.clear()
    with caplog.at_level("INFO", "vae_train"):
        opened(saved(tmp_path / "x.npz", **content, y_test=np.arange(9) % 3))
    assert "not used" not in caplog.text


def test_labels_that_are_said(tmp_path):
    path = saved(tmp_path / "x.npz", images=marked(10), attributes=np.arange(10) % 2, labels=np.arange(10) % 5)
    assert "data.key=: must name the images" in refused(path)
    assert opened(path, "labels=attributes").facts.classes == 2
    assert opened(path, "key=images").facts.classes == 5
    assert "data.labels=nothing: no such array" in refused(path, "key=images", "labels=nothing")
    split = {"x_train": marked(10), "z_train": np.arange(10) % 3, "x_test": marked(3), "z_test": np.arange(3)}
    for overrides in ("labels=z", "labels=z_train"):
        assert opened(saved(path, **split), overrides).facts.classes == 3
    del split["z_test"]
    assert "data.labels=z: no such array for x_test" in refused(saved(path, **split), "labels=z")
    assert "data.labels=y: no such array" in refused(saved(tmp_path / "x.npy", marked(9)), "labels=y")


def test_as_many_labels_as_images(tmp_path):
    path = saved(tmp_path / "x.npz", images=marked(10), labels=np.arange(9))
    for overrides in ((), ("labels=labels",)):
        assert "has 10 train images and 9 labels in labels" in refused(path, *overrides)
    path = saved(path, x_train=marked(10), y_train=np.arange(10), x_test=marked(4), y_test=np.arange(5))
    assert "has 4 test images and 5 labels in y_test" in refused(path)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (np.array(3), "has shape (), but labels are (N,) or (N, F)"),
        (np.zeros((30, 0)), "has shape (30, 0), but"),
        (np.zeros((30, 6, 6)), "has shape (30, 6, 6), but"),
        (np.where(np.arange(30) == 4, np.nan, 1), "labels that are NaN"),
        (np.zeros(30, "c8"), "has the type complex64"),
        (np.array([{}] * 30), "has Python objects"),
    ],
    ids=["0-d", "empty", "masks", "nan", "complex", "objects"],
)
def test_labels_that_are_none_are_refused_where_they_are_said(labels, why, tmp_path, caplog):
    """Where they are guessed, nobody could do anything about them: they are left out."""
    path = saved(tmp_path / "x.npz", images=marked(30), targets=labels)
    assert why in refused(path, "labels=targets")
    with caplog.at_level("WARNING", "vae_train"):
        assert opened(path).split("train").stored.labels is None
    assert why in caplog.text


def test_too_many_different_values_are_no_classes(tmp_path):
    count = MAX_VALUES + 1
    path = saved(tmp_path / "x.npz", images=np.zeros((count, 2, 2), np.uint8), targets=np.arange(float(count)))
    assert f"{count:,} distinct labels are too many for classes" in refused(path, "labels=targets")
    assert opened(path).facts.factors == ()


@pytest.mark.parametrize("content", [tuple, list])
def test_pairs_of_images_and_targets_as_torchvision_saves_them(content, tmp_path):
    images, targets = torch.from_numpy(marked(30)).byte(), torch.arange(30) % 10
    torch.save(content([images, targets]), tmp_path / "training.pt")
    data = opened(tmp_path / "training.pt")
    assert (data.facts.data_shape, data.facts.classes, data.facts.levels) == ((1, 6, 6), 10, 256)
    for split in SPLITS:
        assert data.split(split).stored.labels[:, 0].tolist() == [i % 10 for i in marks(data, split)]


def test_lists_of_tensors_go_by_their_numbers(tmp_path):
    torch.save(
        [torch.from_numpy(marked(10)), torch.from_numpy(marked(10, 10)), torch.arange(10) % 2], tmp_path / "x.pt"
    )
    assert "the file has 0, 1, 2" in refused(tmp_path / "x.pt")
    data = opened(tmp_path / "x.pt", "key=1", "labels=2", *WHOLE)
    assert marks(data, "train") == list(range(10, 20))
    assert data.facts.classes == 2


def test_dsprites_is_read_without_its_metadata(tmp_path):
    path, rng = tmp_path / "dsprites.npz", np.random.default_rng(0)
    classes = np.stack([np.zeros(40, int), rng.integers(0, 3, 40)], 1)
    saved(path, metadata=np.array({"bomb": Bomb(tmp_path / "executed")}), imgs=numbers("bool", (40, 8, 8)).astype("u1"),
          latents_values=classes * 0.5, latents_classes=classes)  # fmt: skip
    assert "data.key=: must name the images; the file has metadata, imgs" in refused(path)
    data = opened(path, "key=imgs")
    assert (data.facts.levels, [f.size for f in data.facts.factors]) == (2, [1, 3])
    assert opened(path, "key=imgs", "labels=latents_values").facts.factors[1].values == (0, 0.5, 1)
    assert "metadata has Python objects" in refused(path, "key=metadata")
    assert not (tmp_path / "executed").exists()


# Files that are not what they seem


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


def bombs(folder, bomb):
    objects = np.array([bomb] * 4, object)
    np.save(folder / "objects.npy", objects)
    np.savez(folder / "objects.npz", data=objects)
    np.savez(folder / "labels.npz", data=marked(4), labels=objects)
    for legacy in (False, True):
        for name, content in (("bomb", bomb), ("dict", {"x": torch.zeros(4, 5), "meta": bomb}), ("list", [bomb])):
            path = folder / f"{name}{legacy}.pt"
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    for suffix in SUFFIXES:
        (folder / f"pickle{suffix}").write_bytes(pickle.dumps(bomb))
    with zipfile.ZipFile(folder / "members.npz", "w") as archive:
        archive.writestr("data.npy", pickle.dumps(bomb))
    return sorted(path.name for path in folder.iterdir())


def test_nothing_in_a_file_is_executed(tmp_path):
    folder, mark = tmp_path / "files", tmp_path / "executed"
    folder.mkdir()
    names = bombs(folder, Bomb(mark))
    assert len(names) == 13
    for name in names:
        overrides = ("labels=labels",) if name == "labels.npz" else ()
        message = refused(folder / name, *overrides)
        assert "allow_pickle" not in message
        assert "weights_only" not in message
        assert not mark.exists(), name
    opened(folder / "labels.npz")
    assert not mark.exists()
    np.load(folder / "objects.npy", allow_pickle=True)  # it would have
    assert mark.exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_the_users(suffix, tmp_path):
    content = saved(tmp_path / f"whole{suffix}", numbers("float32", (20, 8, 8))).read_bytes()
    path = tmp_path / f"x{suffix}"
    for length in (0, 1, 5, 20, 100, 130, len(content) // 2, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path)
    for foreign in (b"hello\n", b"\x89PNG\r\n\x1a\n" + bytes(500), bytes(1000), b"PK\x03\x04" + bytes(200)):
        path.write_bytes(foreign)
        refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("other", SUFFIXES)
def test_files_with_anothers_suffix_are_refused(other, suffix, tmp_path):
    path = saved(tmp_path / f"real{other}", marked(10))
    path = path.rename(tmp_path / f"x{suffix}")
    if other == suffix:
        assert opened(path).facts.num_train == 8
    else:
        refused(path)


@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_crash(tmp_path):
    """Bytes changed anywhere: the file opens or is refused."""
    rng, messages = np.random.default_rng(0), []
    for suffix in SUFFIXES:
        content = saved(tmp_path / f"whole{suffix}", numbers("uint8", (8, 4, 4))).read_bytes()
        for number in range(60):
            changed = bytearray(content)
            for place in rng.integers(0, len(content) if number % 2 else 120, 3):
                changed[place] = rng.integers(256)
            (tmp_path / f"x{suffix}").write_bytes(changed)
            try:
                opened(tmp_path / f"x{suffix}")
            except UsageError as error:
                messages.append(str(error))
    assert len(messages) > 60
    assert not any("\n" in message for message in messages)


def test_archives_of_other_things_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "readme.txt is not an array" in refused(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "x.npz", "w"):
        pass
    assert "no arrays" in refused(tmp_path / "x.npz")


def test_a_damaged_member_is_said(tmp_path):
    path = saved(tmp_path / "x.npz", images=numbers("uint8", (10, 8, 8)), labels=np.arange(10))
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    assert "images cannot be read and may be truncated or damaged: BadZipFile Bad CRC-32" in refused(path)


def test_paths_that_are_no_files(tmp_path):
    assert "no such file" in refused(tmp_path / "nowhere.npy")
    assert "is a folder; use data=folder" in refused(tmp_path)
    (tmp_path / "x.txt").write_text("1,2")
    assert "is not a .npy, .npz, .pt or .csv file" in refused(tmp_path / "x.txt")
    os.mkfifo(tmp_path / "x.npy")
    assert "is not a regular file" in refused(tmp_path / "x.npy")
    for path in ("~nobody_of_that_name/x.npy", "x" * 5000 + ".npy", "a\0b.npy"):
        assert refused(path)
    with pytest.raises(UsageError, match=r"data\.path=: is needed: a \.npy"):
        load(build(compose("data=arrays").data))


def test_names_may_be_in_capitals(tmp_path):
    saved(tmp_path / "x.npy", marked(10)).rename(tmp_path / "X.NPY")
    assert opened(tmp_path / "X.NPY").facts.num_train == 8


# Facts without the file

FILES = {
    "bits": (numbers("bool", (20, 8, 8)), ()),
    "levels": (numbers("uint8", (20, 8, 8, 3)), ()),
    "stated": (numbers("uint8", (20, 6, 7, 8)) // 20, ("layout=NHWC", "levels=17")),
    "signed": (numbers("int8", (20, 6)), ("range=[-128,127]",)),
    "steps": (np.arange(0, 200, 2).reshape(20, 5), ("range=[0,198]", "levels=100")),
    "floats": (numbers("float32", (20, 2, 30)), ()),
    "tiny": (numbers("float64", (20, 5)) * 1e-7, ()),
    "drawn": (numbers("uint8", (20, 8, 8)), ("binarize=dynamic",)),
}


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", FILES)
def test_what_was_found_opens_the_same_file_the_same_way(name, suffix, tmp_path):
    array, overrides = FILES[name]
    cfg = settings(saved(tmp_path / f"x{suffix}", array), *overrides)
    first = load(build(cfg))
    cfg.update(first.resolved)
    cfg = OmegaConf.create(OmegaConf.to_yaml(cfg))  # as a run keeps it
    second = load(build(cfg))
    assert second.checksum == first.checksum
    assert second.resolved == first.resolved
    assert second.facts == first.facts


def test_a_file_that_has_changed_its_shape_is_refused(tmp_path):
    path = saved(tmp_path / "x.npy", marked(10))
    assert opened(path, "shape=[1,6,6]").facts.data_shape == (1, 6, 6)
    message = refused(path, "shape=[1,6,5]")
    assert message == "data.shape=[1, 6, 5]: the file has images of shape (1, 6, 6)"
    assert "is not [channels, height, width]" in refused(path, "shape=[6,6]")


# Files that are larger than memory


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(ArrayFile, "max_scanned_bytes", 1000)


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("suffix", [".npy", ".pt"])
def test_large_files_stay_where_they_are(suffix, tmp_path):
    path = saved(tmp_path / f"x{suffix}", numbers("float32", (100, 3, 8, 9)))
    assert "data.range=: is needed: the file is too large" in refused(path)
    mapped = load(described(path, "range=[-3,5]"), loader=HOST)
    resident = opened(path, "range=[-3,5]")
    assert mapped.checksum == resident.checksum
    assert "a mapped file" in mapped.storage
    for split in SPLITS:
        images = mapped.split(split)
        assert isinstance(images.stored.store, ArrayStore)
        assert images.stored.store.location == "file"
        assert not images.resident
        assert resident.split(split).resident
    if suffix == ".npy":
        assert isinstance(mapped.split("train").stored.store.array, np.memmap)
    streams = [Stream(data.split("train"), 32, seed=3) for data in (mapped, resident)]
    for step in (0, 1, 2, 9, 5):
        one, other = (stream.batch(step) for stream in streams)
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.log_det, other.log_det)


def test_processes_read_ahead_from_a_mapped_file(tmp_path):
    path = saved(tmp_path / "x.npy", numbers("float32", (100, 9, 9)))
    streams = [
        Stream(load(described(path), loader=Loader("host", None, workers, 2)).split("train"), 32, seed=3)
        for workers in (0, 1)
    ]
    for step in range(4):
        one, other = (stream.batch(step) for stream in streams)
        assert torch.equal(one.x, other.x)
    streams[1].close()


def test_a_mapped_file_is_not_written(tmp_path):
    for suffix in (".npy", ".pt"):
        path = saved(tmp_path / f"x{suffix}", numbers("uint8", (20, 8, 8)))
        before = path.read_bytes()
        images = load(described(path, *WHOLE), loader=HOST).split("train")
        images.gather(torch.arange(20)).pixels.zero_()
        opened(path, *WHOLE).split("train").stored.pixels.zero_()
        assert path.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_large_files_are_looked_at_in_some_places(suffix, tmp_path, monkeypatch):
    array = numbers("float32", (5000, 2, 2))
    array[2] = 100
    path = saved(tmp_path / f"x{suffix}", array)
    assert "outside data.range" in refused(path, "range=[-3,5]")
    monkeypatch.setattr(ArrayFile, "max_scanned_bytes", 1000)
    assert bounds(opened(path, "range=[-3,5]")) == (-3, 5)
    array[-1] = 100
    assert "outside data.range" in refused(saved(path, array), "range=[-3,5]")


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("dtype", "most", "levels"),
    [("bool", 1, 2), ("uint8", 2, 256), ("uint16", 65534, 65536), ("uint16", 1000, None), ("int64", 254, None)],
)
def test_levels_of_large_files_are_not_guessed_from_some_places(dtype, most, levels, tmp_path):
    path = saved(tmp_path / "x.npy", (np.arange(5000) % 3 * most / 2).astype(dtype).reshape(200, 5, 5))
    if levels is None:
        assert "data.levels=: is needed" in refused(path)
        assert opened(path, f"levels={most + 1}").facts.levels == most + 1
    else:
        assert opened(path).facts.levels == levels
