from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from vae_train.batch import evenly_spaced
from vae_train.evaluation import maps
from vae_train.evaluation.maps import draw, pca, projector, tsne


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def saturated(picture):
    """How many coloured pixels there are, and of how many hues, in steps of 15 degrees."""
    values = np.asarray(Image.fromarray(picture).convert("HSV")).reshape(-1, 3).astype(int)
    bright = values[(values[:, 1] > 100) & (values[:, 2] > 60)]
    return len(bright), len(set((bright[:, 0] * 24 // 256).tolist()))


@pytest.mark.parametrize(("count", "most"), [(1, 5), (5, 5), (7, 5), (1_000, 999), (10, 1)])
def test_points_are_spread_evenly_without_repetition(count, most):
    index = evenly_spaced(count, most).tolist()
    assert len(set(index)) == len(index) == min(count, most)
    assert index == sorted(index)
    assert index[0] == 0
    assert most == 1 or index[-1] == count - 1
    assert np.ptp(np.diff(index)) <= 1 if len(index) > 1 else True


def test_points_on_a_line_have_one_component():
    t = np.linspace(-3, 5, 50)
    points, share = pca(np.array([1.0, -2.0, 7.0]) + t[:, None] * np.array([2.0, 1.0, -2.0]))
    assert share == pytest.approx([1.0, 0.0])
    assert np.abs(points[:, 0]) == pytest.approx(3 * np.abs(t - t.mean()))  # the direction has length 3
    assert points[:, 1] == pytest.approx(0, abs=1e-12)
    assert points[0, 0] < 0  # the first of the two largest entries points upwards


def test_a_known_covariance():
    rotation = np.linalg.qr(normal(3, 3))[0]
    white = normal(40, 3, seed=1)
    white = np.linalg.qr(white - white.mean(0))[0]  # orthonormal columns with mean 0
    points, share = pca(white * np.array([2.0, 1.0, 0.5]) @ rotation + 9)
    assert share == pytest.approx([4 / 5.25, 1 / 5.25])
    assert np.abs(points) == pytest.approx(np.abs(white[:, :2] * [2, 1]))


@pytest.mark.parametrize("shape", [(30, 5), (4, 9), (200, 2)])
def test_it_is_scikit_learns_but_for_the_sign(shape):
    codes = normal(*shape)
    points, share = pca(codes)
    expected = PCA(2).fit(codes)
    assert share == pytest.approx(expected.explained_variance_ratio_)
    assert np.abs(points) == pytest.approx(np.abs(expected.transform(codes)))


def test_one_dimension_is_itself():
    codes = normal(20, 1)
    points, share = pca(codes)
    assert points[:, 0] == pytest.approx((codes - codes.mean())[:, 0])
    assert not points[:, 1].any()
    assert share.tolist() == [1.0, 0.0]


def test_two_dimensions_are_rotated():
    codes = normal(20, 2)
    points, share = pca(codes)
    assert share.sum() == pytest.approx(1)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.linalg.norm(codes - codes.mean(0), axis=1))


def test_the_sign_does_not_depend_on_the_order_of_the_points():
    codes = normal(50, 4)
    points, _ = pca(codes)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(50)
        assert pca(codes[order])[0] == pytest.approx(points[order])


def test_the_largest_entry_points_upwards():
    t = normal(50, 1)
    assert np.corrcoef(pca(t * [0.5, -2.0])[0][:, 0], t[:, 0])[0, 1] == pytest.approx(-1)
    assert np.corrcoef(pca(t * [0.5, 2.0])[0][:, 0], t[:, 0])[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("shape", [(1, 3), (6, 3), (6, 1)])
def test_what_does_not_vary_is_the_origin(shape):
    points, share = pca(np.full(shape, 3.0))
    assert points.shape == (shape[0], 2)
    assert not points.any()
    assert share.tolist() == [0, 0]
    assert not tsne(np.full(shape, 0.1), 0).any()


def test_tensors_and_arrays_are_the_same():
    codes = normal(30, 4).astype(np.float32)
    assert np.array_equal(pca(torch.from_numpy(codes))[0], pca(codes)[0])
    assert pca(torch.from_numpy(codes).bfloat16().requires_grad_())[0].shape == (30, 2)


def test_tsne_is_a_function_of_codes_and_seed():
    codes = normal(120, 5)
    first = tsne(codes, 0)
    assert np.array_equal(first, tsne(codes.copy(), 0))
    with threadpool_limits(2):
        assert np.array_equal(first, tsne(codes, 0))
    assert not np.allclose(first, tsne(codes, 1))


def test_tsne_parts_clusters():
    y = np.arange(150) % 3
    points = tsne(30 * np.eye(3)[y] + normal(150, 3), 0)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distances, math.inf)
    assert (y[distances.argmin(1)] == y).all()


@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (3, 2), (5, 4), (5, 1), (40, 2), (89, 7)])
@pytest.mark.filterwarnings("error")
def test_tsne_of_few_points(shape):
    """So few that a perplexity of 30 is too much."""
    points = tsne(normal(*shape), 0)
    assert points.shape == (shape[0], 2)
    assert np.isfinite(points).all()
    assert len(np.unique(points.round(6), axis=0)) == shape[0]


