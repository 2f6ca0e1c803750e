"""The model card of an export: README.md with the data, the protocol, measured metrics and how to use the files."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from vae_train.batch import Factor
from vae_train.runs.differences import settings_text
from vae_train.runs.export.graphs import Graph
from vae_train.runs.export.ports import Port
from vae_train.runs.export.programs import ProgramFormat
from vae_train.runs.html_report.evaluations import Evaluation, read_evaluations
from vae_train.runs.run import Run
from vae_train.runs.trained import TrainedModel
from vae_train.util.text import printable
from vae_train.util.version import package_version

COMPONENTS = ("model", "model.encoder", "model.decoder", "model.posterior", "model.prior", "model.likelihood")
"""Sections of the configuration that are the parts of a model."""

SETTINGS = (
    *("objective", "beta", "optimizer", "lr", "lr_schedule", "batch_size", "epochs", "steps", "seed", "precision"),
    *("learner.ema", "augmentation", "corruption", "init_from"),
)
"""Settings of the training that the card shows; config.json has all."""

USE: Mapping[ProgramFormat, str] = {
    "onnx": """import onnxruntime

encoder, decoder = (onnxruntime.InferenceSession(f"{{part}}.onnx") for part in ("encoder", "decoder"))
{outputs} = encoder.run(None, {{{encoder_items}}})  # NumPy arrays
reconstruction = decoder.run(None, {{{decoder_items}}})[0]""",
    "pt2": """import torch

encoder, decoder = (torch.export.load(f"{{part}}.pt2").module() for part in ("encoder", "decoder"))
{outputs} = encoder({encoder_names})  # tensors
reconstruction = decoder({decoder_names})[0]""",
}
"""Format -> Python that encodes and decodes images."""

PROGRAMS = (
    "The programs take batches of any size. They contain the preprocessing of the run and draw nothing at random: "
    "dequantisation adds the mean of its noise."
)

MAX_NAMES = 20
"""Number of class names in the card."""

ABOUT = {"encoder": "images to q(z | x)", "decoder": "latents to the mean of p(x | z)"}
"""Graph -> what it maps."""

SHARED_MODULES = ("torch.optim", "vae_train.training.lr")
"""Modules with several components."""

Rows = Iterable[Sequence[object]]


class Program(NamedTuple):
    """A file with an exported graph."""

    name: str
    format: ProgramFormat
    graph: Graph
    difference: float
    """Largest difference from the model."""


class Weights(NamedTuple):
    """A file with weights."""

    name: str
    about: str


class Contents(NamedTuple):
    """What an export consists of."""

    run: Run
    trained: TrainedModel
    checkpoint: str
    programs: Sequence[Program]
    weights: Sequence[Weights]
    fingerprints: Collection[str]
    """Those of the exported weights, with the model's own and the fitted prior."""


def model_card(contents: Contents, license: str | None, command: str) -> str:
    """The card in Markdown, with the metadata that the Hugging Face Hub reads.

    Args:
        contents: what was exported.
        license: identifier of a licence; None if it is unknown.
        command: the command that exports the run.
    """
    run, trained_by = contents.run, _recorded_command(contents.run)
    about = f"Licence: {license}." if license else "Its licence is unknown."
    parts = [
        f"---\nlicense: {license or 'unknown'}\nlibrary_name: vae_train\ntags:\n- variational-autoencoder\n---",
        f"# {_plain(run.config['name'])}",
        f"A variational autoencoder, trained and exported with vae_train {package_version()}. {about}",
        *("## Model", _table(("part", "value"), _model_rows(contents))),
        *("## Data", _table(("fact", "value"), _data_rows(contents)), "The licence of the data is that of its source."),
        *("## Training", _table(("setting", "value"), _training_rows(contents))),
        *(["The command that trained it:", _block("bash", trained_by)] if trained_by else []),
        *("## Evaluation", *_evaluations(contents)),
        *("## Files", *_files(contents), "The command that exported it:", _block("bash", command)),
    ]
    return "\n\n".join(parts) + "\n"


def port_text(port: Port) -> str:
    """An input or an output with its shape, and its type unless that is float32."""
    text = f"{port.name} {_shape(port)}"
    return text if port.dtype == torch.float32 else f"{text} {_dtype(port)}"


def _shape(port: Port) -> str:
    return f"({', '.join(['batch', *map(str, port.shape)])})" if port.shape else "(batch,)"


def _dtype(port: Port) -> str:
    return str(port.dtype).removeprefix("torch.")


def _model_rows(contents: Contents) -> Rows:
    config = contents.run.config
    for path in COMPONENTS:
        if (target := config.at(f"{path}._target_")) is not None:
            yield path.rpartition(".")[2], _class_name(target)
    shapes = ["x".join(map(str, shape)) for shape in contents.trained.model.latent_shapes]
    yield "latent shape", ", ".join(shapes) + (" from the topmost layer down" if len(shapes) > 1 else "")
    if config.at("model.condition"):
        yield "condition", config.at("model.condition")
    yield "parameters", f"{sum(p.numel() for p in contents.trained.model.parameters()):,}"


