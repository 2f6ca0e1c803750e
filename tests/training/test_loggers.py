from __future__ import annotations

import csv
import json
import math
import re
import time
from contextlib import ExitStack
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from vae_train.training.loggers.base import Logger
from vae_train.training.loggers.files import Files, read_metrics
from vae_train.training.loggers.tensorboard import TensorBoard
from vae_train.util.errors import RunError


@pytest.fixture
def files(tmp_path):
    """Opens files of a run, and closes them at the end of the test."""
    with ExitStack() as stack:

        def make(step=0):
            found = Files(tmp_path, step)
            stack.callback(found._file.close)
            return found

        yield make


def row(step, split="train", scope="step", **values):
    return {"step": step, "epoch": 1, "split": split, "scope": scope, **values}


def test_rows_come_back_as_they_were(tmp_path, files):
    writer = files()
    rows = [row(5, loss=1.5), row(10, loss=0.25), row(10, "valid", "epoch", elbo=-3.0)]
    for one in rows:
        writer.metrics(one)
    assert read_metrics(tmp_path / "metrics.jsonl") == rows


def test_a_row_is_on_the_disk_before_the_next(tmp_path, files):
    files().metrics(row(5, loss=1.5))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_rows_after_the_step_that_a_run_goes_on_from_are_cut(tmp_path, files):
    first = files()
    for step in (5, 10, 15):
        first.metrics(row(step))
    second = files(step=10)
    second.metrics(row(15, loss=2.0))
    assert read_metrics(tmp_path / "metrics.jsonl") == [row(5), row(10), row(15, loss=2.0)]


def test_a_new_run_starts_with_an_empty_file(tmp_path, files):
    files().metrics(row(5))
    files()
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_last_line_that_was_cut_short_is_left_out(tmp_path, files, cut):
    writer = files()
    writer.metrics(row(5))
    writer.metrics(row(10))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[: -1 - cut])
    assert read_metrics(path) == [row(5)]
    files(step=10).metrics(row(10))
    assert read_metrics(path) == [row(5), row(10)]


def test_no_file_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_what_is_not_finite_is_null_in_json(tmp_path, files):
    files().metrics(row(5, loss=math.nan, rate=-math.inf))
    found = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail)
    assert (found["loss"], found["rate"]) == (None, None)


def test_the_csv_has_the_columns_of_all_rows(tmp_path, files):
    writer = files()
    writer.metrics(row(5, loss=1.5, lr=0.1))
    writer.metrics(row(10, "valid", "epoch", elbo=-3.0))
    writer.close()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["step", "epoch", "split", "scope", "loss", "lr", "elbo"]
    assert (found[0]["loss"], found[0]["elbo"], found[1]["elbo"]) == ("1.5", "", "-3.0")


def test_a_folder_that_cannot_be_written_is_an_error_of_the_run(tmp_path):
    with pytest.raises(RunError, match=r"could not write .*metrics\.jsonl"):
        Files(tmp_path / "nowhere")


def test_image_grids_are_png_files_of_their_size(tmp_path, files):
    grid = torch.rand(3, 20, 30)
    files().image_grid("samples", "epoch-0001", 5, grid)
    with Image.open(tmp_path / "samples" / "epoch-0001.png") as found:
        assert found.size == (30, 20)
        assert abs(found.getpixel((4, 7))[0] - 255 * grid[0, 7, 4].item()) < 1


def events(folder):
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def curve(found, name):
    return [(event.step, event.value) for event in found.Scalars(name)]


def test_tensorboard_has_a_run_per_split_with_the_same_tags(tmp_path):
    board = TensorBoard(tmp_path, 0, 10)
    for step, loss in ((5, 1.5), (10, 0.25)):
        board.metrics(row(step, loss=loss, images_per_second=9.0))
    board.metrics(row(10, scope="epoch", loss=0.875, elbo=-4.0))
    board.metrics(row(10, "valid", "epoch", elbo=-3.0))
    board.metrics(row(10, "best/test", "epoch", elbo=-5.0, nll=4.0))
    board.close()
    tags = {name: set(events(tmp_path / name).Tags()["scalars"]) for name in ("train", "train_steps", "valid")}
    assert tags["train_steps"] == {"optimization/loss", "speed/images_per_second"}
    assert tags["train"] == {"optimization/loss", "bound/elbo"}
    assert tags["valid"] == {"bound/elbo"}
    assert curve(events(tmp_path / "train_steps"), "optimization/loss") == [(5, 1.5), (10, 0.25)]
    assert curve(events(tmp_path / "train"), "optimization/loss") == [(10, 0.875)]
    assert curve(events(tmp_path / "best/test"), "bound/elbo") == [(10, -5.0)]
    assert curve(events(tmp_path / "best/test"), "evaluation/nll") == [(10, 4.0)]


