"""`vae train plan=true`: estimates the memory and time of a training without running it."""

import logging
import math
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from vae_train.batch import Batch, DataFacts
from vae_train.data.dataset import TransformedImages, Transforms
from vae_train.data.session import DataSession
from vae_train.data.storage.stored import StoredImages, TensorStore
from vae_train.data.stream import Stream
from vae_train.rng import Rng
from vae_train.runs.build import Builder, build_learner, build_model, build_source, build_trainer, build_transforms
from vae_train.runs.config import Config
from vae_train.runs.defaults import with_defaults
from vae_train.training.execution import Mode, Runner
from vae_train.training.learner import Learner
from vae_train.training.step import StepInputs
from vae_train.util.live_memory import peak_bytes
from vae_train.util.runtime import prepare, resolve_device
from vae_train.util.text import duration, size

log = logging.getLogger("vae_train")

WARM, TIMED = 5, 10
"""Runner calls before and during the timing. A CUDA graph is captured in the fourth call."""

MAX_SECONDS = 10.0
"""Time after which no further call starts, before and during the timing each, so that plans of slow steps end. Calls
before the timing that compile or capture a step always take place."""

PASS = 10
"""Number of batches of random images."""


def show_plan(config: Config, session: DataSession, builder: Builder) -> None:
    """Logs layers with shapes and parameters, memory and time. The data is inspected but not read.

    Args:
        config: the resolved configuration.
        session: inspects the data.
        builder: locates classes.
    """
    device = resolve_device(config["device"])
    prepare(config["threads"], config["learner"]["precision"])
    stored, transforms = session.inspect(build_source(config, builder)), build_transforms(config, builder)
    facts, config = transforms.facts(stored), with_defaults(config, stored)
    trainer = build_trainer(config, device, builder)
    epochs = trainer.epochs_of(facts.num_train)
    batch_size, steps = epochs.batch_size, facts.num_train / epochs.batch_size
    learner = build_learner(config, build_model(config, facts, device, builder), facts, builder)
    images = _random_images(stored, transforms, PASS * batch_size, device)
    stream = Stream(images, batch_size, seed=config["seed"], device=device)
    layers, peak = _layers(learner, stream.batch(0)), _step_bytes(learner, stream.batch(0))
    seconds = _seconds_per_step(trainer.runner(learner, stream), trainer.execution)
    for name, module, shape, count in layers:
        log.info("%-26s %-22s %-18s %12s", name, module, "x".join(map(str, shape)), f"{count:,}" if count else "")
    count = sum(p.numel() for p in learner.parameters)
    frozen = sum(p.numel() for p in learner.parameters if not p.requires_grad)
    both = 4 * (2 * count - frozen)
    activations = max(0, peak - 4 * (count - frozen))  # the peak includes gradients
    states = learner.optimizer.optimizer.state.values()
    state = sum(t.nbytes for values in states for t in values.values() if isinstance(t, Tensor))
    pixels = facts.num_train * math.prod(facts.data_shape) * (1 if (stored.levels or math.inf) <= 256 else 4)
    total = both + state + activations + pixels + (4 * count if learner.average is not None else 0)
    log.info("parameters      %s", f"{count:,}, of which {frozen:,} are frozen" if frozen else f"{count:,}")
    log.info("memory          about %s: parameters and gradients %s, optimiser %s, activations %s, training images %s",
             size(total), size(both), size(state), size(activations), size(pixels))  # fmt: skip
    log.info("steps           %s: %d epochs of %s", f"{epochs.last_step:,}", epochs.total, f"{steps:,.1f}")
    log.info("time            about %s on %s (%s), timed on random images, without validation",
             duration(seconds * epochs.last_step), device, trainer.execution)  # fmt: skip


def _random_images(facts: DataFacts, transforms: Transforms, count: int, device: torch.device) -> TransformedImages:
    """Images of noise, with the same transforms as the images of the data set."""
    columns = [torch.randint(size, (count,), device=device) for size in facts.factor_sizes]
    y, shape = torch.stack(columns, 1) if columns else None, (count, *facts.data_shape)
    if facts.levels is None:
        pixels = torch.rand(shape, device=device)
        if facts.units is not None:
            pixels = facts.units.from_unit(pixels)
    else:
        dtype = torch.uint8 if facts.levels <= 256 else torch.float32
        pixels = torch.randint(facts.levels, shape, dtype=dtype, device=device)
    steps = transforms.active()._replace(units=facts.units, missing=facts.missing)
    return TransformedImages(StoredImages(TensorStore(pixels), facts.levels, y), device, steps)


def _layers(learner: Learner, batch: Batch) -> list[tuple[str, str, tuple[int, ...], int]]:
    """Name, class, output shape per image and number of parameters of every leaf module, in the order of execution.

    Modules whose parameters are used without calling them, as those of flows, follow with shape ().
    """
    layers: list[tuple[str, str, tuple[int, ...], int]] = []
    names = {module: name for name, module in learner.model.named_modules() if not list(module.children())}

    def add_layer(module: nn.Module, _: Any, output: Any) -> None:
        if module in names and isinstance(output, Tensor):
            count = sum(p.numel() for p in module.parameters())
            layers.append((names[module], type(module).__name__, tuple(output.shape[1:]), count))

    handle = register_module_forward_hook(add_layer)
    with torch.no_grad():
        learner.model(batch, Rng(learner.seed, "plan", device=learner.device))
    handle.remove()
    called = {name for name, *_ in layers}
    for module, name in names.items():
        count = sum(p.numel() for p in module.parameters())
        if count and name not in called:
            layers.append((name, type(module).__name__, (), count))
    return layers


def _step_bytes(learner: Learner, batch: Batch) -> int:
    """Largest number of bytes of activations, gradients and other results within one forward and backward pass."""
    rng = Rng(learner.seed, "plan", device=learner.device)
    return peak_bytes(lambda: learner.backward(StepInputs(batch, 0, learner.rates(0), rng)))


def _seconds_per_step(runner: Runner, execution: Mode) -> float:
    def go(step: int, times: int, limit: float = MAX_SECONDS) -> int:
        start = time.perf_counter()
        for _ in range(times):
            step += len(runner(step, PASS).values)
            if time.perf_counter() - start > limit:
                break
        if runner.feed.device.type == "cuda":
            torch.cuda.synchronize()
        return step

    first = go(0, WARM, MAX_SECONDS if execution == "eager" else math.inf)
    start = time.perf_counter()
    last = go(first, TIMED)
    return (time.perf_counter() - start) / (last - first)
