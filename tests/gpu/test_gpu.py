"""What only a CUDA device can show; run by scripts/gpu_check."""

import numpy as np
import pytest
import torch

from tests.runs.test_code_priors import Interrupted, Memory, fit
from tests.support import compose, feed_of, plain, update
from vae_train.cli.hydra_compat import conf_dir
from vae_train.data.session import DataSession
from vae_train.data.stream import Stream
from vae_train.evaluation.metrics.nll import estimate_log_likelihood
from vae_train.rng import Rng
from vae_train.runs.build import Builder, assemble
from vae_train.training.checkpoint import Checkpoints
from vae_train.training.state import Patience, TrainingState

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),  # the compiler's advice
]

CUDA = torch.device("cuda")


class HostDraw(Rng):
    """Noise that is made on the CPU and then moved, so that two devices see the same numbers."""

    def __init__(self, seed, device):
        super().__init__(seed, "test")
        self.target = device

    def _take(self, make, shape, dtype):
        return super()._take(make, shape, dtype).to(self.target)


def built(*words, device=CUDA):
    return assemble(plain(compose("logger=none", *words)), DataSession(), device, Builder())


def steps(trainer, learner, data, start, stop, batch_size=128):
    """Trains from step `start` to step `stop`; returns the loss of each step."""
    runner, losses = trainer.runner(learner, feed_of(data, learner, batch_size).stream), []
    while start < stop:
        rows = runner(start, stop - start)
        losses.append(rows.values[:, rows.names.index("loss")])
        start += len(losses[-1])
    trainer.execution = runner.mode
    return torch.cat(losses).cpu()


def state_of(learner, step):
    """The state of a training after `step` updates."""
    state = TrainingState(learner, Patience(None))
    state.progress.step = step
    return state.state_dict()


def beside_eager(execution, count, *words):
    """The losses of `count` steps, eager and in another way, how these were executed, and the last learner's parts."""
    losses, executed = [], []
    for mode in ("eager", execution):
        data, learner, trainer = built(f"execution={mode}", *words)
        losses.append(steps(trainer, learner, data, 0, count))
        executed.append(trainer.execution)
    return losses, executed, (data, learner, trainer)


@pytest.mark.parametrize("model", ["mlp", "conv"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_reduces_the_loss(model, precision):
    data, learner, trainer = built(f"model={model}", f"precision={precision}")
    losses = steps(trainer, learner, data, 0, 100)
    assert losses.isfinite().all()
    assert losses[-10:].mean() < 0.8 * losses[:10].mean()


def test_bfloat16_is_near_float32():
    losses = []
    for precision in ("float32", "bfloat16"):
        data, learner, trainer = built(f"precision={precision}")
        losses.append(steps(trainer, learner, data, 0, 100)[-20:].mean().item())
        assert all(p.dtype == torch.float32 for p in learner.parameters)
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("binarize", ["dynamic", "threshold"])
def test_batches_and_noise_lie_on_the_device(binarize):
    data, learner, _ = built(f"data.binarize={binarize}")
    batch = Stream(data.split("train"), 128, seed=0, device=learner.device).batch(0)
    assert batch.x.is_cuda
    assert batch.y.is_cuda
    assert batch.x.dtype == torch.float32
    trace = learner.model(batch, Rng(0, "train", 0, device=learner.device))
    assert trace.latents[0].z.is_cuda
    assert trace.elbo().is_cuda
    scalars = update(learner, batch, 0)
    assert all(value.is_cuda for value in scalars.values())


def test_noise_is_a_function_of_its_key():
    first, again, other = (Rng(0, "train", step, device=CUDA).normal((1, 8, 4)) for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_initial_weights_do_not_depend_on_the_device(model):
    states = [built(f"model={model}", device=torch.device(name))[1].model.state_dict() for name in ("cpu", "cuda")]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name].cpu()) for name, value in states[0].items())