@pytest.mark.parametrize("channels", [1, 3])
def test_tensorboard_has_image_grids_of_their_size(tmp_path, channels):
    board, grid = TensorBoard(tmp_path, 0, 10), torch.rand(channels, 20, 30)
    board.image_grid("samples", "epoch-0001", 10, grid)
    board.image_grid("samples", "manifold", 10, grid)
    board.image_grid("best/test", "class-means", 10, grid)
    board.close()
    assert events(tmp_path / "best/test").Images("images/class-means")
    found = events(tmp_path / "train")
    assert len(found.Images("images/manifold")) == 1
    (event,) = found.Images("images/samples")
    assert (event.step, event.width, event.height) == (10, 30, 20)
    with Image.open(BytesIO(event.encoded_image_string)) as image:
        levels = torch.tensor(np.array(image)).view(20, 30, channels).permute(2, 0, 1)
    assert (levels - 255 * grid).abs().max() < 1


def test_tensorboard_has_a_bar_for_the_kl_of_every_latent(tmp_path):
    board = TensorBoard(tmp_path, 0, 10)
    board.latents(10, [2.5, 0.0, 1.0])
    board.close()
    found = EventAccumulator(str(tmp_path / "train"), size_guidance={"histograms": 0})
    found.Reload()
    (event,) = found.Histograms("latents/kl_per_dimension")
    assert event.step == 10
    assert event.histogram_value.bucket == [2.5, 0.0, 1.0]
    assert event.histogram_value.bucket_limit == [1.5, 2.5, 3.5]  # the bar of latent 1 is around 1
    assert event.histogram_value.min == 0.5


def test_tensorboard_has_a_page_of_charts_in_the_order_in_which_they_are_read(tmp_path):
    board = TensorBoard(tmp_path, 0, 10)
    metrics = dict.fromkeys(("elbo", "rate", "distortion", "bits_per_dim", "loss", "grad_norm"), 1.0)
    board.metrics(row(10, scope="epoch", **metrics))
    board.close()
    content = events(tmp_path / "train").Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = layout_pb2.Layout.FromString(content)
    assert [group.title for group in layout.category] == ["bound", "optimization"]
    charts = [(chart.title, *chart.multiline.tag) for group in layout.category for chart in group.chart]
    assert [title for title, _ in charts[:4]] == ["ELBO", "rate", "distortion", "bits per dimension"]
    tags = events(tmp_path / "train").Tags()["scalars"]
    assert sorted(tag for _, pattern in charts for tag in tags if re.search(pattern, tag)) == sorted(tags)


def test_tensorboard_hides_points_after_the_step_that_a_run_goes_on_from(tmp_path):
    for start, steps in ((0, (5, 10, 15)), (10, (15, 20))):
        board = TensorBoard(tmp_path, start, 10)
        for step in steps:
            board.metrics(row(step, loss=float(start)))
        board.close()
        time.sleep(1)  # the names of event files have the second, by which they are sorted
    points = curve(events(tmp_path / "train_steps"), "optimization/loss")
    assert points == [(5, 0.0), (10, 0.0), (15, 10.0), (20, 10.0)]


def test_tensorboard_takes_hyperparameters(tmp_path):
    board = TensorBoard(tmp_path, 0, 10)
    best = row(20, "valid", "epoch", elbo=-20.0, lr=0.1)
    board.hyperparameters({"lr": 0.1, "hidden": [3, 4], "name": None, "nesterov": True}, best)
    board.close()
    found = events(tmp_path / "best")
    assert curve(found, "bound/elbo") == [(20, -20.0)]
    assert found.Tags()["scalars"] == ["bound/elbo"]
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_silence_leaves_nothing(tmp_path):
    silent = Logger(tmp_path, 0)
    silent.metrics(row(5))
    silent.image_grid("samples", "final", 5, torch.rand(3, 8, 8))
    silent.close()
    assert list(tmp_path.iterdir()) == []