def _data_rows(contents: Contents) -> Rows:
    facts, data, texts = contents.trained.facts, contents.run.config["data"], settings_text(contents.run.config)
    channels, height, width = facts.data_shape
    yield "source", _class_name(data["_target_"])
    for place in ("root", "path"):
        if isinstance(data.get(place), str):  # without the folders of this machine
            yield place, os.path.basename(data[place].rstrip("/"))
    yield "shape", width if facts.layout == "ND" else f"{height}x{width}x{channels}"
    yield "levels", facts.levels or "continuous"
    yield "training images", f"{facts.num_train:,}"
    if facts.factors:
        yield "labels", ", ".join(map(_factor_text, facts.factors))
    if contents.trained.transforms.preprocessing is not None:
        names = ("dequantize", "logit", "mean", "std")
        yield "preprocessing", ", ".join(f"{name}={texts.get(f'preprocessing.{name}')}" for name in names)
    yield "checksum", contents.run.environment().get("data_checksum", "unknown")


def _factor_text(factor: Factor) -> str:
    names = ", ".join(map(str, (factor.values or ())[:MAX_NAMES]))
    return f"{factor.name} ({factor.size} values{f': {names}' * bool(names)}{', …' * (factor.size > MAX_NAMES)})"


def _training_rows(contents: Contents) -> Rows:
    summary, environment, texts = contents.run.summary(), contents.run.environment(), settings_text(contents.run.config)
    for name in SETTINGS:
        target, value = texts.get(f"{name}._target_"), texts.get(name, "null")
        if target is not None and getattr(contents.trained.transforms, name, True) is not None:
            yield name, _class_name(target)
        elif target is None and value != "null":
            yield name, value
    best = f"best (epoch {summary['best_epoch']} by {summary.get('best_by')})" if "best_epoch" in summary else "best"
    yield "checkpoint", best if contents.checkpoint == "best" else contents.checkpoint
    packages = environment.get("packages")
    values = {"device": environment.get("device"), "started": environment.get("started")}
    values["PyTorch"] = packages.get("torch") if isinstance(packages, Mapping) else None
    yield from ((name, value) for name, value in values.items() if value)


def _evaluations(contents: Contents) -> list[str]:
    """The metrics that `vae eval` measured of the exported weights."""
    evaluations = read_evaluations(contents.run)
    current = [evaluation for evaluation in evaluations if evaluation.weights in contents.fingerprints]
    if current:
        return [text for evaluation in current for text in _metrics(evaluation)]
    command = printable(f"vae eval run={contents.run.as_typed}", keep="")
    return [f"{'Only other weights were' if evaluations else 'Not'} evaluated; `{command}` evaluates these."]


def _metrics(evaluation: Evaluation) -> list[str]:
    table = _table(("metric", "value", "conditions"), evaluation.rows)
    notes = [_plain(note) for note in (evaluation.protocol, *evaluation.warnings) if note]
    return [f"Split {_plain(evaluation.name)}, with standard errors:", table, *notes]


def _files(contents: Contents) -> list[str]:
    rows = [(p.name, ABOUT[p.graph.name], f"{p.difference:.1e}") for p in contents.programs]
    rows += [(weights.name, weights.about, "") for weights in contents.weights]
    rows += [("config.json", "configuration of the run", ""), ("facts.json", "facts about its data", "")]
    graphs = {program.graph.name: program.graph for program in contents.programs}
    formats = dict.fromkeys(program.format for program in contents.programs)
    ports = [
        (graph.name, kind, port.name, _shape(port), _dtype(port), port.about)
        for graph in graphs.values()
        for kind, ports in (("input", graph.inputs), ("output", graph.outputs))
        for port in ports
    ]
    parts = [_table(("file", "content", "largest difference from the model"), rows)]
    parts += [PROGRAMS, _table(("program", "", "name", "shape", "type", "meaning"), ports)] if ports else []
    parts += [note for graph in graphs.values() for note in graph.notes]
    return [*parts, *(_block("python", _usage(name, graphs)) for name in formats)]


def _usage(name: ProgramFormat, graphs: Mapping[str, Graph]) -> str:
    """Python that runs the programs of a format."""
    outputs = [port.name for port in graphs["encoder"].outputs]
    images, *label = [port.name for port in graphs["encoder"].inputs]
    wanted = "direction" if "direction" in outputs else "mean"
    latents = [name for name in outputs if name.startswith(wanted)]
    layers = [port.name for port in graphs["decoder"].inputs[: len(latents)]]
    items = [f'"{each}": {each}' for each in label]
    return USE[name].format(
        outputs=", ".join(outputs) if len(outputs) > 1 else f"({outputs[0]},)",
        encoder_names=", ".join([images, *label]),
        decoder_names=", ".join([*latents, *label]),
        encoder_items=", ".join([f'"{images}": {images}', *items]),
        decoder_items=", ".join([*(f'"{z}": {mean}' for z, mean in zip(layers, latents, strict=True)), *items]),
    )


def _recorded_command(run: Run) -> str | None:
    """The command line that trained the run, if it was a command."""
    recorded = run.environment().get("command")
    if not isinstance(recorded, list) or len(recorded) < 2 or recorded[1] != "train":
        return None
    return "vae " + shlex.join(map(str, recorded[1:]))


def _table(head: Sequence[str], rows: Rows) -> str:
    lines = [head, ["---"] * len(head), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _block(kind: str, text: str) -> str:
    shown = printable(text, keep="\n" if kind == "python" else "")
    return f"```{kind}\n{shown.replace('```', '')}\n```"


def _class_name(target: object) -> str:
    """The name by which a component is chosen, which is that of its file, or else of its class."""
    module, _, name = str(target).rpartition(".")
    return name if module in SHARED_MODULES else module.rpartition(".")[2]


def _plain(value: object) -> str:
    """Text of an untrusted file on one line, without Markdown's control characters."""
    return "".join(f"\\{c}" if c in "|`<>[]*" else c for c in printable(str(value), keep=""))