def test_a_bias_that_starts_from_the_data_hardly_depends_on_the_device():
    learners = [built("model.output_bias=data", device=torch.device(name))[1] for name in ("cpu", "cuda")]
    host, device = (learner.model.decoder.output_bias().cpu() for learner in learners)
    torch.testing.assert_close(device, host, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("ema", ["null", "0.99"])
def test_resuming_in_the_middle_of_an_epoch_changes_nothing(tmp_path, ema):
    words = (f"learner.ema={ema}", "lr_schedule=cosine")
    data, whole, trainer = built(*words)
    expected = steps(trainer, whole, data, 0, 35)

    data, first, trainer = built(*words)
    steps(trainer, first, data, 0, 14)
    Checkpoints(tmp_path).save(["last"], state_of(first, 14))
    data, second, trainer = built(*words)
    state = TrainingState(second, Patience(None))
    state.load_state_dict(Checkpoints(tmp_path).load("last", CUDA))
    assert state.progress.step == 14
    torch.testing.assert_close(steps(trainer, second, data, 14, 35), expected[14:], rtol=1e-4, atol=0)
    for one, other in zip(whole.evaluated.parameters(), second.evaluated.parameters(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-2, atol=2e-3)


def test_a_checkpoint_of_the_gpu_goes_on_on_the_cpu(tmp_path):
    data, learner, trainer = built()
    steps(trainer, learner, data, 0, 10)
    Checkpoints(tmp_path).save(["last"], state_of(learner, 10))
    data, other, trainer = built(device=torch.device("cpu"))
    TrainingState(other, Patience(None)).load_state_dict(Checkpoints(tmp_path).load("last", "cpu"))
    assert torch.isfinite(steps(trainer, other, data, 10, 12)).all()
    assert all(p.device.type == "cpu" for p in other.parameters)


def test_fit_trains_validates_draws_and_saves(tmp_path):
    data, learner, trainer = built("epochs=3", "latent_dim=2")
    summary, _ = trainer.fit(learner, data, Checkpoints(tmp_path), [])
    assert summary["best_elbo"] == pytest.approx(summary["valid_elbo"], rel=0.2)
    assert (tmp_path / "last.pt").is_file()
    assert (tmp_path / "best.pt").is_file()


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_evaluation_equals_the_cpu_given_the_same_noise(model):
    data, learner, trainer = built(f"model={model}")
    valid = data.split("valid")  # the data set itself is the same object for both learners
    steps(trainer, learner, data, 0, 50)
    host_data, host, trainer = built(f"model={model}", device=torch.device("cpu"))
    host.model.load_state_dict(learner.model.state_dict())
    index = torch.arange(180)
    with torch.no_grad():
        on_device = learner.model(valid.fetch(index), HostDraw(0, CUDA), 2)
        on_host = host.model(host_data.split("valid").fetch(index), HostDraw(0, torch.device("cpu")), 2)
    for name in ("elbo", "rate", "distortion"):
        difference = getattr(on_device, name)().cpu() - getattr(on_host, name)()
        assert difference.mean().abs() < 1e-2, name
        # Convolutions run in TF32 by PyTorch's default: the mean holds, a single image may be off by more.
        assert difference.abs().max() < (1e-2 if model == "mlp" else 0.1), name


@pytest.mark.parametrize("model", ["mlp", "conv"])
def test_an_update_at_batch_128(model):
    data, learner, _ = built(f"model={model}", "batch_size=128", "learner.clip_norm=1", "learner.grad_accumulation=2")
    before = [p.clone() for p in learner.parameters]
    batch = Stream(data.split("train"), 128, seed=0, device=learner.device).batch(0)
    scalars = update(learner, batch, 0)
    assert scalars["loss"].isfinite()
    assert all(not torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))


SETTINGS = {
    "plain": (),
    "conv": ("model=conv",),
    "clip": ("learner.clip_norm=0.5",),
    "ema": ("learner.ema=0.9",),
    "pieces": ("learner.grad_accumulation=3", "objective.num_samples=2"),
    "binarised once": ("data.binarize=threshold",),
    "bfloat16": ("precision=bfloat16",),
    "tf32": ("precision=tf32",),
    "augmented": (
        *("augmentation.flip=true", "augmentation.crop=2", "augmentation.rotation=20", "augmentation.translation=0.1"),
        *("augmentation.brightness=0.3", "augmentation.contrast=0.3"),
    ),
    "corrupted": ("corruption.noise=0.1", "corruption.mask=0.3", "corruption.patch=2"),
    "preprocessed": (
        *("data.binarize=none", "model/likelihood=gaussian", "preprocessing.dequantize=true"),
        *("preprocessing.logit=0.05", "preprocessing.mean=-1", "preprocessing.std=2"),
    ),
    "computed": ("data=shapes", "data.size=16", "loader.storage=host"),
    "schedules": ("lr_schedule=cosine", "lr_schedule.warmup=0.2", "objective/beta_schedule=linear", "beta=4"),
}


@pytest.mark.parametrize("overrides", SETTINGS.values(), ids=SETTINGS)
def test_captured_steps_are_the_eager_steps(overrides, caplog):
    losses, executed, _ = beside_eager("graph", 60, *overrides)
    assert executed == ["eager", "graph"], caplog.messages
    # Kernels that add in an order of their own differ in the last bits, and 60 steps amplify them.
    torch.testing.assert_close(losses[1], losses[0], rtol=2e-3, atol=0)
    torch.testing.assert_close(losses[1][:4], losses[0][:4], rtol=1e-5, atol=0)


OWN_PRIORS = [f"model/prior={name}" for name in ("uniform_sphere", "categorical", "joint", "uniform_codes")]
"""Priors that come with their posteriors."""


def parts():
    """Every component that goes with the default ones, and what the others need beside them."""
    beside = {
        "model/posterior=deterministic": ["objective=rae"],
        "objective=rae": ["model/posterior=deterministic"],
    }
    for place in ("objective", "model/posterior", "model/prior", "model/likelihood"):
        for path in sorted((conf_dir() / place).glob("*.yaml")):
            word = f"{place}={path.stem}"
            if word in OWN_PRIORS:
                continue
            grey = place == "model/likelihood" and path.stem != "bernoulli"
            yield [word, *beside.get(word, []), *(["data.binarize=none"] if grey else [])]


@pytest.mark.parametrize("words", parts(), ids=lambda words: words[0])
def test_every_part_takes_the_same_steps_captured_or_not(words):
    losses, _, _ = beside_eager("graph", 20, *words)  # what cannot be captured goes on with eager
    assert losses[0].isfinite().all()
    torch.testing.assert_close(losses[1][:6], losses[0][:6], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "rmsprop", "sgd"])
