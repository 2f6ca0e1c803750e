from __future__ import annotations

import math

import pytest
import torch

from tests.support import compose, execution_errors, feed_of, small_run
from vae_train.rng import FixedNoise, NoiseBuffers, Rng
from vae_train.training.execution import resolve, runner


def test_auto_is_graph_on_cuda_and_eager_elsewhere():
    assert resolve("auto", torch.device("cpu")) == "eager"
    assert resolve("auto", torch.device("mps")) == "eager"
    assert resolve("auto", torch.device("cuda")) == "graph"
    assert resolve("compile", torch.device("cuda")) == "compile"
    assert resolve("eager", torch.device("cuda")) == "eager"


@pytest.mark.parametrize(("mode", "executed"), [("auto", "eager"), ("eager", "eager"), ("compile", "compile")])
def test_every_mode_has_a_runner(mode, executed):
    data, learner, _ = small_run()
    assert runner(mode, learner.step, feed_of(data, learner), learner.gradient_norm).mode == executed


def test_graph_needs_cuda():
    data, learner, _ = small_run()
    with pytest.raises(ValueError, match="execution=graph needs CUDA, not cpu"):
        runner("graph", learner.step, feed_of(data, learner), learner.gradient_norm)
    (error,) = execution_errors(compose("execution=graph", "device=cpu"))
    assert error.where == "execution=graph"
    assert error.message == "needs CUDA, not cpu; use execution=eager or execution=compile"


def test_rows_hold_every_scalar_of_a_step():
    data, learner, _ = small_run()
    rows = runner("eager", learner.step, feed_of(data, learner), learner.gradient_norm)(0, 5)
    metrics = dict(zip(rows.names, rows.values[0].tolist(), strict=True))
    assert metrics["elbo"] == pytest.approx(-(metrics["distortion"] + metrics["rate"]))
    assert all(math.isfinite(value) for value in metrics.values())


def test_noise_in_buffers_is_the_noise_of_an_rng():
    noise = NoiseBuffers(3, "train", "cpu")
    noise.seek(0)
    first = noise.rng()
    a, b = first.normal((2, 5, 3)), first.uniform((1, 5), torch.float64)
    for position in (0, 7, 1, 7):
        noise.seek(position)
        rng, expected = noise.rng(), Rng(3, "train", position)
        x, y = rng.normal((2, 5, 3)), rng.uniform((1, 5), torch.float64)
        assert (x.data_ptr(), y.data_ptr()) == (a.data_ptr(), b.data_ptr())
        assert torch.equal(x, expected.normal((2, 5, 3)))
        assert torch.equal(y, expected.uniform((1, 5), torch.float64))
    other = noise.like()
    other.seek(9)
    assert torch.equal(other.rng().normal((2, 5, 3)), Rng(3, "train", 9).normal((2, 5, 3)))
    assert torch.equal(noise.rng().normal((2, 5, 3)), Rng(3, "train", 7).normal((2, 5, 3)))


def test_noise_of_other_shapes_than_before_is_an_error():
    with pytest.raises(RuntimeError, match=r"noise with shape \(3,\) was requested, but the recorded shape is \(2,\)"):
        FixedNoise([torch.zeros(2)]).normal((3,))