def test_tsne_of_one_dimension_uses_both_of_its_own():
    assert tsne(normal(60, 1), 0).std(0).min() > 0.1


def test_tsne_thins_evenly(monkeypatch):
    monkeypatch.setattr(maps, "MOST", 20)
    codes = normal(50, 3)
    assert np.array_equal(tsne(codes, 0), tsne(codes[evenly_spaced(50, 20).numpy()], 0))


@pytest.mark.parametrize("kinds", [1, 3, 10, 20, 21, 40])
@pytest.mark.parametrize("panels", [1, 2])
def test_a_map_has_its_size_and_the_colours_of_its_classes(tmp_path, kinds, panels):
    xy, y = normal(400, 2), torch.arange(400) % kinds
    draw([(f"map {i}", xy) for i in range(panels)], y, None, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (460, 460 * panels + 140, 3)
    count, hues = saturated(picture)
    assert count > 300
    assert hues == 1 if kinds == 1 else hues >= min(kinds, 6)
    shown = saturated(picture[:, 460 * panels + 40 :])[1]  # in the legend
    assert shown == kinds if kinds in (1, 3) else shown >= 6


@pytest.mark.parametrize("count", [1, 5, 400])
def test_a_map_without_labels_is_grey(tmp_path, count):
    draw([("a", normal(count, 2)), ("b", torch.zeros(count, 2))], None, None, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (460, 920, 3)
    assert saturated(picture)[0] == 0
    assert (picture < 128).all(-1).any()


def test_names_replace_the_numbers_of_classes(tmp_path):
    def written(labels, names):
        draw([("a", normal(4, 2))], np.array(labels), names, tmp_path / "a.png")
        return pixels(tmp_path / "a.png")

    plain = written([0, 1, 1, 0], None)
    assert np.array_equal(plain, written([0, 1, 1, 0], ["0", "1"]))
    assert np.array_equal(written([0, 1, 1, 0], ["a" * 17 + "…", "b c"]), written([0, 1, 1, 0], ["a" * 99, "b\nc"]))
    assert not np.array_equal(plain, written([0, 1, 1, 0], ["cat", "dog"]))
    assert np.array_equal(written([-1, 5, 5, -1], ["cat"]), written([-1, 5, 5, -1], None))  # not names[-1]


def test_the_order_of_the_classes_hides_none(tmp_path):
    """Two classes on the same spot, one after the other: both are seen."""
    xy, y = normal(2_000, 2), np.arange(2_000) // 1_000
    draw([("a", 0.1 * xy)], y, None, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")[:, :460].astype(int)
    blue, orange = (picture[..., 2] - picture[..., 0] > 60).sum(), (picture[..., 0] - picture[..., 2] > 60).sum()
    assert 0.6 < blue / orange < 1.7


def read_projector(folder):
    """What TensorBoard reads: the configuration, and the tensor as text."""
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = text_format.Parse((folder / "projector_config.pbtxt").read_text("utf-8"), ProjectorConfig())
    (entry,) = config.embeddings
    return entry, np.loadtxt(folder / entry.tensor_path, delimiter="\t", ndmin=2)


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 8, 8)), (5, (3, 8, 6)), (16, (1, 28, 28)), (17, (3, 128, 64))])
def test_the_projectors_files_hold_what_was_given(tmp_path, count, shape):
    codes, images = normal(count, 3), np.random.default_rng(0).random((count, *shape))
    y = np.arange(count) % 3
    assert projector(tmp_path / "new", codes, y, images, ["zero", "o\tne"]) == count
    entry, tensor = read_projector(tmp_path / "new")
    assert tensor == pytest.approx(codes, rel=1e-5)
    lines = (tmp_path / "new" / entry.metadata_path).read_text("utf-8").splitlines()
    assert lines == [("zero", "o ne", "2")[kind] for kind in y]
    width, height = entry.sprite.single_image_dim
    picture = pixels(tmp_path / "new" / entry.sprite.image_path)
    side = math.ceil(math.sqrt(count))
    assert picture.shape == (side * height, side * width, 3)
    assert (height, width) == ((64, 32) if shape[1] == 128 else shape[1:])
    for i in range(count):
        top, left = i // side * height, i % side * width
        tile = picture[top : top + height, left : left + width].transpose(2, 0, 1) / 255
        factor = shape[1] // height
        small = images[i].reshape(shape[0], height, factor, width, factor).mean((2, 4))
        assert tile == pytest.approx(np.broadcast_to(small, tile.shape), abs=0.51 / 255)