@pytest.mark.parametrize(
    ("execution", "words"), [("graph", ()), ("compile", ("learner.ema=0.9", "learner.clip_norm=5"))]
)
def test_every_optimizer_is_captured(execution, words, optimizer, caplog):
    words = (f"optimizer={optimizer}", "lr_schedule=cosine", *words)
    losses, executed, (data, learner, trainer) = beside_eager(execution, 40, *words)
    assert executed == ["eager", execution], caplog.messages
    torch.testing.assert_close(losses[1], losses[0], rtol=2e-3, atol=0)
    assert len(trainer.runner(learner, feed_of(data, learner).stream)(40, 1).values) == 1


def test_a_compiled_run_is_resumed_by_an_eager_one(tmp_path):
    data, learner, trainer = built("execution=compile")
    expected = steps(trainer, learner, data, 0, 50)
    data, first, trainer = built("execution=compile")
    steps(trainer, first, data, 0, 25)
    Checkpoints(tmp_path).save(["last"], state_of(first, 25))
    for execution in ("compile", "graph", "eager"):
        data, second, trainer = built(f"execution={execution}")
        TrainingState(second, Patience(None)).load_state_dict(Checkpoints(tmp_path).load("last", CUDA))
        torch.testing.assert_close(steps(trainer, second, data, 25, 50), expected[25:], rtol=2e-3, atol=0)
        assert trainer.execution == execution
    (group,) = second.optimizer.optimizer.param_groups
    assert (group["fused"], group["foreach"], group["capturable"]) == (True, None, False)


def test_auto_is_graph_and_several_small_steps_go_in_one_launch():
    data, learner, trainer = built()
    runner = trainer.runner(learner, Stream(data.split("train"), 100, seed=0, device=CUDA))
    assert trainer.execution == "graph"
    assert [len(runner(step, 50).values) for step in (0, 1, 2, 3)] == [1, 1, 1, 10]
    assert len(runner(13, 7).values) == 1


def test_steps_do_not_wait_for_the_device():
    data, learner, trainer = built()
    runner = trainer.runner(learner, Stream(data.split("train"), 100, seed=0, device=CUDA))
    step = 0
    while step < 30:
        step += len(runner(step, 50).values)
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            step += len(runner(step, 50).values)
    finally:
        torch.cuda.set_sync_debug_mode(before)


