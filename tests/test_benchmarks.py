"""The benchmarks: the same work in every implementation, the shapes of the roofline, and readable tables."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import against, io_overhead, machine, nll, report
from benchmarks.cached import CachedFolder, open_folder
from benchmarks.compare import (
    Schedule,
    WorkloadMismatch,
    check_agreement,
    measure,
    missing_support,
    table_rows,
    workers,
)
from benchmarks.gpu_idle import union_length
from benchmarks.imagefolder import ImageFolderLoop
from benchmarks.implementation import Implementation
from benchmarks.loading import NUM_CLASSES, SIDE, generate
from benchmarks.loading import table_rows as loading_rows
from benchmarks.loading import workers as loading_workers
from benchmarks.measurement import Measurement, speedup
from benchmarks.pool import ChildProcess, Worker
from benchmarks.pytorch_loop import PyTorchLoop, TutorialVAE
from benchmarks.roofline import Roofline, record_layers
from benchmarks.training import compose_config
from benchmarks.vae_train_loop import VaeTrainLoop, workload_overrides
from benchmarks.workload import Settings, Workload

MLP = Workload("mlp", (1, 28, 28), 128)
SMALL = [
    Workload("mlp", (1, 10, 9), 32, width=16),
    Workload("conv", (1, 12, 9), 16),
    Workload("conv", (3, 9, 12), 16),
]


def settings(workload: Workload, num_images: int = 128) -> Settings:
    return Settings(workload, num_images, threads=torch.get_num_threads())


def test_the_roofline_has_the_shapes_and_the_work_of_the_mlp() -> None:
    roofline = Roofline(settings(MLP))
    shapes = [(layer.input[0], layer.weight[0], layer.output[0], layer.is_first) for layer in roofline.layers]
    assert shapes == [
        ((128, 784), (400, 784), (128, 400), True),
        ((128, 400), (40, 400), (128, 40), False),
        ((128, 20), (400, 20), (128, 400), False),
        ((128, 400), (784, 400), (128, 784), False),
    ]
    forward = 2 * 128 * (784 * 400 + 400 * 40 + 20 * 400 + 400 * 784)
    inputs = forward - 2 * 128 * 784 * 400
    assert sum(layer.flop for layer in roofline.layers) == 2 * forward + inputs == 419_840_000
    assert roofline.num_parameters == 652_824
    roofline.steps(1)


@pytest.mark.parametrize("workload", SMALL[1:], ids=lambda workload: workload.title)
def test_the_roofline_of_convolutions_runs(workload: Workload) -> None:
    roofline = Roofline(settings(workload))
    kinds = [None if layer.convolution is None else layer.convolution["transposed"] for layer in roofline.layers]
    scales = 2
    assert kinds == [False] * scales + [None] * 4 + [True] * scales + [False]
    roofline.steps(1)


def test_flop_of_convolutions() -> None:
    down = torch.nn.Conv2d(3, 5, 3, stride=2, padding=1)
    up = torch.nn.ConvTranspose2d(5, 3, 3, stride=2, padding=1, output_padding=1)
    model = torch.nn.Sequential(down, up)
    first, second = record_layers(model, lambda: model(torch.zeros(7, 3, 8, 8)))
    kernel = 3 * 5 * 9
    assert first.flop == 2 * 2 * 7 * 4 * 4 * kernel
    assert second.flop == 3 * 2 * 7 * 4 * 4 * kernel


@pytest.fixture
def pythae() -> Iterator[Callable[[Settings], Implementation]]:
    pytest.importorskip("pythae")
    from benchmarks.pythae_baseline import PythaeBaseline

    built: list[PythaeBaseline] = []

    def build(settings: Settings) -> Implementation:
        built.append(PythaeBaseline(settings))
        return built[-1]

    yield build
    for baseline in built:
        baseline.close()


def assert_equal_training(workload: Workload, build: Callable[[Settings], Implementation]) -> None:
    other, own = build(settings(workload)), VaeTrainLoop(settings(workload))
    assert other.num_parameters == own.num_parameters
    assert other.steps(6) == pytest.approx(own.steps(6), rel=0.05)
    assert other.steps(2) == pytest.approx(own.steps(2), rel=0.05)


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.title)
def test_the_pytorch_loop_trains_as_vae_train_does(workload: Workload) -> None:
    assert_equal_training(workload, lambda settings: PyTorchLoop(settings, workers=0))


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.title)
def test_pythae_trains_as_vae_train_does(workload: Workload, pythae: Callable[[Settings], Implementation]) -> None:
    assert_equal_training(workload, pythae)


@pytest.mark.parametrize("workload", SMALL, ids=lambda workload: workload.title)
def test_the_loss_is_the_same_with_the_same_weights(workload: Workload) -> None:
    """The noise differs, so z is made almost certain: the heads of the log-variance are set to exp(-20)."""
    own, theirs = VaeTrainLoop(settings(workload)), TutorialVAE(workload)
    model = own.training.model
    *trunk, weight, bias = model.encoder.parameters()
    with torch.no_grad():
        weight[workload.latent_dim :] = 0
        bias[workload.latent_dim :] = -20
        (mean, log_variance), (mean_bias, log_variance_bias) = weight.chunk(2), bias.chunk(2)
        heads = [mean, mean_bias, log_variance, log_variance_bias]
        modules = [theirs.trunk, theirs.mean, theirs.log_variance, theirs.decoder]
        parameters = [p for module in modules for p in module.parameters()]
        for old, new in zip(parameters, [*trunk, *heads, *model.decoder.parameters()], strict=True):
            old.copy_(new)
    x = own.training.stream.batch(0).x
    expected = theirs.loss(x, *theirs(x)) / workload.batch_size
    # Dequantised colours lie at (k + 1/2) / 256, the others at k / 255.
    assert own.steps(1) == pytest.approx(expected.item(), rel=1e-4 if workload.binary else 5e-3)


def test_the_mlp_workload_is_the_published_experiment() -> None:
    own, published = (
        compose_config([*workload_overrides(MLP), "data.path=x"]),
        compose_config(["experiment=pytorch_example"]),
    )
    for place in ("model", "optimizer", "objective", "learner", "lr_schedule", "batch_size", "latent_dim", "seed"):
        assert own[place] == published[place]


def worker(name: str, loss: float, parameters: int = 1) -> Worker:
    kind = name if name in ("pytorch_loop", "roofline") else "vae_train_loop"
    return Worker(name, kind, settings(MLP), loss=loss, facts={"parameters": parameters})


def test_implementations_that_differ_are_rejected() -> None:
    schedule = Schedule(warmup_steps=10, loss_window=5, tolerance=0.02, turn_seconds=1, repeats=1)
    check_agreement([worker("pytorch_loop", 100), worker("vae_train", 101), worker("roofline", float("nan"))], schedule)
    for loss in (103.0, float("nan")):
        with pytest.raises(WorkloadMismatch, match="differ by more than 2%"):
            check_agreement([worker("pytorch_loop", 100), worker("vae_train", loss)], schedule)
    with pytest.raises(WorkloadMismatch, match="parameters"):
        check_agreement([worker("pytorch_loop", 100), worker("vae_train", 100, parameters=2)], schedule)


def test_speedups_pair_repetitions() -> None:
    assert speedup([1.0, 2.0, 4.0], [3.0, 2.0, 8.0]) == Measurement(2.0, 1.0, 3.0, [3.0, 1.0, 2.0])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_default_settings_compete(device: str) -> None:
    names = [w.name for w in workers(Settings(MLP, 128, device))]
    assert len(set(names)) == len(names)
    assert {name.split(",")[0] for name in names} == {"pytorch_loop", "pythae", "vae_train", "roofline"}
    assert {"vae_train", "vae_train, compile"} <= set(names)


def test_compiled_steps_need_a_compiler_on_a_cpu() -> None:
    assert missing_support("cpu", "compile", find_program=lambda name: None) == "execution=compile needs a C++ compiler"
    assert missing_support("cpu", "compile", find_program=lambda name: name if name == "g++" else None) is None
    assert missing_support("cuda", "compile", find_program=lambda name: None) is None
    assert missing_support("cpu", "eager", find_program=lambda name: None) is None


@pytest.mark.slow
def test_a_small_comparison_runs_and_renders() -> None:
    small = settings(SMALL[0], 64)
    loop = Worker("pytorch_loop", "pytorch_loop", small, {"workers": 0})
    schedule = Schedule(warmup_steps=6, loss_window=4, tolerance=0.1, turn_seconds=0.01, repeats=2)
    part = measure([loop, Worker("vae_train", "vae_train_loop", small)], schedule, lambda line: None)
    assert set(part["implementations"]) == {"pytorch_loop", "vae_train"}
    assert len(part["implementations"]["vae_train"]["speedup_over"]["pytorch_loop"]["values"]) == 2
    text = report.comparison_table(part)
    assert text.startswith("**mlp 90-16-20, batch 32** (64 images: random images;")
    assert "\n\nMean loss of steps 2 to 6: pytorch_loop " in text


@pytest.mark.parametrize(
    ("device", "cpu", "kind"),
    [
        ("cpu", "Intel(R) Xeon(R) Processor", "cpu-2-cores-intel-xeon-processor"),
        ("cpu", "AMD EPYC", "cpu-2-cores-amd-epyc"),
        ("cuda", "AMD EPYC", "nvidia-h200"),
    ],
)
def test_every_kind_of_machine_has_a_results_file(device: str, cpu: str, kind: str) -> None:
    software = {"cores": 2, "gpu": "NVIDIA H200", "python": "3.12", "torch": "2.15", "cuda": "13.0"}
    path = report.results_path({"machine": machine.describe(software, device, 2, cpu)})
    assert path == report.RESULTS / f"{kind}.json"


def bench_results() -> report.Results:
    kinds = {"pytorch_loop": "pytorch_loop", "vae_train": "vae_train_loop", "roofline": "roofline"}
    seconds = {"pytorch_loop": [1.0, 2.0, 4.0], "vae_train": [0.5, 0.5, 1.0], "roofline": [0.25, 0.5, 0.5]}
    part = {
        "title": MLP.title,
        "data": "MNIST",
        "parameters": 652_824,
        "gflop_per_step": 0.42,
        "agreement": {"steps": 10, "window": 5, "losses": {"pytorch_loop": 100.0, "vae_train": 101.0}},
        "implementations": table_rows(seconds, kinds, 128, {name: {"resident": 700} for name in kinds}),
        "left_out": {"pythae": "pip install pythae"},
    }
    about = {"kind": "cpu-2-cores", "gpu": None, "cpu": "A processor", "cores": 2, "threads": 2, "torch": "2.15"}
    return {"command": "scripts/bench", "date": "2026-01-02", "machine": about, "parts": {"mlp-128": part}}


def gpu_results() -> report.Results:
    idle = {"wall_us_per_step": 310.4, "kernels_us_per_step": 290.1, "kernels_per_step": 100.37, "idle_share": 0.0654}
    return {
        "command": "scripts/gpu_check",
        "host": {"gpu": "A GPU", "torch": "2.15", "date": "2026-01-02T03:04:05+00:00"},
        "stages": [],
        "timings": bench_results()["parts"]["mlp-128"],
        "gpu_idle": [{"execution": "graph", **idle}],
    }


def test_the_readme_shows_all_results(tmp_path: Path) -> None:
    readme, folder = tmp_path / "README.md", tmp_path / "results"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write(bench_results(), folder / "cpu-2-cores.json")
    (folder / "other.json").write_text("{}")
    assert json.loads((folder / "cpu-2-cores.json").read_text()) == bench_results()
    report.rewrite_readme(readme, folder)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    head = "|  | steps/s | images/s | speedup over pytorch_loop | speedup over vae_train | peak memory, MiB |"
    assert head in text
    assert "| pytorch_loop | 0.50 (0.25 – 1.00) | 64 | 1 | 0.25 (0.25 – 0.50) | 700 |" in text
    assert "| vae_train | 2.00 (1.00 – 2.00) | 256 | 4.00 (2.00 – 4.00) | 1 | 700 |" in text
    assert "| roofline | 2.00 (2.00 – 4.00) | 256 | 4.00 (4.00 – 8.00) | 2.00 (1.00 – 2.00) | – |" in text
    assert "Left out: pythae (pip install pythae)." in text
    report.write(gpu_results(), folder / "gpu-a-gpu.json")
    report.rewrite_readme(readme, folder)
    assert "### A GPU\n\n`scripts/gpu_check`, torch 2.15, 2026-01-02." in readme.read_text()
    assert "| execution=graph | 310 | 290 | 100 | 6.5% |" in readme.read_text()
    (folder / "gpu-a-gpu.json").unlink()
    report.rewrite_readme(readme, folder)
    assert readme.read_text() == text


def test_the_stored_results_render() -> None:
    stored = [json.loads(path.read_text()) for path in report.RESULTS.glob("*.json")]
    for results in stored:
        text = report.bench_tables(results) if "parts" in results else report.gpu_tables(results)
        assert "| vae_train | " in text
        assert text in report.README.read_text()


@pytest.mark.slow
def test_the_overhead_of_outputs_is_measured_and_renders() -> None:
    part = io_overhead.measure(settings(SMALL[0], 64), 2, 2, lambda line: None, epochs=2)
    assert part["share"]["max"] < 1
    ratios = [1 - b / o for b, o in zip(*(part["seconds"][k]["values"] for k in ("bare", "outputs")), strict=True)]
    assert part["share"]["values"] == pytest.approx(ratios, abs=1e-3)
    text = report.bench_tables(bench_results() | {"parts": {"io_overhead": part}})
    assert "| steps and validation alone | " in text
    assert "Share of the time: " in text


def test_concurrent_kernels_count_once() -> None:
    assert union_length([(0.0, 2.0), (5.0, 6.0), (1.0, 3.0), (5.5, 5.7)]) == 4.0
    assert union_length([]) == 0.0


def test_speed_is_the_median_of_the_windows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"split": "train", "scope": "step", "images_per_second": rate} for rate in (1, 30, 10, 20)]
    rows += [{"split": "train", "scope": "epoch", "images_per_second": 7}, {"split": "valid", "scope": "epoch"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert against.images_per_second(path, dropped_windows=1) == 20


def test_another_commit_is_compared_by_repetition() -> None:
    summary = against.summarize(MLP, {"main": [100.0, 200.0], "here": [110.0, 190.0]}, "main")
    assert summary["speedup"]["values"] == pytest.approx([1.1, 0.95])
    text = against.table({"mlp-128": summary}, "main")
    assert "| mlp 784-400-20, batch 128 | 150 (100 – 200) | 150 (110 – 190) | 1.02" in text


@pytest.mark.slow
def test_a_turn_against_another_commit_trains(tmp_path: Path) -> None:
    course = against.Course(SMALL[0], epochs=1, log_every=1, dropped_windows=1)
    small = settings(SMALL[0], 128)
    images = against.write_images(small, tmp_path / "images.npz")
    overrides = [*against.turn_overrides(course, small), f"data.path={images}", f"out={tmp_path / 'run'}"]
    assert against.train(against.ROOT, overrides, tmp_path / "run", course.dropped_windows) > 0
    with pytest.raises(RuntimeError, match="lr=-1"):
        against.train(against.ROOT, [*overrides, "lr=-1"], tmp_path / "run", course.dropped_windows)


def test_a_worktree_is_removed(tmp_path: Path) -> None:
    if not (against.ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    with against.worktree("HEAD", tmp_path / "checkout") as checkout:
        assert (checkout / "vae_train").is_dir()
    listed = subprocess.run(["git", "-C", str(against.ROOT), "worktree", "list"], capture_output=True, text=True)
    assert str(tmp_path) not in listed.stdout
    assert not (tmp_path / "checkout").exists()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("loading") / "images", 70)


READING = Settings(Workload("mlp", (3, SIDE, SIDE), 32), 70)


def cached(root: Path, cache: Path, storage: str = "device", workers: int = 0) -> CachedFolder:
    return CachedFolder(settings(READING.workload, 70), str(root), str(cache), storage, workers)


def test_generated_images_are_the_same_every_time(images: Path, tmp_path: Path) -> None:
    again = generate(tmp_path, 70)
    files = sorted(path.relative_to(images) for path in images.rglob("*.jpg"))
    assert len(files) == 70
    assert len({file.parent for file in files}) == NUM_CLASSES
    assert all((images / file).read_bytes() == (again / file).read_bytes() for file in files)


@pytest.mark.parametrize(("storage", "workers"), [("device", 0), ("host", 0), ("host", 2)])
def test_cached_images_are_those_of_imagefolder(images: Path, tmp_path: Path, storage: str, workers: int) -> None:
    own = cached(images, tmp_path, storage, workers)
    comparison = own.compare_images()
    assert (comparison["images"], comparison["share_differing"]) == (70, 0.0)
    assert comparison["max_difference"] < 1e-6
    assert own.step == 3
    own.steps(2)
    own.reader.close()


def test_other_pixels_labels_or_files_are_rejected(images: Path, tmp_path: Path) -> None:
    from PIL import Image

    copy = generate(tmp_path / "copy", 70)
    own = cached(copy, tmp_path / "cache")
    own.compare_images()
    path = copy / "class_0" / "00000.jpg"
    original = path.read_bytes()
    Image.fromarray(np.zeros((SIDE, SIDE, 3), dtype=np.uint8)).save(path)
    with pytest.raises(WorkloadMismatch, match="or their labels differ"):
        own.compare_images()
    path.write_bytes(original)
    own.compare_images()
    own.root = str(generate(tmp_path / "other", 71))
    with pytest.raises(WorkloadMismatch, match="71 images"):
        own.compare_images()


def test_imagefolder_reads_whole_epochs(images: Path) -> None:
    loop = ImageFolderLoop(settings(READING.workload, 70), str(images), workers=0)
    facts = loop.facts()
    assert facts == {"batches": 3, "images": 70}
    batches = [next(loop.batches) for _ in range(2 * facts["batches"])]
    assert [len(x) for x, _ in batches] == [32, 32, 6] * 2
    loop.steps(1)


def test_the_first_start_makes_the_cache_and_the_second_opens_it(images: Path, tmp_path: Path) -> None:
    for _ in range(2):
        facts = open_folder(str(images), str(tmp_path), "cpu", torch.get_num_threads())
        assert (facts["images"], tuple(facts["shape"]), facts["classes"]) == (70, (3, SIDE, SIDE), NUM_CLASSES)
        assert facts["seconds"] > 0
        assert len(list(tmp_path.iterdir())) == 1


def test_readers_are_compared_with_the_faster_imagefolder() -> None:
    process = ChildProcess()
    names = [w.name for w in loading_workers(READING, {"root": "r", "cache": "c"}, process, process)]
    seconds = dict(zip(names, ([4.0, 4.0], [2.0, 3.0], [1.0, 1.0], [2.0, 1.0], [4.0, 6.0]), strict=True))
    rows = loading_rows(seconds)
    assert rows["reference"] == "ImageFolder, workers=2"
    assert rows["implementations"]["vae_train"]["speedup"]["values"] == [2.0, 3.0]
    assert rows["implementations"]["vae_train, storage=host, workers=2"]["speedup"]["values"] == [0.5, 0.5]
    assert rows["implementations"]["vae_train, storage=host, workers=0"]["images_per_second"]["values"] == [0.5, 1.0]


def test_the_results_of_loading_render() -> None:
    s = Measurement.of([10.0, 20.0, 30.0]).as_json()
    part = {
        "title": "70 images of 32x32 in 10 classes",
        "data": "JPEGs",
        "images": 70,
        "batch_size": 32,
        "agreement": {"images": 70, "share_differing": 0.0, "max_difference": 6e-8},
        "opening": {
            "first": {"seconds": s, "images_per_second": s},
            "listing": {"seconds": s, "images_per_second": None},
        },
        **loading_rows({"ImageFolder, workers=0": [0.1, 0.1], "vae_train": [0.05, 0.04]}),
    }
    text = report.bench_tables({**bench_results(), "parts": {"loading": part}})
    assert "| vae_train | 22 (20 – 25) | 2.25 (2.00 – 2.50) |" in text
    assert "| first | 20.00 (10.00 – 30.00) | 20 (10 – 30) |" in text
    assert "| listing | 20.00 (10.00 – 30.00) | – |" in text
    assert "All 70 images were compared" in text


def test_importance_sampling_is_measured_and_renders() -> None:
    part = nll.measure("cpu", torch.get_num_threads(), 2, lambda text: None)
    assert part["flop_per_sample"] == 2 * (50 * 200 + 200 * 200 + 200 * 784)
    assert part["samples_per_second"]["min"] > 0
    assert part["share_of_roofline"]["median"] == pytest.approx(
        part["samples_per_second"]["median"] / part["roofline_per_second"]["median"], rel=0.5
    )
    text = report.bench_tables({**bench_results(), "parts": {"nll": part}})
    assert "| vae eval | " in text
    assert "413,600 floating-point operations" in text