def test_the_projector_finds_them(tmp_path):
    """TensorBoard's own code, for a folder without event files."""
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin

    projector(tmp_path, normal(7, 3), np.arange(7), np.zeros((7, 1, 4, 4)))
    plugin = ProjectorPlugin(TBContext(logdir=str(tmp_path)))
    plugin._update_configs()
    (entry,) = plugin._configs["."].embeddings
    assert (list(entry.tensor_shape), entry.tensor_name) == ([7, 3], "codes")


def test_the_projector_shows_codes_alone_and_is_written_again(tmp_path):
    projector(tmp_path, normal(4, 3))
    projector(tmp_path, torch.zeros(3, 1))
    entry, tensor = read_projector(tmp_path)
    assert tensor.tolist() == [[0.0]] * 3
    assert not entry.metadata_path
    assert not entry.HasField("sprite")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["projector_config.pbtxt", "tensors.tsv"]


def test_the_projector_thins_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(maps, "MOST", 9)
    codes, y, images = torch.arange(20.0)[:, None], torch.arange(20), torch.arange(20.0).view(20, 1, 1, 1) / 20
    assert projector(tmp_path, codes, y, images) == 9
    _, tensor = read_projector(tmp_path)
    expected = evenly_spaced(20, 9).tolist()
    assert tensor[:, 0].tolist() == expected
    assert (tmp_path / "metadata.tsv").read_text().split() == [str(i) for i in expected]
    assert pixels(tmp_path / "sprite.png")[..., 0].ravel() / 255 == pytest.approx(np.array(expected) / 20, abs=0.01)


@pytest.mark.parametrize("shape", [(2, 5, 5), (1, 1, 300), (3, 1, 1)])
def test_a_sprite_of_what_is_no_picture(tmp_path, shape):
    projector(tmp_path, normal(4, 2), None, np.full((4, *shape), 2.0))
    picture = pixels(tmp_path / "sprite.png")
    assert max(picture.shape) <= 128
    assert (picture == 255).all()


def test_digits_are_parted():
    x, y = load_digits(return_X_y=True)
    x, y = x[:300] / 16, y[:300]
    points = tsne(x, 0)
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    np.fill_diagonal(distances, math.inf)
    assert (y[distances.argmin(1)] == y).mean() > 0.9