def test_eager_and_compiled_steps_do_not_wait_for_the_device_either():
    data, learner, trainer = built("execution=eager", "learner.ema=0.9", "learner.clip_norm=1")
    runner = trainer.runner(learner, Stream(data.split("train"), 100, seed=0, device=CUDA))
    runner(0, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 10):
            runner(step, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("execution", ["eager", "graph"])
@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_the_host_are_the_same_images_and_are_not_waited_for(execution, workers, tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (1000, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels, labels=np.arange(1000) % 10)
    words = ("data=arrays", f"data.path={tmp_path}/x.npz", f"execution={execution}")
    data, resident, trainer = built(*words)
    expected = steps(trainer, resident, data, 0, 40, batch_size=50)
    data, learner, trainer = built(*words, "loader.storage=host", f"loader.workers={workers}")
    stream = Stream(data.training(), 50, seed=learner.seed, device=CUDA)
    runner = trainer.runner(learner, stream)
    assert not stream.images.resident
    rows = [runner(step, 1) for step in range(5)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows += [runner(step, 1) for step in range(5, 40)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
        stream.close()
    found = torch.cat([row.values[:, row.names.index("loss")] for row in rows]).cpu()
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)


def test_the_likelihood_is_that_of_the_cpu():
    data, learner, trainer = built()
    valid = data.split("valid")
    steps(trainer, learner, data, 0, 100)
    host_data, host, trainer = built(device=torch.device("cpu"))
    host.model.load_state_dict(learner.model.state_dict())
    there = estimate_log_likelihood(learner.model, valid, 500).log_p[-1]
    here = estimate_log_likelihood(host.model, host_data.split("valid"), 500).log_p[-1]
    assert there.mean() == pytest.approx(here.mean().item(), abs=0.1)
    assert (there - here).abs().max() < 3


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_are_the_same_bits_on_every_device(channels):
    data, _, _ = built("data=shapes", f"data.channels={channels}", "data.size=32", "loader.storage=host")
    there, index = data.split("valid"), torch.arange(500)
    here = there.store.on(torch.device("cpu"))
    assert there.resident
    assert torch.equal(there.store.take(index.to(CUDA)).cpu(), here.take(index))


def test_the_order_of_images_is_that_of_the_cpu():
    images = built()[0].training()
    on_device, on_host = (Stream(images, 100, seed=3, device=device) for device in (CUDA, "cpu"))
    for step in (0, 12, 40):
        assert torch.equal(on_device.index(step).cpu(), on_host.index(step).cpu())


@pytest.mark.parametrize("optimizer", ["adam", "adamax", "rmsprop"])
def test_a_captured_run_is_resumed_by_an_eager_one(optimizer, tmp_path):
    words = (f"optimizer={optimizer}", "learner.ema=0.9")
    data, learner, trainer = built("execution=graph", *words)
    expected = steps(trainer, learner, data, 0, 50)
    data, first, trainer = built("execution=graph", *words)
    steps(trainer, first, data, 0, 25)
    Checkpoints(tmp_path).save(["last"], state_of(first, 25))
    for execution in ("graph", "eager"):
        data, second, trainer = built(f"execution={execution}", *words)
        TrainingState(second, Patience(None)).load_state_dict(Checkpoints(tmp_path).load("last", CUDA))
        torch.testing.assert_close(steps(trainer, second, data, 25, 50), expected[25:], rtol=2e-3, atol=0)
        assert trainer.execution == execution


def test_image_grids_and_checkpoints_are_written_while_steps_are_captured(tmp_path):
    data, learner, trainer = built("epochs=6", "trainer.sample_every=1", "trainer.log_every=3")
    _, execution = trainer.fit(learner, data, Checkpoints(tmp_path), [])
    assert execution == "graph"
    state = Checkpoints(tmp_path).load("last", "cpu")
    for name, value in learner.model.state_dict().items():
        assert torch.equal(state["model"][name], value.cpu())


@pytest.mark.parametrize("kind", ["autoregressive", "pixelcnn"])
def test_an_interrupted_prior_over_codes_continues_bit_for_bit(kind, monkeypatch):
    codes = torch.randint(64, (2000, 7, 7))
    whole, memory = fit(kind, codes, num_codes=64, device=CUDA), Memory(monkeypatch, 70)
    with pytest.raises(Interrupted):
        fit(kind, codes, memory, num_codes=64, device=CUDA)
    again = fit(kind, codes, memory, num_codes=64, device=CUDA)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    samples = [prior(None).sample(Rng(0, "x", device=CUDA), num) for prior in (whole, again) for num in (70, 3)]
    assert torch.equal(samples[0], samples[2])
    assert torch.equal(samples[0][:3], samples[1])
