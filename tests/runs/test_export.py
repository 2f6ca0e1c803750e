"""Exported programs compute what the model computes, for every family, in units and layout of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.support import LAYERED, build_model, choices, compose, levels_for
from vae_train.batch import DataFacts, Factor, Units
from vae_train.data.dataset import Transforms
from vae_train.data.transforms.preprocessing import Preprocessing
from vae_train.model.condition import Condition
from vae_train.runs.export.graphs import Decoder, Encoder, Graph
from vae_train.runs.export.parity import difference
from vae_train.runs.export.ports import condition_ports
from vae_train.runs.export.programs import PACKAGES, READERS, WRITERS, ProgramFormat, trace
from vae_train.runs.trained import TrainedModel

SMALL = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]")
OUTPUTS = {
    "gaussian": ["log_variance"],
    "full_covariance": ["log_variance", "covariance"],
    "low_rank": ["log_variance", "covariance"],
    "categorical": ["codes"],
    "joint": ["log_variance", "codes"],
    "von_mises_fisher": ["direction", "concentration"],
    **{name: ["codes"] for name in ("vq", "rvq", "fsq")},
}
"""Posterior -> what an encoder returns besides the mean."""
CONV = ("model=conv", "model.encoder.channels=4", "latent_dim=3", "model/likelihood=bernoulli")
SPATIAL = ("model=conv_spatial", "latent_shape=[2,4,4]", "model.encoder.channels=4", "model/likelihood=bernoulli")
LOGIT = Preprocessing(dequantize=True, logit=1e-6, mean=0.3, std=2.0)
UNITS = {
    "shift": (5.0, 0.0, -300.0),
    "scale": (1.0, 0.01, 20.0),
    "low": (1.0, -0.1, -400.0),
    "high": (9.0, 0.1, -200.0),
}


def model_of(*overrides: str, preprocessing: Preprocessing | None = None, **facts: Any) -> TrainedModel:
    """A model with its initial weights, of images with 17 levels unless `facts` says otherwise."""
    known = DataFacts(**{"data_shape": (1, 8, 8), "levels": 17, "num_train": 10, **facts})
    transforms = Transforms(preprocessing=preprocessing)
    size = () if any("latent_" in word for word in overrides) else ("latent_dim=4",)
    cfg = compose(*size, *overrides)
    return TrainedModel(build_model(cfg, known.data_shape, transforms.facts(known).levels), known, transforms)


def layered(name: str, condition: str | None) -> TrainedModel:
    """A small model with several layers of latents."""
    overrides = [f"model={name}", *LAYERED[name], "model/likelihood=bernoulli", "latent_dim=1"]
    classes = Factor("class", 10)
    return model_of(*overrides, f"model.condition={condition or 'null'}", levels=2, factors=(classes,))


def program(graph: Graph, folder: Path, name: ProgramFormat = "pt2") -> Any:
    """The graph as it is called after it was written and read."""
    path = folder / f"{graph.name}.{name}"
    WRITERS[name](trace(graph), graph, path)
    return READERS[name](path)


def needs(name: ProgramFormat) -> None:
    """Skips a test of ONNX without its packages."""
    for package in PACKAGES[name]:
        pytest.importorskip(package)


def encode(trained: TrainedModel, x: Tensor) -> Tensor:
    """The mean of the posterior of images as the module takes them."""
    with torch.no_grad():
        return trained.single_latent.encode(x).mean


def each(names: list[str], fast: tuple[str, ...]) -> pytest.MarkDecorator:
    """A test of every name, of which all but some are slow."""
    marked = [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]
    return pytest.mark.parametrize("name", marked)


@each(choices("model/posterior"), fast=("gaussian", "joint", "planar"))
def test_an_encoder_describes_every_posterior(name: str, tmp_path: Path) -> None:
    trained = model_of(*SMALL, f"model/posterior={name}", "latent_dim=10")
    graph = Encoder(trained)
    assert [port.name for port in graph.outputs] == ["mean", *OUTPUTS.get(name, [])]
    assert difference(graph, program(graph, tmp_path), trained) < 1e-5
    assert (graph.notes == ()) == (name == "gaussian")


@each(list(LAYERED), fast=("lvae",))
@pytest.mark.parametrize("condition", [None, "label"])
def test_layers_of_latents_are_inputs_and_outputs(name: str, condition: str | None, tmp_path: Path) -> None:
    trained = layered(name, condition)
    graphs, count = (Encoder(trained), Decoder(trained)), len(trained.model.latent_shapes)
    names = [[port.name for port in ports] for graph in graphs for ports in (graph.inputs, graph.outputs)]
    label, layers = ["label"] * (condition is not None), range(1, count + 1)
    outputs = [name for n in layers for name in (f"mean_{n}", f"log_variance_{n}")]
    assert names == [["image", *label], outputs, [*(f"z_{n}" for n in layers), *label], ["image"]]
    for graph in graphs:
        assert difference(graph, program(graph, tmp_path), trained) < 1e-5
    assert "counted from the topmost" in graphs[0].notes[-1]
    with torch.no_grad():
        mean, log_variance = graphs[0](*(port.zeros() for port in graphs[0].inputs))[-2:]
        expected = trained.encode(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), label=[0] if condition else None)[-1]
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(torch.exp(log_variance / 2), expected.std)


def test_a_ladder_of_one_layer_is_exported(tmp_path: Path) -> None:
    one = ("model=lvae", "model.latents=[3]", "model.hidden=[8]", "latent_dim=1")
    trained = model_of(*one, "model/likelihood=bernoulli", levels=2)
    for graph in (Encoder(trained), Decoder(trained)):
        assert difference(graph, program(graph, tmp_path), trained) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERED)
def test_layers_of_latents_can_be_written_as_onnx(name: str, tmp_path: Path) -> None:
    needs("onnx")
    trained = layered(name, "label")
    for graph in (Encoder(trained), Decoder(trained)):
        assert difference(graph, program(graph, tmp_path, "onnx"), trained) < 1e-4


@pytest.mark.parametrize("posterior", ["full_covariance", "low_rank"])
def test_a_covariance_is_that_of_samples(posterior: str) -> None:
    trained = model_of(*SMALL, f"model/posterior={posterior}", "latent_dim=3")
    graph, x = Encoder(trained), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    with torch.no_grad():
        _, log_variance, covariance = graph(x)
        z = trained.encode(x.expand(3000, 1, 8, 8)).sample()
    torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2).log(), log_variance)
    torch.testing.assert_close(covariance[0], torch.cov(z.T), atol=0.15, rtol=0.1)


@each(choices("model/likelihood"), fast=("bernoulli", "gaussian"))
def test_a_decoder_has_the_mean_of_every_likelihood(name: str, tmp_path: Path) -> None:
    levels = levels_for(compose(f"model/likelihood={name}").model.likelihood)
    trained = model_of(*SMALL, f"model/likelihood={name}", levels=levels)
    graph = Decoder(trained)
    assert difference(graph, program(graph, tmp_path), trained) < 1e-5


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("pt2", CONV),
        pytest.param("onnx", CONV, marks=pytest.mark.slow),
        pytest.param("pt2", SPATIAL, marks=pytest.mark.slow),
        pytest.param("onnx", SPATIAL, marks=pytest.mark.slow),
    ],
)
def test_programs_take_batches_of_any_size(name: ProgramFormat, model: tuple[str, ...], tmp_path: Path) -> None:
    needs(name)
    trained = model_of(*model, levels=2)
    for graph in (Encoder(trained), Decoder(trained)):
        call = program(graph, tmp_path, name)
        assert difference(graph, call, trained) < 1e-5
        for size in (1, 2, 9):
            outputs = call([port.zeros().expand(size, *port.shape) for port in graph.inputs])
            assert [(size, *port.shape) for port in graph.outputs] == [tuple(output.shape) for output in outputs]


@pytest.mark.parametrize("name", ["pt2", "onnx"])
def test_preprocessing_is_part_of_the_programs(name: ProgramFormat, tmp_path: Path) -> None:
    """A scale of 1 - 2e-6 before a logit, of all levels; by the formula in the docstring, in float64."""
    needs(name)
    trained = model_of(*SMALL, "model/likelihood=gaussian", levels=256, preprocessing=LOGIT)
    k = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
    v = (k.double() + 0.5) / 256
    x = (torch.logit(1e-6 + (1 - 2e-6) * v) - 0.3) / 2
    mean = program(Encoder(trained), tmp_path, name)([k])[0]
    torch.testing.assert_close(mean, encode(trained, x.float()), atol=1e-5, rtol=1e-5)

    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = trained.single_latent.decode(z).mean.double()
    expected = ((torch.sigmoid(2 * raw + 0.3) - 1e-6) / (1 - 2e-6)).clamp(0, 1).float()
    torch.testing.assert_close(program(Decoder(trained), tmp_path, name)([z])[0], expected)


@pytest.mark.parametrize(
    ("layout", "shape", "order"),
    [("ND", (1, 1, 3), None), ("NCT", (3, 1, 5), (0, 1, 2)), ("NTC", (3, 1, 5), (0, 2, 1)), ("NHWC", (3, 2, 5), None)],
)
def test_arrays_have_their_units_and_layout(layout: str, shape: Any, order: Any, tmp_path: Path) -> None:
    units = Units((1, 1, 3) if layout == "ND" else (3, 1, 1), **UNITS)
    trained = model_of(*SMALL, "model/likelihood=gaussian", data_shape=shape, levels=None, units=units, layout=layout)
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    scaled = x.numpy() * units.array("scale") + units.array("shift")
    arrays = scaled.transpose(0, 2, 3, 1) if layout == "NHWC" else np.squeeze(scaled, (1, 2) if layout == "ND" else 2)
    arrays = arrays if order is None else arrays.transpose(order)
    encoder, decoder = Encoder(trained), Decoder(trained)
    assert (encoder.inputs[0].name, encoder.inputs[0].dtype) == ("image" if layout == "NHWC" else "x", torch.float32)
    mean = program(encoder, tmp_path)([torch.from_numpy(np.ascontiguousarray(arrays)).float()])[0]
    torch.testing.assert_close(mean, encode(trained, x), atol=1e-4, rtol=1e-4)
    found = program(decoder, tmp_path)([mean])[0]
    assert found.shape == arrays.shape
    torch.testing.assert_close(found.double(), trained.decode(mean), atol=1e-4, rtol=1e-5)


def test_values_far_from_zero_are_double(tmp_path: Path) -> None:
    units = Units((1, 1, 3), **(UNITS | {"shift": (1e6, 0.0, 0.0), "low": (1e6 - 3, -1.0, -1.0)}))
    facts = {"data_shape": (1, 1, 3), "levels": None, "units": units, "layout": "ND"}
    trained = model_of(*SMALL, "model/likelihood=gaussian", "latent_dim=2", **facts)
    encoder, decoder = Encoder(trained), Decoder(trained)
    assert encoder.inputs[0].dtype == decoder.outputs[0].dtype == torch.float64
    assert all(difference(graph, program(graph, tmp_path), trained) < 1e-6 for graph in (encoder, decoder))


def test_missing_values_are_nan(tmp_path: Path) -> None:
    units = Units((1, 1, 3), **UNITS)
    facts = {"data_shape": (1, 1, 3), "levels": None, "units": units, "layout": "ND", "missing": True}
    trained = model_of(*SMALL, "model/likelihood=gaussian", "latent_dim=2", **facts)
    encoder = Encoder(trained)
    call = program(encoder, tmp_path)
    mean = call([torch.tensor([[torch.nan, 0.01, -320.0]])])[0]
    torch.testing.assert_close(mean, encode(trained, torch.tensor([0.0, 1.0, -1.0]).view(1, 1, 1, 3)))
    assert difference(encoder, call, trained) < 1e-5


def test_the_condition_is_a_second_input(tmp_path: Path) -> None:
    trained = model_of(*SMALL, "model.condition=label", factors=(Factor("class", 10),))
    graph = Encoder(trained)
    _, label = graph.inputs
    assert (label.name, label.shape, label.dtype) == ("label", (), torch.int64)
    assert Decoder(trained).inputs[1] == label
    call = program(graph, tmp_path)
    assert difference(graph, call, trained) < 1e-5
    x = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    same, other = (call([x, torch.tensor([0, number])])[0] for number in (0, 7))
    assert torch.equal(same[0], same[1])
    assert not torch.equal(other[0], other[1])


def test_factors_are_columns() -> None:
    (port,) = condition_ports(Condition((3, 4), (1, 8, 8), (2,), prior=True))
    assert (port.name, port.shape, port.dtype) == ("factors", (2,), torch.int64)


def test_an_encoder_holds_no_weights_of_the_decoder(tmp_path: Path) -> None:
    graph = Encoder(model_of("model.encoder.hidden=[8]", "model.decoder.hidden=[512,512]"))
    program(graph, tmp_path)
    assert (tmp_path / "encoder.pt2").stat().st_size < 100_000


@pytest.mark.slow
def test_weights_of_large_onnx_models_are_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    monkeypatch.setattr("vae_train.runs.export.programs.MAX_ONNX_BYTES", 0)
    trained = model_of("model.encoder.hidden=[64]", "model.decoder.hidden=[64]")
    graph = Decoder(trained)
    assert difference(graph, program(graph, tmp_path, "onnx"), trained) < 1e-5
    assert (tmp_path / "decoder.onnx.data").stat().st_size > 16_000
