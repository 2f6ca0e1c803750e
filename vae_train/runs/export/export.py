"""Exports a trained model: graphs that other programs run, weights, and a model card."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from vae_train.distributions.logistic import DiscretizedLogistic, LogisticMixture
from vae_train.runs.build import Builder
from vae_train.runs.export.card import Contents, Program, Weights, model_card, port_text
from vae_train.runs.export.graphs import Decoder, Encoder, Graph
from vae_train.runs.export.hub import upload
from vae_train.runs.export.options import CARD, CONFIG, FACTS, PRIOR, WEIGHTS, Options
from vae_train.runs.export.parity import MAX_DIFFERENCE, difference
from vae_train.runs.export.programs import READERS, WRITERS, trace
from vae_train.runs.export.weights import write_weights
from vae_train.runs.facts import facts_to_dict
from vae_train.runs.fitted_priors import fingerprint
from vae_train.runs.run import Run, write_json, write_text
from vae_train.runs.trained import TrainedModel
from vae_train.util.errors import ErrorDetail, RunError, UsageError
from vae_train.util.folders import results_folder
from vae_train.util.version import package_version

MAX_SUMMED_LEVELS = 1024
"""Levels of a discretised likelihood, whose mean is a sum over all of them. Tracing would take minutes for more."""

log = logging.getLogger("vae_train")


def export(run: Run, options: Options, builder: Builder) -> Path:
    """Exports a run's model into a folder, which is complete or does not exist.

    Args:
        run: the run.
        options: what to export and where, without errors, see `export_errors`.
        builder: locates classes.

    Returns:
        The folder.

    Raises:
        UsageError: the model cannot be exported in this format.
        RunError: an exported program differs from the model, or a file cannot be written or uploaded.
    """
    trained = TrainedModel.open(run, options.checkpoint, torch.device("cpu"), builder)
    graphs = _graphs(trained, options)
    folder, numbered = Path(options.out) if options.out else run.exports, options.out is None
    with results_folder(folder, overwrite=options.overwrite, numbered=numbered) as results:
        temporary = results.temporary
        programs = [program for graph in graphs for program in _write_programs(graph, trained, options, temporary)]
        weights, fingerprints = list[Weights](), [fingerprint(trained.model, without="")]
        if "safetensors" in options.formats:
            weights.append(_write_weights(trained, run, options, temporary))
        if options.prior is not None:
            with_prior = TrainedModel.open(run, options.checkpoint, trained.device, builder, options.prior)
            weights.append(_write_prior(with_prior, options.prior, temporary))
            fingerprints.append(fingerprint(with_prior.model, without=""))
        write_json(temporary / CONFIG, run.config.to_dict())
        write_json(temporary / FACTS, facts_to_dict(trained.facts))
        contents = Contents(run, trained, options.checkpoint, programs, weights, fingerprints)
        write_text(temporary / CARD, model_card(contents, options.license, options.command(run)))
    log.info("  %s", results.folder)
    if options.hub is not None:
        log.info("  %s", upload(results.folder, options.hub, options.private))
    return results.folder


def _graphs(trained: TrainedModel, options: Options) -> list[Graph]:
    """The graphs to export; empty if only weights are.

    Raises:
        UsageError: the mean of the likelihood has too many terms.
    """
    formats = [name for name in options.formats if name in WRITERS]
    if not formats:
        return []
    encoder, decoder = Encoder(trained), Decoder(trained)
    px = decoder.likelihood(*(port.zeros() for port in decoder.inputs))
    if isinstance(px, DiscretizedLogistic | LogisticMixture) and px.levels > MAX_SUMMED_LEVELS:
        message = f"is not supported: the mean of this likelihood is a sum over {px.levels:,} levels"
        raise UsageError([ErrorDetail(f"format={','.join(formats)}", f"{message}; use format=safetensors")])
    for note in encoder.notes:
        log.info("  %s", note)
    return [encoder, decoder]


def _write_programs(graph: Graph, trained: TrainedModel, options: Options, folder: Path) -> Iterator[Program]:
    """Writes and yields a graph in all formats.

    Raises:
        RunError: the outputs of a program are not those of the model.
    """
    traced = trace(graph)
    signature = " -> ".join(", ".join(map(port_text, ports)) for ports in (graph.inputs, graph.outputs))
    for name, write in WRITERS.items():
        if name not in options.formats:
            continue
        path = folder / f"{graph.name}.{name}"
        write(traced, graph, path)
        error = difference(graph, READERS[name](path), trained)
        if not error <= MAX_DIFFERENCE:
            reason = f"differs from the model by {error:.1e}, more than {MAX_DIFFERENCE:.0e}; nothing was written"
            raise RunError(f"{path.name} {reason}")
        log.info("  %-17s %s; differs from the model by at most %.1e", path.name, signature, error)
        yield Program(path.name, name, graph, error)


def _write_weights(trained: TrainedModel, run: Run, options: Options, folder: Path) -> Weights:
    """Writes the weights that are evaluated."""
    is_average = run.config.at("learner.ema") is not None
    kind = f"{'moving average of the weights' if is_average else 'weights'}, checkpoint {options.checkpoint}"
    write_weights(trained.model, folder / WEIGHTS, {"vae_train": package_version(), "weights": kind})
    log.info("  %-17s %s", WEIGHTS, kind)
    return Weights(WEIGHTS, kind)


def _write_prior(trained: TrainedModel, name: str, folder: Path) -> Weights:
    """Writes the fitted prior that a model has."""
    model: Any = trained.model
    write_weights(model.prior, folder / PRIOR, {"vae_train": package_version(), "prior": name})
    log.info("  %-17s prior %s, fitted by vae fit-prior", PRIOR, name)
    return Weights(PRIOR, f"prior {name}, fitted to the encodings after training")
